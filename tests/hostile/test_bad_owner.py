"""Files of another owner, and modes that shut a user out. Root is no test of these.

Law: what may not be read stops the reset, what may not be removed does not stop the rest,
and one run by root never locks the user of the cache out.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.caches.snapshot import take_snapshot
from tests.hostile.build import Sample, make_sample
from tests.hostile.command import Answer, assert_message, run, unchanged
from tests.hostile.privilege import NOBODY, give, needs_root, reachable_box, run_as


@pytest.fixture
def theirs() -> Iterator[Sample]:
    """The sample, all of it nobody's."""
    needs_root()
    with reachable_box() as box:
        sample = make_sample(box)
        give(sample.dir, NOBODY)
        yield sample


@pytest.fixture
def roots() -> Iterator[Sample]:
    """The sample, all of it root's."""
    needs_root()
    with reachable_box() as box:
        yield make_sample(box)


def as_nobody(sample: Sample, *args: str) -> Answer:
    return run_as(NOBODY, sample.box.top, *args)


def blobs(sample: Sample) -> set[str]:
    return set(os.listdir(sample.dir / "blobs" / "sha256"))


def test_the_owner_needs_no_root(theirs: Sample) -> None:
    """The way to be another user works, or all that follows would prove nothing."""
    answer = as_nobody(theirs, "reset", "cache", "--json")
    assert answer.code == 0, answer.err
    assert answer.value["deleted"]["blobs"] == len(theirs.garbage)
    assert (theirs.dir / "kitcache.lock").stat().st_uid == NOBODY


def test_a_run_by_root_does_not_lock_the_owner_out(theirs: Sample) -> None:
    """A root cron job comes first; then the user resets and untags as before."""
    assert run(theirs.box.top, "reset", "cache").code == 0
    lock = (theirs.dir / "kitcache.lock").stat()
    assert (lock.st_uid, lock.st_gid) == (NOBODY, NOBODY)
    theirs.box.blob(b"new garbage")
    assert as_nobody(theirs, "reset", "cache").code == 0
    assert blobs(theirs) == theirs.live


def test_an_untag_by_root_leaves_the_owners_index(theirs: Sample) -> None:
    (theirs.dir / "index.json").chmod(0o640)
    assert run(theirs.box.top, "untag", "cache", "main").code == 0
    index = (theirs.dir / "index.json").stat()
    assert (index.st_uid, index.st_gid, index.st_mode & 0o777) == (NOBODY, NOBODY, 0o640)
    answer = as_nobody(theirs, "untag", "cache", "dev")
    assert answer.code == 0, answer.err


def test_a_prune_by_root_leaves_the_owners_files(theirs: Sample) -> None:
    (theirs.dir / "index.json").chmod(0o640)
    assert run(theirs.box.top, "prune", "--keep-tag", "dev", "cache").code == 0
    for name in ("index.json", "index.json.lock", ".kitcache", "kitcache.lock"):
        assert (theirs.dir / name).stat().st_uid == NOBODY, name
    assert (theirs.dir / "index.json").stat().st_mode & 0o777 == 0o640
    answer = as_nobody(theirs, "prune", "--unused-for", "0s", "--allow-empty", "cache")
    assert (answer.code, blobs(theirs)) == (0, set()), answer.err


@pytest.mark.parametrize(
    "command",
    [["reset", "cache"], ["untag", "cache", "main"], ["prune", "--keep-tag", "dev", "cache"]],
)
def test_a_lock_file_left_by_root_says_what_to_do(theirs: Sample, command: list[str]) -> None:
    """0600 and root's: made by an older tool, or by a hand."""
    lock = theirs.dir / "kitcache.lock"
    lock.touch(mode=0o600)
    before = take_snapshot(theirs.box.top)
    answer = as_nobody(theirs, *command)
    assert unchanged(before, take_snapshot(theirs.box.top)) == []
    assert answer.code == 1
    assert "kitcache.lock" in answer.err
    assert "ermission denied" in answer.err
    assert "  hint: " in answer.err


def test_an_index_lock_left_by_root_stops_untag_and_no_reset(theirs: Sample) -> None:
    """BuildKit makes it 0600, and a killed one leaves it."""
    (theirs.dir / "index.json.lock").touch(mode=0o600)
    before = take_snapshot(theirs.box.top)
    answer = as_nobody(theirs, "untag", "cache", "main")
    assert unchanged(before, take_snapshot(theirs.box.top)) == []
    assert answer.code == 1
    assert "index.json.lock" in answer.err
    assert "  hint: " in answer.err
    assert as_nobody(theirs, "reset", "cache").code == 0
    assert blobs(theirs) == theirs.live


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_cache_of_somebody_else_can_be_looked_at_only(roots: Sample, dry: list[str]) -> None:
    before = take_snapshot(roots.box.top)
    answer = as_nobody(roots, "reset", "cache", *dry)
    assert take_snapshot(roots.box.top) == before
    if dry:
        assert answer.code == 0, answer.err
    else:
        assert answer.code == 1
        assert_message(answer.err, "cache", ("kitcache.lock", "ermission denied"))
    for command in ("du", "ls"):
        assert as_nobody(roots, command, "cache").code == 0
    assert take_snapshot(roots.box.top) == before


def test_a_directory_that_gives_nothing_up_is_done_in_part(theirs: Sample) -> None:
    """The lock is had, and blobs/sha256 is somebody else's."""
    os.chown(theirs.dir / "blobs" / "sha256", 0, 0)
    before = take_snapshot(theirs.box.top)
    text = as_nobody(theirs, "reset", "cache")
    in_json = as_nobody(theirs, "reset", "cache", "--json")
    assert unchanged(before, take_snapshot(theirs.box.top)) == []
    assert (text.code, in_json.code) == (3, 3)
    assert "ermission denied" in text.out + text.err
    value = in_json.value
    assert (value["not_deleted_count"], value["deleted"]["blobs"]) == (len(theirs.garbage), 0)
    assert {name for name, _ in value["not_deleted"]} == {
        f"blobs/sha256/{n}" for n in theirs.garbage
    }


def test_files_of_another_owner_in_a_sticky_directory_stay(theirs: Sample) -> None:
    """As in /tmp: one's own go, the others' stay and are told of."""
    foreign = min(theirs.garbage)
    folder = theirs.dir / "blobs" / "sha256"
    os.chown(folder / foreign, 0, 0)
    os.chown(folder, 0, 0)
    folder.chmod(0o1777)
    answer = as_nobody(theirs, "reset", "cache", "--json")
    assert answer.code == 3
    assert [name for name, _ in answer.value["not_deleted"]] == [f"blobs/sha256/{foreign}"]
    assert blobs(theirs) == theirs.live | {foreign}
    assert answer.value["deleted"]["blobs"] == len(theirs.garbage) - 1


def test_files_of_another_owner_in_ones_own_directory_go(theirs: Sample) -> None:
    """Whoever owns the directory may remove a name from it, whosever the file is."""
    for name in theirs.garbage:
        os.chown(theirs.dir / "blobs" / "sha256" / name, 0, 0)
        (theirs.dir / "blobs" / "sha256" / name).chmod(0o000)
    assert as_nobody(theirs, "reset", "cache").code == 0
    assert blobs(theirs) == theirs.live


def test_a_manifest_that_may_not_be_read_stops_everything(theirs: Sample) -> None:
    path = theirs.box.path_of(theirs.main["digest"])
    os.chown(path, 0, 0)
    path.chmod(0o400)
    before = take_snapshot(theirs.box.top)
    answer = as_nobody(theirs, "reset", "cache")
    in_json = as_nobody(theirs, "reset", "cache", "--json")
    assert unchanged(before, take_snapshot(theirs.box.top)) == []
    assert answer.code == 12
    assert_message(answer.err, "cache", ("ermission denied",), "main", (theirs.main["digest"],))
    assert in_json.value["facts"]["kind"] == "unreadable"


def test_layers_that_may_not_be_read_are_no_hindrance(theirs: Sample) -> None:
    """A collector never opens them."""
    for layer in theirs.layers:
        theirs.box.path_of(layer["digest"]).chmod(0o000)
    assert as_nobody(theirs, "reset", "cache").code == 0
    assert blobs(theirs) == theirs.live


SHUT: dict[str, tuple[str, int]] = {
    "index.json": ("index.json", 0o000),
    "oci-layout": ("oci-layout", 0o000),
    "the cache": (".", 0o000),
    "the cache, to list": (".", 0o311),
    "blobs": ("blobs", 0o000),
    "blobs/sha256": ("blobs/sha256", 0o000),
    "blobs/sha256, to list": ("blobs/sha256", 0o311),
    "blobs/sha256, to search": ("blobs/sha256", 0o644),
    "ingest": ("ingest", 0o000),
}


@pytest.mark.parametrize("command", [["reset"], ["reset", "--dry-run"], ["du"], ["ls"]])
@pytest.mark.parametrize("name", SHUT)
def test_what_may_not_be_opened_is_named(theirs: Sample, name: str, command: list[str]) -> None:
    """A reset that cannot see removes nothing; the others fail with as clear a word."""
    path, mode = SHUT[name]
    before = take_snapshot(theirs.box.top)
    (theirs.dir / path).chmod(mode)
    answer = as_nobody(theirs, *command, "cache")
    (theirs.dir / path).chmod(before[os.path.normpath(f"cache/{path}")].mode)
    assert unchanged(before, take_snapshot(theirs.box.top)) == []
    if command == ["ls"] and answer.code == 0:
        return  # It may never have had to look there.
    assert answer.code in {1, 3, 10, 12}, answer.err
    text = answer.out + answer.err
    assert "ermission denied" in text, text
    # The directory, or the first blob in it that was wanted.
    assert {".": "cache", "blobs/sha256": "sha256"}.get(path, path) in text


def test_an_upload_of_somebody_else_stays_and_is_told_of(theirs: Sample) -> None:
    name = theirs.box.ingest("root's own")
    os.utime(theirs.dir / "index.json")
    give(theirs.dir / "ingest" / name, 0)
    answer = as_nobody(theirs, "reset", "cache", "--json")
    assert answer.code == 3
    assert [left[0] for left in answer.value["not_deleted"]] == [f"ingest/{name}"]
    assert blobs(theirs) == theirs.live
    assert set(os.listdir(theirs.dir / "ingest" / name)) == {"ref", "total", "data"}


def test_an_upload_that_may_not_be_seen_is_no_traceback(theirs: Sample) -> None:
    name = theirs.box.ingest("root's secret")
    os.utime(theirs.dir / "index.json")
    give(theirs.dir / "ingest" / name, 0)
    (theirs.dir / "ingest" / name).chmod(0o700)
    for command in (["du"], ["reset", "--dry-run"], ["reset"]):
        answer = as_nobody(theirs, *command, "cache")
        assert answer.code in {0, 1, 3, 11}
    assert (theirs.dir / "ingest" / name / "data").exists()


def test_a_directory_above_that_is_shut(theirs: Sample, tmp_path: Path) -> None:
    inner = make_sample(tmp_path)
    give(inner.dir, NOBODY)
    tmp_path.chmod(0o700)
    answer = as_nobody(theirs, "reset", str(inner.dir))
    assert answer.code in {1, 10}
    assert "ermission denied" in answer.err
    assert blobs(inner) == inner.live | inner.garbage
