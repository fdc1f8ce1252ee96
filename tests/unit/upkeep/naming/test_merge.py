"""naming/merge.py: all that tags reach comes, as it was and in one step, and nothing else."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kitcache.errors import KitcacheError
from kitcache.gc.values import Tally
from kitcache.store.directory import DirectoryStore
from kitcache.store.open import open_store
from kitcache.store.state import (
    TagUse,
    read_layer_uses,
    read_tag_uses,
    record_layer_uses,
    write_tag_uses,
)
from kitcache.upkeep.naming import blobcopy as bring_module
from kitcache.upkeep.naming.merge import merge
from kitcache.upkeep.results import MergedTag
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import REF_NAME, Box, Sample, encode, make_sample
from tests.unit.upkeep.naming.mergekit import blobs, items, tags, without_links


@pytest.mark.parametrize("is_linked", [True, False])
def test_all_tags_of_two_in_a_cache_that_is_made(
    sample: Sample,
    other: Box,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_linked: bool,
) -> None:
    if not is_linked:
        without_links(monkeypatch)
    before = [(cache, items(cache), blobs(cache)) for cache in (sample.dir, other.dir)]
    merged = merge([sample.dir, other.dir], target)
    assert tags(target) == tags(sample.dir) | tags(other.dir)
    reached = sample.live | blobs(other.dir)
    assert blobs(target) == reached
    brought = Tally(len(reached), sum(p.stat().st_size for p in (target / "blobs").glob("*/*")))
    nothing = Tally()
    assert (merged.linked, merged.copied) == ((brought, nothing)[:: 1 if is_linked else -1])
    assert (merged.outcome, merged.reused, merged.warnings) == ("done", nothing, ())
    for digest in reached:
        path = target / "blobs" / "sha256" / digest
        original = next(p for c in (sample.dir, other.dir) for p in c.rglob(digest))
        assert path.samefile(original) == is_linked
        assert path.read_bytes() == original.read_bytes()
    assert json.loads((target / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert [(cache, items(cache), blobs(cache)) for cache, *_ in before] == before
    assert sorted(os.listdir(target / ".kitcache")) == ["tags.json"]


def test_what_the_target_has_stays_and_what_is_there_is_not_brought(
    sample: Sample, other: Box
) -> None:
    index = {**other.index_document(), "x-top": [7]}
    other.write_index(encode(index))
    before = items(other.dir)
    merged = merge([sample.dir], other.dir)
    assert items(other.dir) == before + items(sample.dir)
    assert json.loads((other.dir / "index.json").read_bytes())["x-top"] == [7]
    shared = len(b"layer 0" * 20)
    assert (merged.reused, merged.linked.blobs) == (Tally(1, shared), len(sample.live) - 1)


def test_leaves_are_on_the_disk_before_manifests_and_these_before_the_index(
    sample: Sample, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def listen(home: Any, name: str) -> None:
        real = getattr(home, name)

        def heard(*args: Any, **more: Any) -> Any:
            words = [name, *more] if name == "sync_blobs" else [name]
            done.append(str(args[2]) if name == "copy_blob" else " ".join(words))
            return real(*args, **more)

        monkeypatch.setattr(home, name, heard)

    for name in ("copy_blob", "sync_blobs"):
        listen(bring_module, name)
    listen(DirectoryStore, "commit_roots")
    merge([sample.dir], target)
    documents = [sample.main["digest"], sample.dev["digest"]]
    documents += [
        json.loads(sample.box.path_of(digest).read_bytes())["config"]["digest"]
        for digest in documents
    ]
    layers = [layer["digest"] for layer in sample.layers]
    assert set(done[:3]) == set(layers)
    assert set(done[4:8]) == set(documents)
    synced = "sync_blobs with_bytes"
    assert (done[3], done[8:]) == (synced, [synced, "commit_roots"])


def test_a_second_merge_changes_nothing(sample: Sample, other: Box, target: Path) -> None:
    merge([sample.dir, other.dir], target)
    everything = [take_snapshot(c) for c in (target, sample.dir, other.dir)]
    again = merge([other.dir, sample.dir], target)
    assert again.outcome == "unchanged"
    assert {tag.state for tag in again.tags} == {"unchanged"}
    assert (again.linked, again.copied) == (Tally(), Tally())
    after = [take_snapshot(c) for c in (target, sample.dir, other.dir)]
    assert [differences(b, a) for b, a in zip(everything, after, strict=True)] == [[], [], []]


def test_it_fills_a_hole_of_the_target(sample: Sample, target: Path) -> None:
    merge([sample.dir], target)
    lost = target / "blobs" / "sha256" / sample.layers[0]["digest"][7:]
    lost.unlink()
    again = merge([sample.dir], target)
    assert (again.outcome, again.linked.blobs) == ("done", 1)
    assert lost.exists()


def test_entries_come_as_they_are(sample: Sample, target: Path) -> None:
    rich = sample.main | {
        "platform": {"os": "linux", "architecture": "arm64"},
        "x-acme": {"deep": [None, 1.5]},
        "annotations": {REF_NAME: "rich", "acme": "kept"},
    }
    sample.box.entries.append(rich)
    sample.box.tag(None, sample.dev)
    merge([sample.dir], target)
    assert items(target) == items(sample.dir)


def test_names_by_pattern(sample: Sample, other: Box, target: Path) -> None:
    sample.box.tag(None, sample.dev)
    merged = merge([sample.dir, other.dir], target, rename=["dev=develop", "{dir}-{tag}"])
    assert list(tags(target)) == ["cache-main", "develop", None, "cache-extra"]
    assert merged.tags[0] == MergedTag(
        str(sample.dir), "main", "cache-main", (sample.main["digest"],), "new"
    )
    assert merge(sample.dir, target, rename="x/{tag}").tags[1].target_name == "x/dev"


@pytest.mark.parametrize("path", ["cache/", "./cache", "two/../cache", "link"])
def test_the_name_of_a_directory_is_the_one_it_is_called_by(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "link").symlink_to("cache")
    monkeypatch.chdir(tmp_path)
    merged = merge([path], "all", rename="{dir}-{tag}")
    expected = "link" if path == "link" else "cache"
    assert merged.tags[0].target_name == f"{expected}-main"


def test_replace_moves_the_targets_own(sample: Sample, other: Box) -> None:
    own = other.manifest([])
    other.tag("main", own)
    before = take_snapshot(other.dir / "blobs")
    with pytest.raises(KitcacheError, match="tag 'main' is "):
        merge([sample.dir], other.dir)
    assert differences(before, take_snapshot(other.dir / "blobs")) == []
    merged = merge([sample.dir], other.dir, replace=True)
    assert (merged.tags[0].state, merged.tags[0].previous_digests) == ("moved", (own["digest"],))
    assert tags(other.dir)["main"] == sample.main["digest"]
    assert own["digest"][7:] in blobs(other.dir)


def test_a_subject_comes_if_it_is_there_and_may_be_absent(sample: Sample, target: Path) -> None:
    subjects = [sample.box.manifest([sample.layers[0]], note=n) for n in range(2)]
    for n, subject in enumerate(subjects):
        sample.box.tag(f"s{n}", sample.box.manifest([sample.layers[1]], subject=subject, note=n))
    sample.box.damage(subjects[1]["digest"], None)
    merge([sample.dir], target)
    assert subjects[0]["digest"][7:] in blobs(target)
    assert {"s0", "s1"} <= set(tags(target))


def test_a_dry_run_says_what_would_come_and_writes_nothing(
    sample: Sample, other: Box, target: Path, tmp_path: Path
) -> None:
    for lock in (sample.dir / "kitcache.lock", other.dir / "kitcache.lock"):
        lock.touch()
    with (sample.dir / "kitcache.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = take_snapshot(tmp_path)
        dry = merge([sample.dir, other.dir], target, dry_run=True)
        into = merge([sample.dir], other.dir, dry_run=True)
        assert differences(before, take_snapshot(tmp_path)) == []
    assert (dry.outcome, into.outcome) == ("dry-run", "dry-run")
    done = merge([sample.dir, other.dir], target)
    for one, two in ((dry, done), (into, merge([sample.dir], other.dir))):
        assert one._replace(outcome="done", seconds=0) == two._replace(seconds=0)


def test_an_empty_source_makes_an_empty_target(box: Box, target: Path) -> None:
    box.write_index(b'{"schemaVersion":2,"manifests":null}')
    merged = merge([box.dir], target)
    assert (merged.outcome, merged.tags, items(target)) == ("unchanged", (), [])


def test_last_uses_are_carried_over(sample: Sample, other: Box) -> None:
    main, dev = sample.main["digest"], sample.dev["digest"]
    garbage = f"sha256:{min(sample.garbage)}"
    with open_store(sample.dir) as layout:
        write_tag_uses(layout, {"main": TagUse(10, 20, main), "gone": TagUse(5)})
        record_layer_uses(layout, [sample.layers[0]["digest"], garbage], 7)
    with open_store(other.dir) as layout:
        write_tag_uses(layout, {"extra": TagUse(1), "dev": TagUse(99, None, "sha256:older")})
        record_layer_uses(layout, [sample.layers[0]["digest"]], 3)
    merge([sample.dir], other.dir)
    with open_store(other.dir) as layout:
        assert read_tag_uses(layout) == {
            "extra": TagUse(1),
            "main": TagUse(10, 20, main),
            "dev": TagUse(None, None, dev),
        }
        assert read_layer_uses(layout) == {sample.layers[0]["digest"]: 7}


def test_of_one_tag_in_several_caches_the_later_use_counts(
    sample: Sample, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "two").mkdir()
    twin = make_sample(tmp_path / "two")
    main = sample.main["digest"]
    for cache, note in ((sample.dir, TagUse(10, 40)), (twin.dir, TagUse(30, 20))):
        with open_store(cache) as layout:
            write_tag_uses(layout, {"main": note})
    for _ in range(2):
        merge([sample.dir, twin.dir], target)
        with open_store(target) as layout:
            assert read_tag_uses(layout)["main"] == TagUse(30, 40, main)
