"""naming/merge.py: several caches into one: all that tags reach, in one step, and nothing else."""

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from kitcache.errors import (
    Busy,
    Cancelled,
    Damaged,
    KitcacheError,
    NotACache,
    Unsafe,
    UsageError,
)
from kitcache.gc.values import Progress, Tally
from kitcache.store import index as index_module
from kitcache.store.layout import open_layout
from kitcache.store.locks import Waiting
from kitcache.store.notes import (
    Note,
    note_layers,
    put_notes,
    read_layer_uses,
    read_notes,
)
from kitcache.upkeep.answers import MergedTag
from kitcache.upkeep.naming import bring as bring_module
from kitcache.upkeep.naming import merge as module
from kitcache.upkeep.naming.merge import merge
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import REF_NAME, Box, Sample, encode, make_sample


def items(cache: Path) -> list[Any]:
    return list(json.loads((cache / "index.json").read_bytes())["manifests"])


def tags(cache: Path) -> dict[str | None, str]:
    return {i.get("annotations", {}).get(REF_NAME): i["digest"] for i in items(cache)}


def blobs(cache: Path) -> set[str]:
    return {p.name for p in (cache / "blobs").rglob("*") if p.is_file()}


@pytest.fixture
def other(tmp_path: Path) -> Box:
    """A cache with the tag `extra`, which shares a layer with the sample."""
    (tmp_path / "two").mkdir()
    box = Box(tmp_path / "two")
    layers = [box.blob(b"layer 0" * 20), box.blob(b"a layer of its own" * 20)]
    box.tag("extra", box.manifest(layers))
    return box


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "all"


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", link)


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
    assert (merged.outcome, merged.there, merged.warnings) == ("done", nothing, ())
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
    assert (merged.there, merged.linked.blobs) == (Tally(1, shared), len(sample.live) - 1)


def test_leaves_are_on_the_disk_before_manifests_and_these_before_the_index(
    sample: Sample, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def listen(home: Any, name: str) -> None:
        real = getattr(home, name)

        def heard(*args: Any, **more: Any) -> Any:
            done.append(str(args[2]) if name == "bring_blob" else name)
            return real(*args, **more)

        monkeypatch.setattr(home, name, heard)

    for name in ("bring_blob", "sync_blobs", "sync_root"):
        listen(bring_module, name)
    listen(module, "swap_index")
    merge([sample.dir], target)
    documents = [sample.main["digest"], sample.dev["digest"]]
    documents += [
        json.loads(sample.box.path_of(digest).read_bytes())["config"]["digest"]
        for digest in documents
    ]
    layers = [layer["digest"] for layer in sample.layers]
    assert set(done[:3]) == set(layers)
    assert set(done[4:8]) == set(documents)
    assert (done[3], done[8:]) == ("sync_blobs", ["sync_blobs", "sync_root", "swap_index"])


def test_a_second_merge_changes_nothing(sample: Sample, other: Box, target: Path) -> None:
    merge([sample.dir, other.dir], target)
    everything = [take_snapshot(c) for c in (target, sample.dir, other.dir)]
    again = merge([other.dir, sample.dir], target)
    assert again.outcome == "unchanged"
    assert {tag.state for tag in again.tags} == {"there"}
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
    merged = merge([sample.dir, other.dir], target, tag_as=["dev=develop", "{dir}-{tag}"])
    assert list(tags(target)) == ["cache-main", "develop", None, "cache-extra"]
    assert merged.tags[0] == MergedTag(
        str(sample.dir), "main", "cache-main", (sample.main["digest"],), "new"
    )
    assert merge(sample.dir, target, tag_as="x/{tag}").tags[1].new == "x/dev"


@pytest.mark.parametrize("path", ["cache/", "./cache", "two/../cache", "link"])
def test_the_name_of_a_directory_is_the_one_it_is_called_by(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "link").symlink_to("cache")
    monkeypatch.chdir(tmp_path)
    merged = merge([path], "all", tag_as="{dir}-{tag}")
    expected = "link" if path == "link" else "cache"
    assert merged.tags[0].new == f"{expected}-main"


def test_tags_that_disagree_are_refused_and_nothing_is_made(
    sample: Sample, other: Box, target: Path
) -> None:
    other.tag("main", other.manifest([]))
    for dry_run in (True, False):
        with pytest.raises(KitcacheError, match="tag 'main' is ") as caught:
            merge([sample.dir, other.dir], target, dry_run=dry_run)
        assert str(sample.dir) in caught.value.problem
        assert str(other.dir) in caught.value.problem
        assert caught.value.untouched == "nothing was changed"
    assert not target.exists()


def test_replace_moves_the_targets_own(sample: Sample, other: Box) -> None:
    own = other.manifest([])
    other.tag("main", own)
    before = take_snapshot(other.dir / "blobs")
    with pytest.raises(KitcacheError, match="tag 'main' is "):
        merge([sample.dir], other.dir)
    assert differences(before, take_snapshot(other.dir / "blobs")) == []
    merged = merge([sample.dir], other.dir, replace=True)
    assert (merged.tags[0].state, merged.tags[0].moved_from) == ("moved", (own["digest"],))
    assert tags(other.dir)["main"] == sample.main["digest"]
    assert own["digest"][7:] in blobs(other.dir)


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
        sample.box.damage(digests[part], b"torn")
    for dry_run in (True, False):
        with pytest.raises(Damaged, match="is not whole") as caught:
            merge([other.dir, sample.dir], target, dry_run=dry_run)
        assert caught.value.tag == (None if part == "entry" else "dev")
        assert caught.value.path == str(sample.dir)
        assert caught.value.untouched == "nothing was changed"
        assert caught.value.next_steps[0] == f"kitcache verify {sample.dir} --repair"
    assert not target.exists()


def test_a_layer_of_other_bytes_does_not_come(sample: Sample, other: Box, target: Path) -> None:
    """Only a look into it can tell, so blobs have come before; no tag has."""
    layer = sample.layers[2]
    sample.box.damage(layer["digest"], b"!" * layer["size"])
    with pytest.raises(Damaged, match="holds other bytes") as caught:
        merge([other.dir, sample.dir], target)
    assert caught.value.problem.startswith("tag 'dev' is not whole: blob sha256:")
    assert (caught.value.tag, caught.value.chain) == ("dev", ("index.json", layer["digest"]))
    assert "no tag was changed" in caught.value.untouched
    assert caught.value.next_steps == (f"kitcache verify {sample.dir} --repair",)
    assert items(target) == []


def test_a_blob_that_nobody_can_check_is_refused(sample: Sample, target: Path) -> None:
    strange = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "b3:ab", "size": 1}
    sample.box.tag("odd", sample.box.manifest([strange]))
    with pytest.raises(Damaged, match="cannot be checked here: b3:ab") as caught:
        merge([sample.dir], target)
    assert (caught.value.tag, target.exists()) == ("odd", False)


def test_a_subject_comes_if_it_is_there_and_may_be_absent(sample: Sample, target: Path) -> None:
    subjects = [sample.box.manifest([sample.layers[0]], note=n) for n in range(2)]
    for n, subject in enumerate(subjects):
        sample.box.tag(f"s{n}", sample.box.manifest([sample.layers[1]], subject=subject, note=n))
    sample.box.damage(subjects[1]["digest"], None)
    merge([sample.dir], target)
    assert subjects[0]["digest"][7:] in blobs(target)
    assert {"s0", "s1"} <= set(tags(target))


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
        with pytest.raises(UsageError, match=r"one directory|within each other"):
            merge([sample.dir], target, dry_run=dry_run)
    assert differences(before, take_snapshot(tmp_path)) == []


def test_no_source_and_no_cache(sample: Sample, tmp_path: Path, target: Path) -> None:
    with pytest.raises(UsageError, match="at least one cache"):
        merge([], target)
    with pytest.raises(NotACache, match="no such directory"):
        merge([tmp_path / "nowhere"], target)
    target.mkdir()
    (target / "thesis.tex").touch()
    for dry_run in (True, False):
        with pytest.raises(NotACache, match="holds other things") as caught:
            merge([sample.dir], target, dry_run=dry_run)
        assert caught.value.untouched == "nothing was changed"
    with pytest.raises(NotACache):
        merge([sample.dir], tmp_path / "a\0b")
    with pytest.raises(UsageError, match="gives tags no name"):
        merge([sample.dir], target, tag_as=["main="])


def test_a_target_whose_index_cannot_be_relied_upon(sample: Sample, other: Box) -> None:
    index = other.dir / "index.json"
    for data in (b"{", b'{"Manifests":[]}'):
        index.write_bytes(data)
        with pytest.raises(Damaged, match=r"index.json cannot be relied upon"):
            merge([sample.dir], other.dir)
        assert index.read_bytes() == data
    index.unlink()
    with pytest.raises(Damaged, match=r"index.json is missing beside blobs"):
        merge([sample.dir], other.dir)
    assert not index.exists()


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


class TestLocks:
    def test_sources_are_held_shared_and_the_target_alone(
        self, sample: Sample, other: Box, target: Path
    ) -> None:
        seen: list[list[bool]] = []

        def hear(event: Progress | Waiting) -> None:
            if isinstance(event, Progress) and event.phase == "merge":
                states = []
                for cache in (sample.dir, target):
                    with (cache / "kitcache.lock").open() as file:
                        for kind in (fcntl.LOCK_SH, fcntl.LOCK_EX):
                            try:
                                fcntl.flock(file, kind | fcntl.LOCK_NB)
                                states.append(True)
                            except BlockingIOError:
                                states.append(False)
                seen.append(states)

        merge([sample.dir, other.dir], target, on_progress=hear)
        assert seen
        assert {tuple(states) for states in seen} == {(True, False, False, False)}

    @pytest.mark.parametrize("held", ["source", "target"])
    def test_who_has_the_other_lock_is_waited_for_and_named(
        self, sample: Sample, other: Box, held: str
    ) -> None:
        cache = sample.dir if held == "source" else other.dir
        kind = fcntl.LOCK_EX if held == "source" else fcntl.LOCK_SH
        with (cache / "kitcache.lock").open("w") as file:
            fcntl.flock(file, kind)
            before = items(other.dir)
            with pytest.raises(Busy, match=r"kitcache.lock is held by process") as caught:
                merge([sample.dir], other.dir, lock_timeout_s=0)
            assert (caught.value.path, caught.value.untouched) == (
                str(cache),
                "nothing was changed",
            )
            assert items(other.dir) == before

    def test_locks_are_taken_by_inode(
        self, sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken: list[tuple[str, str]] = []
        real = module.hold_store

        def hold(layout: Any, kind: Any, patience: Any) -> Any:
            taken.append((layout.path, kind))
            return real(layout, kind, patience)

        monkeypatch.setattr(module, "hold_store", hold)
        merge([sample.dir], other.dir)
        merge([other.dir], sample.dir)
        first, second = sorted((sample.dir, other.dir), key=lambda path: path.stat().st_ino)
        assert [path for path, _ in taken] == [str(first), str(second)] * 2
        kinds = {(str(sample.dir), "shared"), (str(other.dir), "exclusive")}
        assert set(taken[:2]) == kinds
        assert not set(taken[2:]) & kinds

    def test_a_source_that_cannot_be_locked_is_merged_and_told(
        self, sample: Sample, target: Path, tmp_path: Path
    ) -> None:
        (sample.dir / "kitcache.lock").symlink_to(tmp_path / "nowhere")
        merged = merge([sample.dir], target)
        assert merged.outcome == "done"
        assert merged.warnings == (
            f"{sample.dir}: not protected from a reset that runs meanwhile:"
            " kitcache.lock is a symbolic link",
        )
        assert not (tmp_path / "nowhere").exists()

    def test_a_target_that_cannot_be_locked_is_an_error(
        self, sample: Sample, other: Box, tmp_path: Path
    ) -> None:
        (other.dir / "kitcache.lock").symlink_to(tmp_path / "nowhere")
        with pytest.raises(KitcacheError, match=r"kitcache.lock is a symbolic link"):
            merge([sample.dir], other.dir)


class TestCancel:
    def stop_after(self, events: int) -> tuple[Event, Callable[[object], None]]:
        cancel, left = Event(), [events]

        def hear(event: object) -> None:
            if isinstance(event, Progress) and event.phase == "merge":
                left[0] -= 1
                if left[0] <= 0:
                    cancel.set()

        return cancel, hear

    @pytest.mark.parametrize("events", range(1, 6))
    def test_between_blobs_it_leaves_garbage_only(
        self, sample: Sample, other: Box, events: int
    ) -> None:
        cancel, hear = self.stop_after(events)
        before = items(other.dir)
        with pytest.raises(Cancelled) as caught:
            merge([sample.dir], other.dir, on_progress=hear, cancel=cancel)
        assert "no tag was changed" in caught.value.untouched
        assert items(other.dir) == before
        assert merge([sample.dir], other.dir).outcome == "done"

    def test_in_the_middle_of_a_copy(
        self, box: Box, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        box.tag("big", box.manifest([box.blob(b"x" * (3 << 20))]))
        without_links(monkeypatch)
        cancel, seen = Event(), list[Progress]()

        def hear(event: object) -> None:
            if isinstance(event, Progress) and event.phase == "merge":
                seen.append(event)
                if 1 << 20 < event.bytes < 3 << 20:
                    cancel.set()

        with pytest.raises(Cancelled):
            merge([box.dir], target, on_progress=hear, cancel=cancel)
        assert os.listdir(target / ".kitcache") == []
        assert {event.total_bytes for event in seen} == {
            sum(path.stat().st_size for path in (box.dir / "blobs").glob("*/*"))
        }
        assert [event.bytes for event in seen] == sorted(event.bytes for event in seen)


class TestOthers:
    def test_a_tag_that_is_published_in_the_target_meanwhile_stays(
        self, sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, names = module.swap_index, iter(["one", "two"])

        def met(*args: Any) -> bool:
            if name := next(names, None):
                other.tag(name, other.entries[0] | {"annotations": {}})
            return real(*args)

        monkeypatch.setattr(module, "swap_index", met)
        merge([sample.dir], other.dir)
        assert list(tags(other.dir)) == ["extra", "one", "two", "main", "dev"]

    def test_a_tag_that_becomes_another_meanwhile_is_not_overwritten(
        self, sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = module.swap_index

        def met(*args: Any) -> bool:
            if "main" not in tags(other.dir):
                other.tag("main", other.manifest([]))
            return real(*args)

        monkeypatch.setattr(module, "swap_index", met)
        with pytest.raises(KitcacheError, match="tag 'main' is "):
            merge([sample.dir], other.dir)
        assert list(tags(other.dir)) == ["extra", "main"]

    @pytest.mark.parametrize("is_source", [False, True])
    def test_an_index_that_cannot_be_written_back_is_told_before_a_blob_comes(
        self, sample: Sample, other: Box, is_source: bool
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
        self, sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two of 40 MiB make one of 80, and the cap is 64."""
        sizes = [(cache / "index.json").stat().st_size for cache in (sample.dir, other.dir)]
        monkeypatch.setattr(index_module, "STRUCTURAL_LIMIT_BYTES", max(sizes) + 10)
        before = items(other.dir)
        with pytest.raises(Unsafe, match=r"index.json would be larger") as caught:
            merge([sample.dir], other.dir)
        assert (caught.value.untouched, items(other.dir)) == ("index.json is as it was", before)

    def test_an_index_that_never_rests_is_busy(
        self, sample: Sample, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "swap_index", lambda *_: False)
        with pytest.raises(Busy, match=r"index.json changed 8 times meanwhile"):
            merge([sample.dir], target)

    def test_blobs_that_others_take_from_the_target_are_a_loss_that_is_told(
        self, sample: Sample, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = module.swap_index

        def met(*args: Any) -> bool:
            (target / "blobs" / "sha256" / sample.layers[2]["digest"][7:]).unlink()
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(module, "swap_index", met)
            with pytest.raises(Damaged, match="others removed from it meanwhile") as caught:
                merge([sample.dir], target)
        assert (caught.value.kind, caught.value.tag) == ("lost", "dev")
        assert merge([sample.dir], target).linked.blobs == 1

    def test_a_blob_that_goes_from_a_source_meanwhile_is_no_hole(
        self, sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stranger's sweep: it knows no lock of ours."""
        real, lost = bring_module.bring_blob, sample.box.path_of(sample.layers[2]["digest"])

        def met(*args: Any, **more: Any) -> Any:
            lost.unlink(missing_ok=True)
            return real(*args, **more)

        monkeypatch.setattr(bring_module, "bring_blob", met)
        before = items(other.dir)
        with pytest.raises(Damaged, match="is missing") as caught:
            merge([sample.dir], other.dir)
        assert (caught.value.path, items(other.dir)) == (str(sample.dir), before)


class TestNotes:
    def test_last_uses_are_carried_over(self, sample: Sample, other: Box) -> None:
        main, dev = sample.main["digest"], sample.dev["digest"]
        garbage = f"sha256:{min(sample.garbage)}"
        with open_layout(sample.dir) as layout:
            put_notes(layout, {"main": Note(10, 20, main), "gone": Note(5)})
            note_layers(layout, [sample.layers[0]["digest"], garbage], 7)
        with open_layout(other.dir) as layout:
            put_notes(layout, {"extra": Note(1), "dev": Note(99, None, "sha256:older")})
            note_layers(layout, [sample.layers[0]["digest"]], 3)
        merge([sample.dir], other.dir)
        with open_layout(other.dir) as layout:
            assert read_notes(layout) == {
                "extra": Note(1),
                "main": Note(10, 20, main),
                "dev": Note(None, None, dev),
            }
            assert read_layer_uses(layout) == {sample.layers[0]["digest"]: 7}

    def test_of_one_tag_in_several_caches_the_later_use_counts(
        self, sample: Sample, target: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "two").mkdir()
        twin = make_sample(tmp_path / "two")
        main = sample.main["digest"]
        for cache, note in ((sample.dir, Note(10, 40)), (twin.dir, Note(30, 20))):
            with open_layout(cache) as layout:
                put_notes(layout, {"main": note})
        for _ in range(2):
            merge([sample.dir, twin.dir], target)
            with open_layout(target) as layout:
                assert read_notes(layout)["main"] == Note(30, 40, main)
