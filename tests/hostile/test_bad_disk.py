"""A disk that is read-only, or full: real ones, small tmpfs mounts.

Laws: a full disk is when a reset is needed most; whatever cannot be written leaves the old
state whole; whatever cannot be printed is an error too.
"""

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kitcache.store.scan import next_tick_ns
from tests.caches.snapshot import take_snapshot
from tests.hostile.build import Sample, make_sample
from tests.hostile.command import Answer, assert_civil, assert_message, run, unchanged
from tests.hostile.exec_kit import wait_until
from tests.hostile.privilege import make_read_only, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", size="1m", nr_inodes="200") as disk:
        yield disk


@pytest.fixture
def on_disk(disk: Path) -> Sample:
    return make_sample(disk)


def fill(disk: Path) -> None:
    """Not one more block."""
    with (disk / "filler").open("wb", buffering=0) as file:
        until_full(lambda: file.write(b"x" * 4096))


def use_up_names(disk: Path) -> None:
    """Not one more inode."""
    numbers = itertools.count()

    def touch() -> None:
        (disk / f"name-{next(numbers)}").touch()

    until_full(touch)


def until_full(act: Callable[[], object]) -> None:
    for _ in range(10_000):
        try:
            act()
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017
            return
    raise AssertionError("this disk is not small")


def blobs(sample: Sample) -> set[str]:
    return set(os.listdir(sample.dir / "blobs" / "sha256"))


def test_a_read_only_disk_loses_nothing(on_disk: Sample) -> None:
    make_read_only(on_disk.box.top)
    before = take_snapshot(on_disk.box.top)
    answer = run(on_disk.box.top, "reset", "cache")
    in_json = run(on_disk.box.top, "reset", "cache", "--json")
    assert take_snapshot(on_disk.box.top) == before
    assert (answer.code, in_json.code) == (1, 1)
    assert_message(answer.err, "cache", ("kitcache.lock", "ead-only file system"))
    assert in_json.value["hints"]


def test_a_read_only_disk_with_a_lock_file_deletes_nothing_and_says_so(on_disk: Sample) -> None:
    """The lock can be had there; no blob can be removed."""
    (on_disk.dir / "kitcache.lock").touch()
    # The lock cannot be dated there, so the machine's clock is rounded down: new blobs are kept.
    blobs = list((on_disk.dir / "blobs" / "sha256").iterdir())
    newest_ns = max(path.stat().st_ctime_ns for path in blobs)
    wait_until(lambda: next_tick_ns(-1) > newest_ns)
    make_read_only(on_disk.box.top)
    before = take_snapshot(on_disk.box.top)
    answer = run(on_disk.box.top, "reset", "cache")
    in_json = run(on_disk.box.top, "reset", "cache", "--json")
    assert take_snapshot(on_disk.box.top) == before
    assert (answer.code, answer.out, in_json.code) == (1, "", 1)
    assert_message(answer.err, "cache", ("ead-only file system", "  nothing was deleted\n"))
    assert in_json.value["schema"] == "kitcache.error/1"


@pytest.mark.parametrize("command", [["reset", "--dry-run"], ["du"], ["ls"], ["why"]])
def test_looking_needs_no_writable_disk(on_disk: Sample, command: list[str]) -> None:
    make_read_only(on_disk.box.top)
    blob = [on_disk.layers[0]["digest"]] if command == ["why"] else []
    answer = run(on_disk.box.top, *command, "cache", *blob)
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.parametrize("has_locks", [True, False])
def test_untag_on_a_read_only_disk_changes_nothing(on_disk: Sample, has_locks: bool) -> None:
    if has_locks:
        (on_disk.dir / "kitcache.lock").touch()
        (on_disk.dir / "index.json.lock").touch()
    make_read_only(on_disk.box.top)
    before = take_snapshot(on_disk.box.top)
    answer = run(on_disk.box.top, "untag", "cache", "main")
    assert take_snapshot(on_disk.box.top) == before
    assert answer.code == 1
    assert "ead-only file system" in answer.err
    assert "  nothing was changed\n" in answer.err
    assert "  hint: " in answer.err


def test_a_reset_frees_a_full_disk(on_disk: Sample) -> None:
    fill(on_disk.box.top)
    answer = run(on_disk.box.top, "reset", "cache")
    assert answer.code == 0, answer.err
    assert blobs(on_disk) == on_disk.live


def test_a_reset_without_an_inode_for_its_lock_says_so(on_disk: Sample) -> None:
    use_up_names(on_disk.box.top)
    before = take_snapshot(on_disk.box.top)
    answer = run(on_disk.box.top, "reset", "cache")
    assert take_snapshot(on_disk.box.top) == before
    assert answer.code == 1
    assert_message(answer.err, "cache", ("kitcache.lock", "No space left"))


def test_a_reset_with_its_lock_file_needs_no_inode(on_disk: Sample) -> None:
    (on_disk.dir / "kitcache.lock").touch()
    use_up_names(on_disk.box.top)
    assert run(on_disk.box.top, "reset", "cache").code == 0
    assert blobs(on_disk) == on_disk.live


@pytest.mark.parametrize("use_up", [fill, use_up_names])
def test_untag_on_a_full_disk_leaves_the_old_index(
    on_disk: Sample, use_up: Callable[[Path], None]
) -> None:
    (on_disk.dir / "kitcache.lock").touch()
    (on_disk.dir / "index.json.lock").touch()
    (on_disk.dir / ".kitcache").mkdir()
    use_up(on_disk.box.top)
    before = take_snapshot(on_disk.box.top)
    answer = run(on_disk.box.top, "untag", "cache", "main")
    # No half-written file is left beside it either.
    assert take_snapshot(on_disk.box.top) == before
    assert answer.code == 1
    assert "No space left" in answer.err
    assert "index.json" in answer.err
    assert "  nothing was changed\n" in answer.err
    assert "  hint: " in answer.err


@pytest.mark.parametrize("part", ["blobs", "blobs/sha512", "ingest"])
def test_a_disk_mounted_within_the_cache_is_part_of_it(sample: Sample, part: str) -> None:
    """A volume for the blobs alone is somebody's choice, not an attack."""
    kept = {path: path.read_bytes() for path in (sample.dir / "blobs/sha256").iterdir()}
    with small_disk(sample.dir / part, size="1m") as disk:
        if part == "blobs":
            (disk / "sha256").mkdir()
            for path, data in kept.items():
                path.write_bytes(data)
        before = take_snapshot(sample.box.top)
        answer = run(sample.box.top, "reset", "cache")
        changes = unchanged(before, take_snapshot(sample.box.top))
    assert answer.code in {0, 11}
    gone = {line.rpartition("/")[2] for line in changes}
    assert gone == (sample.garbage if answer.code == 0 else set())


OUTPUTS = [["reset", "cache"], ["reset", "cache", "--json"], ["du", "cache"], ["ls", "cache"],
           ["untag", "cache", "main", "--dry-run"], ["--version"], ["--help"]]  # fmt: skip


def run_into(sample: Sample, command: list[str], stdout: int) -> Answer:
    done = subprocess.run(
        [sys.executable, "-m", "kitcache", *command],
        check=False,
        cwd=sample.box.top,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=20,
    )
    answer = Answer(done.returncode, "", done.stderr.decode())
    assert_civil(answer)
    assert "Exception ignored" not in answer.err
    return answer


@pytest.mark.parametrize("command", OUTPUTS)
def test_an_answer_that_cannot_be_written_is_an_error(sample: Sample, command: list[str]) -> None:
    """stdout is a full disk: a script must not take silence for success."""
    with open("/dev/full", "w") as full:
        answer = run_into(sample, command, full.fileno())
    assert answer.code == 1
    assert answer.err.startswith("kitcache: ")
    assert "No space left" in answer.err


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_reader_that_went_away_is_no_traceback(sample: Sample, command: list[str]) -> None:
    """`kitcache ls | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run_into(sample, command, writer)
    finally:
        os.close(writer)


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_closed_stdout_is_no_traceback(sample: Sample, command: list[str]) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "kitcache", *command],
        check=False,
        cwd=sample.box.top,
        stderr=subprocess.PIPE,
        timeout=20,
    )
    assert_civil(Answer(done.returncode, "", done.stderr.decode()))
