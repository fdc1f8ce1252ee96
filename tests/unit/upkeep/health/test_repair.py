"""health/repair.py: from a broken directory to a mended one, with others at work beside it."""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import kitcache
from kitcache.errors import Busy, Cancelled, KitcacheError, NotACache, UsageError
from kitcache.gc.control import Control
from kitcache.oci.digest import parse_digest
from kitcache.store.layout import open_layout
from kitcache.store.locks import LockKind, hold_store
from kitcache.store.notes import note_use, read_notes
from kitcache.upkeep.health import repair as module
from kitcache.upkeep.health.repair import repair
from kitcache.upkeep.health.verify import verify
from tests.hostile.build import INDEX, Box, encode
from tests.hostile.importable import UNCOMPRESSED, Cached, add_cache, grow, layer
from tests.property.disk import settle, snapshot
from tests.property.importer import see_tags


@contextmanager
def locked(path: Path, kind: LockKind) -> Iterator[None]:
    with (
        open_layout(path) as layout,
        hold_store(layout, kind, Control(str(path), None, None).patience(0.0)),
    ):
        yield


def kinds(repaired: Any) -> list[tuple[str, str | None]]:
    return [(step.kind, step.tag) for step in repaired.steps]


@pytest.fixture
def cut(box: Box) -> Cached:
    """A whole tag, and one whose last layer is bad."""
    grow(box, "whole", 2)
    cached = add_cache(box, "cut", [layer(box, "0"), layer(box, "cut")])
    box.damage(cached.layers[1]["digest"], b"bad")
    settle(box.dir)
    return cached


def copy_of(box: Box, name: str = "copy") -> Path:
    return Path(shutil.copytree(box.dir, box.top / name))


def test_it_mends_and_says_what_is_left(box: Box, cut: Cached) -> None:
    done = repair(box.dir)
    assert (done.path, done.outcome, done.exit_code) == (str(box.dir), "done", 0)
    assert kinds(done) == [("rewrite", "cut"), ("quarantine", None)]
    assert {v.ref_name: v.imports for v in done.verified.verdicts} == {
        "whole": "fully",
        "cut": "fully",
    }
    # Nothing is swept: the old root is there until a reset.
    assert box.path_of(cut.root["digest"]).exists()


def test_a_dry_run_needs_no_lock_and_says_what_is_there_now(box: Box, cut: Cached) -> None:
    with locked(box.dir, "exclusive"):
        before = snapshot(box.dir)
        foreseen = repair(box.dir, dry_run=True)
        assert snapshot(box.dir) == before
    assert (foreseen.outcome, foreseen.exit_code) == ("dry-run", 12)
    assert kinds(foreseen) == [("rewrite", "cut"), ("quarantine", None)]


@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_it_waits_for_builds_and_resets(box: Box, cut: Cached, kind: LockKind) -> None:
    with locked(box.dir, kind):
        before = snapshot(box.dir)
        with pytest.raises(Busy):
            repair(box.dir, lock_timeout_s=0.0)
        assert snapshot(box.dir) == before


def test_an_upload_of_a_stranger_is_left_to_end(box: Box, cut: Cached) -> None:
    box.ingest("layer-new", age_s=1)
    before = snapshot(box.dir)
    with pytest.raises(Busy, match="export is under way") as caught:
        repair(box.dir)
    assert caught.value.untouched == "nothing was changed"
    assert snapshot(box.dir) == before


def test_an_upload_stops_nobody_where_nothing_is_broken(box: Box) -> None:
    grow(box)
    box.ingest("layer-new", age_s=1)
    assert repair(box.dir).steps == ()


def test_what_is_no_cache_is_no_source(box: Box, cut: Cached, tmp_path: Path) -> None:
    with pytest.raises(NotACache):
        repair(box.dir, sources=[tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="is the cache that is to be repaired"):
        repair(box.dir, sources=[f"{box.dir}/."])


def test_a_copy_is_read_under_its_lock_and_not_changed(box: Box, cut: Cached) -> None:
    good = b"layer cut " * 30
    copy = copy_of(box)
    path = copy / "blobs" / cut.layers[1]["digest"].replace(":", "/")
    path.unlink()
    path.write_bytes(good)
    with locked(copy, "exclusive"), pytest.raises(Busy):
        repair(box.dir, sources=[copy], lock_timeout_s=0.0)
    before = snapshot(copy)
    done = repair(box.dir, sources=[copy])
    assert kinds(done) == [("take", None), ("quarantine", None)]
    assert snapshot(copy) == before
    assert see_tags(box.dir)["cut"].digest == cut.root["digest"]
    (bad,) = (box.dir / ".kitcache/quarantine").iterdir()
    assert bad.read_bytes() == b"bad"


def test_a_dry_run_makes_no_lock_in_a_copy(box: Box, cut: Cached) -> None:
    copy = copy_of(box)
    foreseen = repair(box.dir, sources=str(copy), dry_run=True)
    assert kinds(foreseen) == [("rewrite", "cut"), ("quarantine", None)]
    names = {"blobs", "index.json", "ingest", "oci-layout"}
    assert {path.name for path in (*copy.iterdir(), *box.dir.iterdir())} == names


def test_a_cancel_ends_the_wait_for_a_copy(box: Box, cut: Cached) -> None:
    copy, cancel = copy_of(box), Event()
    with locked(copy, "exclusive"), pytest.raises(Cancelled):
        repair(box.dir, sources=[copy], on_progress=lambda _: cancel.set(), cancel=cancel)


def test_a_damaged_copy_is_passed_over_for_the_next(box: Box, cut: Cached) -> None:
    """Of the first the layer has the right length and wrong bytes, which only hashing shows."""
    good = b"layer cut " * 30
    for name, data in (("lying", good[:-1] + b"?"), ("honest", good)):
        path = copy_of(box, name) / "blobs" / cut.layers[1]["digest"].replace(":", "/")
        path.unlink()
        path.write_bytes(data)
    sources = [box.top / "lying", box.top / "honest"]
    done = repair(box.dir, sources=sources)
    assert kinds(done) == [("take", None), ("quarantine", None)]
    assert str(sources[1]) in done.steps[0].what


def test_a_copy_that_is_damaged_meanwhile_is_not_believed(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it was hashed, and too large to be hashed for a link as a matter of course."""
    large = box.blob(b"x" * 2_000_000) | {"annotations": {UNCOMPRESSED: f"sha256:{'0' * 64}"}}
    add_cache(box, "main", [layer(box, "0"), large])
    copy = copy_of(box)
    box.damage(large["digest"], None)
    real = module.bring_blob

    def spoiled(*args: Any, **more: Any) -> Any:
        path = copy / "blobs" / large["digest"].replace(":", "/")
        path.chmod(0o644)
        path.write_bytes(b"y" * 2_000_000)
        return real(*args, **more)

    monkeypatch.setattr(module, "bring_blob", spoiled)
    done = repair(box.dir, sources=[copy])
    assert kinds(done) == [("rewrite", "main")]
    assert done.exit_code == 0


def test_a_root_that_only_a_note_and_a_copy_know_comes_back(box: Box) -> None:
    cached = grow(box, "main", 2)
    copy = copy_of(box)
    (copy / "index.json").write_bytes(b'{"manifests":[]}')
    box.damage(cached.root["digest"], None)
    (box.dir / "index.json").unlink()
    with open_layout(box.dir) as layout:
        note_use(layout, ["main"], "exported", 1, digests={"main": cached.root["digest"]})
    done = repair(box.dir, sources=[copy])
    assert kinds(done) == [("take", None), ("rebuild-index", None), ("rebuild-index", "main")]
    assert see_tags(box.dir)["main"].digest == cached.root["digest"]


def test_a_copy_that_is_hard_linked_shares_the_damage(box: Box, cut: Cached) -> None:
    copy = box.top / "copy"
    shutil.copytree(box.dir, copy, copy_function=os.link)
    done = repair(box.dir, sources=[copy])
    assert kinds(done) == [("rewrite", "cut"), ("quarantine", None)]
    # What is put aside here is where it was there.
    assert (copy / "blobs" / cut.layers[1]["digest"].replace(":", "/")).read_bytes() == b"bad"


def test_a_tag_whose_root_is_gone_comes_whole_from_a_copy(box: Box) -> None:
    """Root, cacheconfig and a layer: what a root reaches is known once the root is had."""
    cached = grow(box, "main", 3)
    copy = copy_of(box)
    for blob in (cached.root, cached.config, cached.layers[1]):
        box.damage(blob["digest"], None)
    done = repair(box.dir, sources=[copy])
    assert kinds(done) == [("take", None)] * 3
    assert see_tags(box.dir) == see_tags(copy)


def test_nothing_comes_from_a_copy_that_nobody_needs(box: Box) -> None:
    grow(box, "main", 2)
    copy = copy_of(box)
    shutil.rmtree(box.dir)
    os.rename(copy, box.dir)
    other = Box(box.top / "other")
    grow(other, "extra", 9)
    assert repair(box.dir, sources=[other.dir]).steps == ()


def test_a_wrong_size_in_the_index_is_corrected(box: Box) -> None:
    cached = grow(box, "main", 2)
    box.entries[0] = box.entries[0] | {"size": 1, "org.example.more": [1]}
    box.write_index(encode(box.index_document()))
    done = repair(box.dir)
    assert kinds(done) == [("move-tag", "main")]
    entry = json.loads((box.dir / "index.json").read_bytes())["manifests"][0]
    assert entry == box.entries[0] | {"size": cached.root["size"]}
    assert done.exit_code == 0


def test_an_index_of_yesterday_is_mended_by_the_notes(box: Box) -> None:
    old, yesterday = grow(box, "main", 2), encode(box.index_document())
    box.entries.clear()
    new = grow(box, "main", 3)
    with open_layout(box.dir) as layout:
        note_use(layout, ["main"], "exported", 1, digests={"main": new.root["digest"]})
    for blob in (old.root, old.config):
        box.damage(blob["digest"], None)
    box.write_index(yesterday)
    done = repair(box.dir)
    assert kinds(done) == [("move-tag", "main")]
    assert see_tags(box.dir)["main"].digest == new.root["digest"]
    assert done.exit_code == 0


def test_a_tag_that_was_rewritten_keeps_its_name_when_the_index_is_lost(
    box: Box, cut: Cached
) -> None:
    """The note follows the root; one of another root is left alone."""
    with open_layout(box.dir) as layout:
        digests = {"cut": cut.root["digest"], "whole": cut.config["digest"]}
        note_use(layout, digests, "exported", 1, digests=digests)
    repair(box.dir)
    tags = see_tags(box.dir)
    with open_layout(box.dir) as layout:
        notes = read_notes(layout)
    assert notes["cut"].digest == tags["cut"].digest != cut.root["digest"]
    assert (notes["cut"].exported_ns, notes["whole"].digest) == (1, cut.config["digest"])
    kitcache.reset(box.dir)
    (box.dir / "index.json").unlink()
    repair(box.dir)
    assert see_tags(box.dir)["cut"] == tags["cut"]


def test_a_lost_index_gets_its_names_from_the_notes(box: Box) -> None:
    named, nameless = grow(box, "main", 2), grow(box, "gone", 3)
    box.blob(b'{"manifests":[]', INDEX)
    (box.dir / "index.json").unlink()
    with open_layout(box.dir) as layout:
        digests = {"main": named.root["digest"], "never": f"sha256:{'0' * 64}"}
        note_use(layout, digests, "exported", 1, digests=digests)
    done = repair(box.dir)
    short = parse_digest(nameless.root["digest"]).hex[:12]
    assert {tag: seen.digest for tag, seen in see_tags(box.dir).items()} == {
        "main": named.root["digest"],
        f"recovered-{short}": nameless.root["digest"],
    }
    assert done.exit_code == 0


def test_an_index_that_cannot_be_read_is_kept(box: Box) -> None:
    cached = grow(box)
    torn = (box.dir / "index.json").read_bytes()[:-1]
    box.write_index(torn)
    done = repair(box.dir)
    assert kinds(done) == [("rebuild-index", None), ("rebuild-index", "main")]
    assert see_tags(box.dir)["main"].digest == cached.root["digest"]
    assert (box.dir / ".kitcache/quarantine/index.json").read_bytes() == torn


def test_an_empty_store_without_an_index_is_nothing_to_mend(box: Box) -> None:
    assert repair(box.dir).steps == ()
    assert not (box.dir / "index.json").exists()


def test_a_bad_blob_in_the_way_of_a_new_root_is_put_aside_first(box: Box, cut: Cached) -> None:
    """What a repair writes may have the name of something bad that nobody reaches."""
    rehearsed = copy_of(box, "rehearsed")
    repair(rehearsed)
    (root,) = [seen.digest for tag, seen in see_tags(rehearsed).items() if tag == "cut"]
    box.path_of(root).write_bytes(b"in the way")
    done = repair(box.dir)
    assert done.exit_code == 0
    assert see_tags(box.dir) == see_tags(rehearsed)
    kept = {path.read_bytes() for path in (box.dir / ".kitcache/quarantine").iterdir()}
    assert kept == {b"bad", b"in the way"}


def publish_first(monkeypatch: pytest.MonkeyPatch, box: Box, times: int) -> list[int]:
    """Have a stranger publish a tag right before the repair writes, so many times."""
    real, calls = module.swap_index, []

    def overtaken(*args: Any) -> Any:
        calls.append(len(calls))
        if len(calls) <= times:
            box.entries = json.loads((box.dir / "index.json").read_bytes())["manifests"]
            grow(box, f"new-{len(calls)}", 1)
        return real(*args)

    monkeypatch.setattr(module, "swap_index", overtaken)
    return calls


def test_a_tag_that_is_published_meanwhile_stays(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = publish_first(monkeypatch, box, 2)
    done = repair(box.dir)
    assert (len(calls), done.exit_code) == (3, 0)
    assert see_tags(box.dir).keys() == {"whole", "cut", "new-1", "new-2"}


def test_where_others_publish_without_end_it_gives_up(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = publish_first(monkeypatch, box, 99)
    with pytest.raises(Busy):
        repair(box.dir)
    assert len(calls) == 8
    assert see_tags(box.dir)["cut"].digest == cut.root["digest"]


def test_an_export_that_mends_a_blob_meanwhile_has_done_it(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two locks: the second look sees the right bytes."""
    real = module.verify_held

    def verified_then_mended(*args: Any) -> Any:
        found = real(*args)
        box.damage(cut.layers[1]["digest"], b"layer cut " * 30)
        return found

    monkeypatch.setattr(module, "verify_held", verified_then_mended)
    done = repair(box.dir)
    assert (done.steps, done.exit_code) == ((), 0)
    assert verify(box.dir).exit_code == 0


def test_two_at_once_do_it_once(box: Box, cut: Cached) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(repair, [box.dir, box.dir])
    assert (one.exit_code, other.exit_code) == (0, 0)
    steps = [("rewrite", "cut"), ("quarantine", None)]
    assert sorted((kinds(one), kinds(other))) == [[], steps]


def test_what_was_done_is_told_where_the_second_look_fails(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, cancel = module.swap_index, Event()

    def published(*args: Any) -> Any:
        result = real(*args)
        monkeypatch.setattr(module, "verify_held", lambda *_: Control("", None, cancel).check())
        return result

    cancel.set()
    monkeypatch.setattr(module, "swap_index", published)
    with pytest.raises(Cancelled) as caught:
        repair(box.dir)
    told = str(caught.value)
    assert "tag 'cut' was rewritten without 1 of its 2 steps" in told
    assert "all that had to be mended was" in told
    assert see_tags(box.dir)["cut"].is_whole


@pytest.mark.parametrize("moment", ["take_blob", "write_blob", "swap_index"])
def test_a_cancel_between_steps_leaves_the_rest_to_the_next(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    stray = box.blob(b"nobody's")
    box.damage(stray["digest"], b"bad too")
    cancel = Event()
    owner: Any = module.Quarantine if moment == "take_blob" else module
    real = getattr(owner, moment)

    def then_cancel(*args: Any) -> Any:
        result = real(*args)
        cancel.set()
        return result

    monkeypatch.setattr(owner, moment, then_cancel)
    with pytest.raises(Cancelled) as caught:
        repair(box.dir, cancel=cancel)
    assert caught.value.untouched == "every tag that was whole still is; the next repair goes on"
    monkeypatch.undo()
    assert see_tags(box.dir)["whole"].is_whole
    assert repair(box.dir).exit_code == 0


def test_what_fails_on_the_way_says_that_the_next_goes_on(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> Any:
        raise KitcacheError("cache", "cannot write a new blob: No space left on device")

    monkeypatch.setattr(module, "write_blob", full)
    before = see_tags(box.dir)
    with pytest.raises(KitcacheError, match="No space left") as caught:
        repair(box.dir)
    assert "the next repair goes on" in str(caught.value)
    assert see_tags(box.dir) == before
