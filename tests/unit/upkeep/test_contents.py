"""upkeep/contents.py: the blobs of one tag, what each is, and what the tag alone needs."""

import json
from pathlib import Path

import pytest

from kitcache.errors import NotFound
from kitcache.gc.values import Tally
from kitcache.store.open import open_store
from kitcache.store.state import record_layer_uses
from kitcache.upkeep.contents import ls_tag
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import IMAGE_CONFIG, Json, Sample, encode
from tests.hostile.stages import DEV, LAYER_BYTES, MAIN, Stages, layer_of, make_stages, record_of


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    return make_stages(tmp_path)


def image(sample: Sample, history: Json) -> Json:
    config = {"os": "linux", "architecture": "arm64", "history": history}
    layers = [sample.box.blob(word.encode() * 100) for word in ("base", "files and files")]
    return sample.box.manifest(layers, sample.box.document(config, IMAGE_CONFIG))


def test_each_layer_of_a_cache_has_the_step_that_made_it(stages: Stages) -> None:
    before = take_snapshot(stages.dir)
    contents = ls_tag(stages.dir, "main")
    assert differences(before, take_snapshot(stages.dir)) == []
    assert (contents.kind, contents.ref_name) == ("cache", "main")
    assert contents.size.bytes == stages.bytes_of(stages.main)
    steps = {str(b.digest): b.step for b in contents.blobs if b.role == "layer"}
    assert {digest: step and step.cache_key for digest, step in steps.items()} == {
        layer_of(name): record_of(name) for name, _, _ in MAIN
    }
    base = steps[layer_of("base")]
    assert base is not None
    assert (base.created_ns, base.last_read_ns, base.bytes) == (10**9, None, LAYER_BYTES)


def test_when_a_step_was_last_read(stages: Stages) -> None:
    with open_store(stages.dir) as layout:
        record_layer_uses(layout, [layer_of("base")], 5 * 10**9)
    (base,) = [b for b in ls_tag(stages.dir, "main").blobs if str(b.digest) == layer_of("base")]
    assert base.step is not None
    assert base.step.last_read_ns == 5 * 10**9


def test_what_another_tag_needs_is_not_free_without_this_one(stages: Stages) -> None:
    contents = ls_tag(stages.dir, "main")
    unique = {str(blob.digest) for blob in contents.blobs if blob.unique_bytes}
    shared = {layer_of(name) for name, _, _ in DEV}
    own = {str(blob.digest) for blob in contents.blobs} - shared
    assert unique == own
    freed = stages.bytes_of(stages.main, stages.dev) - stages.bytes_of(stages.dev)
    assert contents.unique == Tally(len(own), freed)
    assert sum(blob.unique_bytes for blob in contents.blobs) == freed


def test_an_alias_leaves_nothing_to_free(stages: Stages) -> None:
    stages.box.tag("alias", stages.main)
    assert ls_tag(stages.dir, "main").unique == Tally()


def test_two_entries_of_one_tag_count_together(sample: Sample) -> None:
    sample.box.tag("main", sample.dev)
    index = sample.box.index_document()
    del index["manifests"][1]
    sample.box.write_index(encode(index))
    contents = ls_tag(sample.dir, "main")
    assert len(contents.digests) == 2
    assert contents.unique == contents.size


def test_the_largest_comes_first(stages: Stages) -> None:
    sizes = [blob.bytes or 0 for blob in ls_tag(stages.dir, "main").blobs]
    assert sizes == sorted(sizes, reverse=True)


def test_each_layer_of_an_image_has_its_command(sample: Sample) -> None:
    history = [
        {"created_by": "ADD base"},
        {"created_by": "ENV A=1", "empty_layer": True},
        {"created_by": "COPY . ."},
    ]
    sample.box.tag("app", image(sample, history))
    blobs = ls_tag(sample.dir, "app").blobs
    told = [(b.platform, b.created_by) for b in blobs if b.role == "layer"]
    assert told == [("linux/arm64", "COPY . ."), ("linux/arm64", "ADD base")]
    assert all(blob.step is None for blob in blobs)


@pytest.mark.parametrize("history", [None, [], [{"created_by": "one"}], "none", [1, 2]])
def test_a_history_that_does_not_match_the_layers_says_nothing(
    sample: Sample, history: Json
) -> None:
    sample.box.tag("app", image(sample, history))
    assert {blob.created_by for blob in ls_tag(sample.dir, "app").blobs} == {""}


def test_an_entry_without_a_tag_goes_by_its_digest(sample: Sample) -> None:
    sample.box.tag(None, image(sample, []))
    digest = sample.box.entries[-1]["digest"]
    contents = ls_tag(sample.dir, digest)
    assert (contents.ref_name, str(contents.digests[0])) == (None, digest)


def test_no_such_tag(sample: Sample) -> None:
    with pytest.raises(NotFound, match="has the tag or digest 'mian'") as caught:
        ls_tag(sample.dir, "mian")
    assert caught.value.hints[0] == "did you mean 'main'?"


def test_a_missing_layer_has_no_size(stages: Stages) -> None:
    stages.box.damage(layer_of("result"), None)
    contents = ls_tag(stages.dir, "main")
    assert contents.blobs[-1].bytes is None
    assert str(contents.blobs[-1].digest) == layer_of("result")
    assert contents.exit_code == 0


def test_a_damaged_tag_shows_what_can_be_seen(sample: Sample) -> None:
    index = json.loads((sample.dir / "index.json").read_bytes())
    sample.box.damage(index["manifests"][0]["digest"], b"{")
    contents = ls_tag(sample.dir, "main")
    assert (contents.exit_code, contents.size.blobs) == (12, 1)
