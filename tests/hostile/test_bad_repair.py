"""A repair where it cannot be done: disks that are full or read-only, caches of somebody else.

Laws: where the quarantine cannot be made nothing is moved; moving aside needs no space; a tag that
was whole is whole, whatever fails; and what is only unreadable is not taken for broken.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kitcache.upkeep.health.repair import repair
from tests.caches.snapshot import take_snapshot
from tests.hostile.build import Box
from tests.hostile.command import Answer, run, unchanged
from tests.hostile.importable import Cached, add_cache, chain_of_steps, grow, layer
from tests.hostile.privilege import (
    NOBODY,
    give,
    make_read_only,
    needs_root,
    reachable_box,
    run_as,
    small_disk,
)
from tests.hostile.test_bad_disk import fill, use_up_names
from tests.hostile.test_bad_words import WORDS
from tests.property.disk import settle
from tests.property.importer import see_tags


def break_one(box: Box) -> Cached:
    """A whole tag, one with a bad layer, and a bad blob that nobody reaches."""
    grow(box, "whole", 2)
    cached = add_cache(box, "cut", [layer(box, "0"), layer(box, "cut")])
    box.damage(cached.layers[1]["digest"], b"bad")
    box.damage(box.blob(b"nobody's")["digest"], b"bad too")
    settle(box.dir)
    return cached


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", size="1m", nr_inodes="200") as disk:
        yield disk


def touch_locks(box: Box) -> None:
    for name in ("kitcache.lock", "index.json.lock"):
        (box.dir / name).touch()


def assert_refused(box: Box, answer: Answer, *says: str) -> None:
    assert answer.code == 1
    for words in (*says, "  nothing was changed\n", "  hint: "):
        assert words in answer.err


def test_a_read_only_disk_is_looked_at_and_left(disk: Path) -> None:
    box = Box(disk)
    break_one(box)
    touch_locks(box)
    make_read_only(disk)
    before = take_snapshot(disk)
    assert_refused(box, run(disk, "verify", "--repair", "cache"), "ead-only file system")
    foreseen = run(disk, "verify", "--repair", "--dry-run", "cache")
    assert take_snapshot(disk) == before
    assert (foreseen.code, "would be rewritten" in foreseen.out) == (12, True)


def test_a_copy_on_a_read_only_disk_will_do(disk: Path, tmp_path: Path) -> None:
    """No lock can be made there."""
    there, here = Box(disk), Box(tmp_path)
    for box in (there, here):
        cached = grow(box, "main", 3)
    make_read_only(disk)
    here.damage(cached.layers[1]["digest"], None)
    answer = run(tmp_path, "verify", "--repair", "--from", there.dir, "cache")
    assert answer.code == 0, answer.err
    assert see_tags(here.dir) == see_tags(there.dir)


def test_without_an_inode_for_the_quarantine_nothing_is_moved(disk: Path) -> None:
    box = Box(disk)
    break_one(box)
    touch_locks(box)
    use_up_names(disk)
    before = take_snapshot(disk)
    assert_refused(box, run(disk, "verify", "--repair", "cache"), "No space left", ".kitcache")
    # The lock file is dated, to learn the time by the clock of the file system.
    lock = "cache/kitcache.lock"
    after = {**take_snapshot(disk)}
    after[lock] = after[lock]._replace(mtime_ns=before[lock].mtime_ns)
    assert after == before


def test_a_full_disk_does_not_keep_bad_blobs_in_place(disk: Path) -> None:
    """Nothing has to be written: they only get another name."""
    box = Box(disk)
    grow(box, "whole", 2)
    box.damage(box.blob(b"nobody's")["digest"], b"bad")
    settle(box.dir)
    touch_locks(box)
    (box.dir / ".kitcache" / "quarantine").mkdir(parents=True)
    fill(disk)
    answer = run(disk, "verify", "--repair", "cache")
    assert answer.code == 0, answer.err
    (kept,) = (box.dir / ".kitcache" / "quarantine").iterdir()
    assert kept.read_bytes() == b"bad"


@pytest.mark.parametrize("use_up", [fill, use_up_names])
def test_a_full_disk_leaves_every_whole_tag_and_the_next_repair_goes_on(
    disk: Path, use_up: Callable[[Path], None]
) -> None:
    box = Box(disk)
    break_one(box)
    touch_locks(box)
    (box.dir / ".kitcache" / "quarantine").mkdir(parents=True)
    index = (box.dir / "index.json").read_bytes()
    use_up(disk)
    answer = run(disk, "verify", "--repair", "cache")
    assert answer.code == 1
    assert "No space left" in answer.err
    assert "  every tag that was importable still is; the next repair continues\n" in answer.err
    assert (box.dir / "index.json").read_bytes() == index
    assert see_tags(box.dir)["whole"].is_whole
    for path in [*disk.glob("filler"), *disk.glob("name-*")]:
        path.unlink()
    assert repair(box.dir).exit_code == 0
    assert all(seen.is_whole for seen in see_tags(box.dir).values())


def test_a_volume_for_the_blobs_alone_is_no_place_to_move_from(tmp_path: Path) -> None:
    """A rename goes within one file system: said, and nothing is lost."""
    box = Box(tmp_path)
    break_one(box)
    kept = {path: path.read_bytes() for path in (box.dir / "blobs/sha256").iterdir()}
    with small_disk(box.dir / "blobs", size="1m") as disk:
        (disk / "sha256").mkdir()
        for path, data in kept.items():
            path.write_bytes(data)
        answer = run(tmp_path, "verify", "--repair", "cache")
        assert {path: path.read_bytes() for path in kept} == kept
        assert see_tags(box.dir)["whole"].is_whole
    assert answer.code == 1
    assert "cross-device" in answer.err


@pytest.fixture
def theirs() -> Iterator[Box]:
    """A broken cache, all of it nobody's."""
    needs_root()
    with reachable_box() as top:
        box = Box(top)
        break_one(box)
        give(box.dir, NOBODY)
        yield box


def test_the_owner_repairs_and_the_new_is_theirs(theirs: Box) -> None:
    answer = run_as(NOBODY, theirs.top, "verify", "--repair", "cache")
    assert answer.code == 0, answer.err
    assert {path.stat().st_uid for path in theirs.dir.rglob("*")} == {NOBODY}


def test_a_repair_by_root_does_not_lock_the_owner_out(theirs: Box) -> None:
    assert run(theirs.top, "verify", "--repair", "cache").code == 0
    assert {path.stat().st_uid for path in theirs.dir.rglob("*")} == {NOBODY}
    theirs.damage(theirs.blob(b"more")["digest"], b"bad again")
    give(theirs.dir / "blobs", NOBODY)
    answer = run_as(NOBODY, theirs.top, "verify", "--repair", "cache")
    assert answer.code == 0, answer.err
    assert len(list((theirs.dir / ".kitcache/quarantine").iterdir())) == 3


def test_somebody_elses_cache_is_left_alone(theirs: Box) -> None:
    for path in [theirs.dir, *theirs.dir.rglob("*")]:
        os.chown(path, 0, 0)
    before = take_snapshot(theirs.top)
    answer = run_as(NOBODY, theirs.top, "verify", "--repair", "cache")
    assert unchanged(before, take_snapshot(theirs.top)) == []
    assert_refused(theirs, answer, "ermission denied")
    assert run_as(NOBODY, theirs.top, "verify", "--repair", "--dry-run", "cache").code == 12
    assert take_snapshot(theirs.top) == before


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_what_may_not_be_read_is_not_taken_for_broken(theirs: Box, dry: list[str]) -> None:
    """A blob of root's, 0400: its bytes may be right, and only root can tell."""
    blob = grow(theirs, "private", 3).layers[2]
    path = theirs.path_of(blob["digest"])
    give(theirs.dir, NOBODY)
    os.chown(path, 0, 0)
    path.chmod(0o400)
    before = take_snapshot(theirs.top)
    answer = run_as(NOBODY, theirs.top, "verify", "--repair", *dry, "cache")
    assert unchanged(before, take_snapshot(theirs.top)) == []
    assert_refused(theirs, answer, "cannot read blob", "ermission denied")
    assert see_tags(theirs.dir)["private"].is_whole


@pytest.mark.parametrize("torn", [False, True])
def test_a_tag_never_comes_out_raw(tmp_path: Path, torn: bool) -> None:
    """`run` looks at each character: of a tag that is cut, of one that goes, of one found again."""
    box, name = Box(tmp_path), "".join(WORDS.values())
    layers = [layer(box, "0"), layer(box, "cut")]
    add_cache(box, name, layers, chain_of_steps(layers))
    gone = add_cache(box, f"x{name}", layers[:1], chain_of_steps(layers[:1]))
    box.damage(layers[1]["digest"], None)
    box.damage(gone.root["digest"], None)
    if torn:
        box.write_index((box.dir / "index.json").read_bytes() + b"}")
    for words in (["--dry-run"], ["--dry-run", "--json"], []):
        answer = run(tmp_path, "verify", "--repair", *words, "cache")
        assert answer.code == (12 if words else 0), answer
        assert "recovered-" not in answer.out
    assert list(see_tags(box.dir)) == [name]
