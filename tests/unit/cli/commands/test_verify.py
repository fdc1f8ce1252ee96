"""kitcache verify: what it prints where, and how its options go together."""

import fcntl
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import Box, digest_of
from tests.hostile.command import run
from tests.hostile.importable import Cached, grow


@pytest.fixture
def cached(box: Box) -> Cached:
    return grow(box)


def test_a_clean_cache(box: Box, cached: Cached) -> None:
    answer = run(box.top, "verify", "cache")
    assert (answer.code, answer.err) == (0, "")
    first, *table = answer.out.splitlines()
    assert first.startswith("cache: 5 blobs, ")
    assert table == ["TAG   KIND   STEPS  STATUS", "main  cache      3  importable"]


def test_faults_go_to_stderr_with_what_to_do(box: Box, cached: Cached) -> None:
    box.damage(cached.layers[2]["digest"], None)
    answer = run(box.top, "verify", "cache")
    assert answer.code == 12
    assert "main  cache      3  partly importable" in answer.out
    assert answer.err.splitlines() == [
        "kitcache: cache: tag 'main' is partly importable: 1 of 3 steps cannot be loaded",
        f"kitcache: cache:   step {digest_of(b'step main 2')} of 2026-06-03:"
        f" layer {cached.layers[2]['digest'][:19]} is missing",
        "kitcache: cache: hint: kitcache verify cache --repair",
    ]


def test_quiet_leaves_the_faults(box: Box, cached: Cached) -> None:
    quiet = run(box.top, "verify", "--quiet", "cache")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    box.damage(cached.layers[2]["digest"], None)
    quiet = run(box.top, "verify", "--quiet", "cache")
    assert (quiet.code, quiet.out) == (12, "")
    assert "partly importable" in quiet.err


def test_json(box: Box, cached: Cached) -> None:
    box.damage(cached.layers[2]["digest"], None)
    answer = run(box.top, "verify", "--json", "cache")
    assert (answer.code, answer.err) == (12, "")
    (tag,) = answer.value["tags"]
    assert (answer.value["schema"], tag["importable"]) == ("kitcache.verify/1", "partial")
    assert tag["unusable_steps"][0]["layers"] == [cached.layers[2]["digest"]]


def test_each_dir_has_its_turn(box: Box, cached: Cached, tmp_path: Path) -> None:
    answer = run(box.top, "verify", "--json", "nowhere", "cache")
    assert answer.code == 10
    assert [value["exit_code"] for value in answer.values] == [10, 0]


@pytest.mark.parametrize("words", [["--dry-run"], ["--from", "other"]])
def test_what_goes_with_a_repair_alone(box: Box, cached: Cached, words: list[str]) -> None:
    answer = run(box.top, "verify", *words, "cache")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.splitlines() == [
        f"kitcache: {words[0]} needs --repair",
        "  hint: kitcache verify --help",
    ]
    assert run(box.top, "verify", *words, "--json", "cache").value["error"] == "UsageError"


def test_lock_timeout(box: Box, cached: Cached) -> None:
    with (box.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        answer = run(box.top, "verify", "--lock-timeout", "0", "cache")
    assert answer.code == 11
    assert "kitcache.lock is held by" in answer.err


def damage(box: Box, cached: Cached) -> None:
    top = cached.layers[2]
    box.damage(top["digest"], b"x" * top["size"])


def test_a_repair_says_what_it_would_do_and_then_does_it(box: Box, cached: Cached) -> None:
    damage(box, cached)
    before = take_snapshot(box.top)
    dry = run(box.top, "verify", "--repair", "--dry-run", "cache")
    assert differences(before, take_snapshot(box.top)) == []
    assert (dry.code, dry.err) == (12, "")
    *steps, last = dry.out.splitlines()
    assert last == "cache: nothing was changed"
    assert any("would be" in step and "quarantine" in step for step in steps)
    done = run(box.top, "verify", "--repair", "cache")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [step.replace("would be", "was") for step in steps]
    assert (run(box.top, "verify", "cache").code) == 0
    again = run(box.top, "verify", "--repair", "cache")
    assert again.out == "cache: nothing to repair\n"


def test_a_quiet_repair_is_not_silent_about_what_a_tag_lost(box: Box, cached: Cached) -> None:
    damage(box, cached)
    answer = run(box.top, "verify", "--repair", "--quiet", "cache")
    assert (answer.code, answer.out) == (0, "")
    assert "tag 'main' was rewritten" in answer.err
    again = run(box.top, "verify", "--repair", "--quiet", "cache")
    assert (again.code, again.out, again.err) == (0, "", "")


def test_roots_without_a_name_are_told_of(box: Box, cached: Cached) -> None:
    (box.dir / "index.json").unlink()
    answer = run(box.top, "verify", "--repair", "cache")
    assert answer.err.splitlines()[0] == "kitcache: cache: 1 tag has no known name, and is kept"
    assert "hint: kitcache prune cache --keep-tag NAME (removes all others)" in answer.err


def test_a_repair_as_json(box: Box, cached: Cached) -> None:
    damage(box, cached)
    value = run(box.top, "verify", "--repair", "--json", "cache").value
    assert (value["schema"], value["outcome"]) == ("kitcache.repair/1", "done")
    assert {step["kind"] for step in value["actions"]} == {"rewrite-cache", "quarantine-blob"}
    assert value["verification"]["schema"] == "kitcache.verify/1"
    assert value["verification"]["exit_code"] == value["exit_code"] == 0


def test_lost_blobs_come_from_other_copies(box: Box, cached: Cached) -> None:
    for name in ("empty", "copy"):
        (box.top / name).mkdir()
        other = Box(box.top / name)
        if name == "copy":
            grow(other)
        else:
            other.tag("none", other.manifest([]))
    damage(box, cached)
    words = ("--from", "empty/cache", "--from", "copy/cache")
    answer = run(box.top, "verify", "--repair", *words, "cache")
    assert answer.code == 0
    assert "copied from copy/cache" in answer.out
    assert run(box.top, "verify", "--json", "cache").value["tags"][0]["steps"] == 3


def watch(cwd: Path, *words: str, until: Callable[[str], bool]) -> str:
    """What the command draws on a terminal, up to some text; then it gets Ctrl-C."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kitcache", *words],
        cwd=cwd,
        env={**os.environ, "TERM": "xterm"},
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    seen = ""
    try:
        while not until(seen):
            seen += os.read(master, 4096).decode()
    finally:
        process.send_signal(2)
        process.wait(timeout=20)
        os.close(master)
    assert process.returncode == 130
    return seen


def test_on_a_terminal_the_rate_and_the_time_left_are_drawn(box: Box, cached: Cached) -> None:
    """One that would take minutes, and takes no space."""
    with box.path_of("sha256:" + "0" * 64).open("wb") as file:
        file.truncate(1 << 40)
    seen = watch(box.top, "verify", "cache", until=lambda text: " left" in text)
    line = seen.rpartition("\r")[2]
    assert line.startswith("cache: hashed ")
    assert " of 1.1 TB, " in line
    assert "/s, " in line


def test_the_answer_is_one_line_of_json_a_dir(box: Box, cached: Cached) -> None:
    answer = run(box.top, "verify", "--json", "cache", "cache")
    values: list[Any] = [json.loads(line) for line in answer.out.splitlines()]
    assert [value["path"] for value in values] == ["cache", "cache"]
