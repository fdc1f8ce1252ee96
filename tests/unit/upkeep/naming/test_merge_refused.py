"""naming/merge.py: what is refused, by which error, and that no tag has changed by then."""

import json
from pathlib import Path

import pytest

from kitcache.errors import Damaged, KitcacheError, NotACache, Unsafe, UsageError
from kitcache.store import commit as commit_module
from kitcache.upkeep.naming.merge import merge
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import Box, Sample, encode
from tests.unit.upkeep.naming.mergekit import items


def test_tags_that_disagree_are_refused_and_nothing_is_made(
    sample: Sample, other: Box, target: Path
) -> None:
    other.tag("main", other.manifest([]))
    for dry_run in (True, False):
        with pytest.raises(KitcacheError, match="tag 'main' is ") as caught:
            merge([sample.dir, other.dir], target, dry_run=dry_run)
        assert str(sample.dir) in caught.value.problem
        assert str(other.dir) in caught.value.problem
        assert caught.value.effect == "nothing was changed"
    assert not target.exists()


@pytest.mark.parametrize("part", ["manifest", "config", "layer", "entry"])
def test_a_source_that_is_not_whole_is_refused_before_anything_is_written(
    sample: Sample, other: Box, target: Path, part: str
) -> None:
    manifest = json.loads(sample.box.path_of(sample.dev["digest"]).read_bytes())
    if part == "entry":
        sample.box.entries.append({"digest": "sha256:x", "size": 7})
        sample.box.write_index(encode(sample.box.index_document()))
    else:
        digests = {
            "manifest": sample.dev["digest"],
            "config": manifest["config"]["digest"],
            "layer": sample.layers[2]["digest"],
        }
        sample.box.damage(digests[part], b"wrong-size")
    for dry_run in (True, False):
        with pytest.raises(Damaged, match="is not complete") as caught:
            merge([other.dir, sample.dir], target, dry_run=dry_run)
        assert caught.value.tag == (None if part == "entry" else "dev")
        assert caught.value.path == str(sample.dir)
        assert caught.value.effect == "nothing was changed"
        assert caught.value.hints[0] == f"kitcache verify {sample.dir} --repair"
    assert not target.exists()


def test_a_layer_of_other_bytes_does_not_come(sample: Sample, other: Box, target: Path) -> None:
    """Only a look into it can tell, so blobs have come before; no tag has."""
    layer = sample.layers[2]
    sample.box.damage(layer["digest"], b"!" * layer["size"])
    with pytest.raises(Damaged, match="does not match its digest") as caught:
        merge([other.dir, sample.dir], target)
    assert caught.value.problem.startswith("tag 'dev' is not complete: blob sha256:")
    assert (caught.value.tag, caught.value.chain) == ("dev", ("index.json", layer["digest"]))
    assert "no tag was changed" in caught.value.effect
    assert caught.value.hints == (f"kitcache verify {sample.dir} --repair",)
    assert items(target) == []


def test_a_blob_that_nobody_can_check_is_refused(sample: Sample, target: Path) -> None:
    strange = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "b3:ab", "size": 1}
    sample.box.tag("odd", sample.box.manifest([strange]))
    with pytest.raises(Damaged, match="cannot verify: b3:ab") as caught:
        merge([sample.dir], target)
    assert (caught.value.tag, target.exists()) == ("odd", False)


@pytest.mark.parametrize("paths", ["same", "link", "below", "above"])
def test_a_target_that_is_a_source_is_refused(sample: Sample, tmp_path: Path, paths: str) -> None:
    (tmp_path / "link").symlink_to("cache")
    target = {
        "same": sample.dir,
        "link": tmp_path / "link",
        "below": sample.dir / "new",
        "above": tmp_path,
    }[paths]
    if paths == "above":
        sample.box.top.joinpath("index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    before = take_snapshot(tmp_path)
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"one directory|are nested"):
            merge([sample.dir], target, dry_run=dry_run)
    assert differences(before, take_snapshot(tmp_path)) == []


def test_words_that_make_no_sense(sample: Sample, target: Path) -> None:
    with pytest.raises(UsageError, match="at least one cache"):
        merge([], target)
    with pytest.raises(UsageError, match="has an empty name or glob"):
        merge([sample.dir], target, rename=["main="])


def test_what_is_no_cache(sample: Sample, tmp_path: Path, target: Path) -> None:
    with pytest.raises(NotACache, match="no such directory"):
        merge([tmp_path / "nowhere"], target)
    with pytest.raises(NotACache):
        merge([sample.dir], tmp_path / "a\0b")
    target.mkdir()
    (target / "thesis.tex").touch()
    for dry_run in (True, False):
        with pytest.raises(NotACache, match="contains other files") as caught:
            merge([sample.dir], target, dry_run=dry_run)
        assert caught.value.effect == "nothing was changed"


def test_a_target_whose_index_cannot_be_relied_upon(sample: Sample, other: Box) -> None:
    index = other.dir / "index.json"
    for data in (b"{", b'{"Manifests":[]}'):
        index.write_bytes(data)
        with pytest.raises(Damaged, match=r"index.json is invalid or ambiguous"):
            merge([sample.dir], other.dir)
        assert index.read_bytes() == data
    index.unlink()
    with pytest.raises(Damaged, match=r"index.json is missing but blobs/ is not empty"):
        merge([sample.dir], other.dir)
    assert not index.exists()


@pytest.mark.parametrize("is_source", [False, True])
def test_an_index_that_cannot_be_written_back_is_told_before_a_blob_comes(
    sample: Sample, other: Box, is_source: bool
) -> None:
    index = (sample.dir if is_source else other.dir) / "index.json"
    index.write_bytes(index.read_bytes().replace(b'"manifests"', b'"x":1e400,"manifests"', 1))
    before = take_snapshot(other.dir)
    for is_dry in (True, False):
        with pytest.raises(Damaged, match="the number 1e400 cannot be written back") as caught:
            merge([sample.dir], other.dir, dry_run=is_dry)
        assert caught.value.path == str(index.parent)
    after = take_snapshot(other.dir)
    assert after.keys() - before.keys() <= {"kitcache.lock"}


def test_an_index_that_nobody_could_read_again_is_not_written(
    sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of 40 MiB make one of 80, and the cap is 64."""
    sizes = [(cache / "index.json").stat().st_size for cache in (sample.dir, other.dir)]
    monkeypatch.setattr(commit_module, "STRUCTURAL_LIMIT_BYTES", max(sizes) + 10)
    before = items(other.dir)
    with pytest.raises(Unsafe, match=r"index.json would be larger") as caught:
        merge([sample.dir], other.dir)
    assert (caught.value.effect, items(other.dir)) == (
        "no tag was changed; copied blobs are kept for the next merge or reset",
        before,
    )


def test_a_blob_that_is_a_link_back_to_what_names_it_does_not_come(
    sample: Sample, target: Path
) -> None:
    layer = sample.layers[0] | {"digest": f"sha256:{'7' * 64}", "size": 100}
    layer["size"] = sample.box.manifest([layer], sample.layers[1])["size"]
    looped = sample.box.manifest([layer], sample.layers[1])
    assert looped["size"] == layer["size"], "else its length would give it away"
    sample.box.path_of(layer["digest"]).symlink_to(looped["digest"].partition(":")[2])
    sample.box.tag("looped", looped)
    with pytest.raises(Damaged, match="is not complete"):
        merge([sample.dir], target)
