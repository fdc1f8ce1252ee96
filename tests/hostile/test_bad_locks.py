"""Lock files and .kitcache that are links, pipes, directories: nothing is made outside DIR.

A lock file that is a dangling link would, opened with O_CREAT, make a file wherever it points.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.caches.snapshot import take_snapshot
from tests.caches.steps import Stage
from tests.hostile.build import Sample
from tests.hostile.command import run, unchanged

EDITING = [
    ["untag", "cache", "main"],
    ["tag", "cache", "main", "new"],
    ["prune", "cache", "--keep-tag", "main"],
]
KINDS: dict[str, list[list[Any]]] = {
    "a dangling link out": [["symlink", "{}", "../made-by-accident"]],
    "a dangling link far out": [["symlink", "{}", "{outside}/made-by-accident"]],
    "a link to a file": [["write", "../victim", "x"], ["symlink", "{}", "../victim"]],
    "a link to index.json": [["symlink", "{}", "index.json"]],
    "a link to itself": [["symlink", "{}", "{}"]],
    "a directory": [["mkdir", "{}"]],
    "a pipe": [["fifo", "{}"]],
    "a socket": [["socket", "{}"]],
}


def put(sample: Sample, name: str, kind: str, outside: Path) -> None:
    steps = [
        [str(word).replace("{}", name).replace("{outside}", str(outside)) for word in step]
        for step in KINDS[kind]
    ]
    with Stage(sample.dir) as stage:
        stage.do(steps)


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outside")


@pytest.mark.parametrize("kind", KINDS)
def test_our_lock_file_is_never_followed(sample: Sample, kind: str, outside: Path) -> None:
    put(sample, "kitcache.lock", kind, outside)
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, "reset", "cache")
    in_json = run(sample.box.top, "reset", "cache", "--json")
    assert unchanged(before, take_snapshot(sample.box.top)) == []
    assert os.listdir(outside) == []
    assert (answer.code, in_json.code) == (13, 13)
    assert "kitcache.lock is " in answer.err
    assert "  nothing was deleted\n" in answer.err
    assert "  hint: " in answer.err
    assert in_json.value["error"] == "Unsafe"


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_takes_no_lock(sample: Sample, kind: str, outside: Path) -> None:
    put(sample, "kitcache.lock", kind, outside)
    before = take_snapshot(sample.box.top)
    answers = [
        run(sample.box.top, "reset", "--dry-run", "cache"),
        run(sample.box.top, "du", "cache"),
        run(sample.box.top, "ls", "cache"),
    ]
    assert take_snapshot(sample.box.top) == before
    assert [answer.code for answer in answers] == [0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lock", ["kitcache.lock", "index.json.lock"])
@pytest.mark.parametrize("command", EDITING)
def test_who_edits_the_index_follows_no_lock_file(
    sample: Sample, kind: str, lock: str, command: list[str], outside: Path
) -> None:
    put(sample, lock, kind, outside)
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, *command)
    assert unchanged(before, take_snapshot(sample.box.top)) == []
    assert os.listdir(outside) == []
    assert answer.code == 13
    assert f"{lock} is " in answer.err
    assert "  hint: " in answer.err


@pytest.mark.parametrize("kind", KINDS)
def test_reset_has_no_use_for_the_index_lock(sample: Sample, kind: str, outside: Path) -> None:
    """It reads without BuildKit's lock, so a bad one is no hindrance, and stays what it is."""
    put(sample, "index.json.lock", kind, outside)
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, "reset", "cache")
    assert answer.code in {0, 13}
    gone = {line.rpartition("/")[2] for line in unchanged(before, take_snapshot(sample.box.top))}
    assert gone == (sample.garbage if answer.code == 0 else set())
    assert os.listdir(outside) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", [["reset", "cache"], *EDITING])
def test_our_notes_are_never_followed(
    sample: Sample, kind: str, command: list[str], outside: Path
) -> None:
    put(sample, ".kitcache", kind, outside)
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, *command)
    assert answer.code in {0, 13}
    after = take_snapshot(sample.box.top)
    assert after["cache/.kitcache"] == before["cache/.kitcache"]
    assert os.listdir(outside) == []
    assert after.get("victim") == before.get("victim")
    assert "made-by-accident" not in after


def test_a_linked_kitcache_directory_is_not_written_through(sample: Sample, outside: Path) -> None:
    (outside / "keep").write_text("x")
    (sample.dir / ".kitcache").symlink_to(outside)
    for command in (
        ["reset", "cache"],
        ["du", "cache"],
        ["tag", "cache", "main", "new"],
        ["untag", "cache", "main"],
        ["prune", "cache", "--unused-for", "0s", "--allow-empty"],
    ):
        assert run(sample.box.top, *command).code in {0, 13}
    assert os.listdir(outside) == ["keep"]


def test_a_lock_that_is_held_is_busy_and_names_the_holder(sample: Sample) -> None:
    with Stage(sample.dir) as stage:
        stage.do([["flock", "kitcache.lock", "sh"]])
        pid = stage.holders[0].pid
        before = take_snapshot(sample.box.top)
        answer = run(sample.box.top, "reset", "--lock-timeout", "0", "cache")
        in_json = run(sample.box.top, "reset", "--lock-timeout", "0", "--json", "cache")
        after = take_snapshot(sample.box.top)
    assert unchanged(before, after) == []
    assert (answer.code, in_json.code) == (11, 11)
    assert f"process {pid}" in answer.err
    assert "  hint: " in answer.err
    assert in_json.value["facts"]["holder_pid"] == pid


@pytest.mark.parametrize("lock", ["kitcache.lock", "index.json.lock"])
def test_untag_waits_for_both_locks_and_then_says_whose_they_are(sample: Sample, lock: str) -> None:
    with Stage(sample.dir) as stage:
        stage.do([["flock", lock, "ex"]])
        before = take_snapshot(sample.box.top)
        answer = run(sample.box.top, "untag", "--lock-timeout", "0.2s", "cache", "main")
        after = take_snapshot(sample.box.top)
    assert unchanged(before, after) == []
    assert answer.code == 11
    assert lock in answer.err
    assert f"process {stage.holders[0].pid}" in answer.err


def test_a_lock_file_with_content_keeps_it(sample: Sample) -> None:
    """Somebody else's note; a lock is only ever locked."""
    (sample.dir / "kitcache.lock").write_text("mine\n")
    (sample.dir / "index.json.lock").write_text("mine too\n")
    assert run(sample.box.top, "reset", "cache").code == 0
    assert run(sample.box.top, "untag", "cache", "main").code == 0
    assert (sample.dir / "kitcache.lock").read_text() == "mine\n"
    assert (sample.dir / "index.json.lock").read_text() == "mine too\n"
