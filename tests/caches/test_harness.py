"""The judge itself: each of its complaints is provoked once, by a collector that misbehaves.

Without this, 79 green caches could mean that nobody looked.
"""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.caches.harness import (
    Expectation,
    Run,
    judge,
    judge_dry,
    read_expectations,
    resolve,
    unpack,
)
from tests.caches.snapshot import Tree, take_snapshot
from tests.caches.steps import ImpossibleError, Stage

WANTED = read_expectations()["bk-grow3"]
REFUSED = read_expectations()["torn-manifest-missing"]
FINE = Run(0, "bk-grow3: removed\n", "")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    unpack(WANTED.name, tmp_path)
    return tmp_path


def collect(wanted: Expectation, box: Path) -> tuple[Tree, Tree]:
    """What a collector does that does right: (before, after)."""
    before = take_snapshot(box)
    for word in wanted.remove:
        (box / resolve(word, before)).unlink()
    (box / "cache" / "kitcache.lock").touch()
    return before, take_snapshot(box)


def test_a_good_collector_passes(box: Path) -> None:
    before, after = collect(WANTED, box)
    assert judge(WANTED, before, after, FINE) == []


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (Run(None, "", ""), "did not end"),
        (Run(1, "", "no"), "exit code 1"),
        (Run(0, "", "Traceback (most recent call last):"), "a traceback"),
    ],
)
def test_bad_output_is_seen(box: Path, run: Run, complaint: str) -> None:
    before, after = collect(WANTED, box)
    (found,) = judge(WANTED, before, after, run)
    assert complaint in found


def test_texts_that_must_and_must_not_be_said(box: Path) -> None:
    before, after = collect(WANTED, box)
    wanted = WANTED._replace(prints=["absent"], never_prints=["removed"])
    assert len(judge(wanted, before, after, FINE)) == 2


def test_what_stays_and_should_go_is_seen(box: Path) -> None:
    before, _ = collect(WANTED._replace(remove=[]), box)
    assert len(judge(WANTED, before, before, FINE)) == len(WANTED.remove)


@pytest.mark.parametrize("word", [WANTED.keep[0], "index.json", "oci-layout", "ingest"])
def test_what_goes_and_should_stay_is_seen(box: Path, word: str) -> None:
    before, after = collect(WANTED, box)
    doomed = resolve(word, before)
    after = {name: entry for name, entry in after.items() if name != doomed}
    assert judge(WANTED, before, after, FINE) == [f"removed, and was to stay: {doomed}"]


@pytest.mark.parametrize("name", ["cache/index.json", "cache/oci-layout", "bystander"])
def test_a_changed_file_is_seen(box: Path, name: str) -> None:
    before, _ = collect(WANTED, box)
    with (box / name).open("a") as file:
        file.write(" ")
    (found,) = judge(WANTED, before, take_snapshot(box), FINE)
    assert found.startswith(f"changed: {name}:")


@pytest.mark.parametrize("name", ["cache/notes", "cache/blobs/tmp", "beside", "cache/index.json.x"])
def test_a_new_file_is_seen(box: Path, name: str) -> None:
    before, _ = collect(WANTED, box)
    (box / name).touch()
    assert judge(WANTED, before, take_snapshot(box), FINE) == [f"new: {name}"]


def test_a_removal_in_spite_of_a_refusal_is_seen(tmp_path: Path) -> None:
    unpack(REFUSED.name, tmp_path)
    before = take_snapshot(tmp_path)
    (tmp_path / resolve(REFUSED.keep[0], before)).unlink()
    refusing = Run(12, "", "tag 'dev' cannot be read")
    assert len(judge(REFUSED, before, take_snapshot(tmp_path), refusing)) == 1
    assert "it did not refuse" in judge(REFUSED, before, before, refusing._replace(code=0))


def test_may_refuse_is_all_or_nothing(box: Path) -> None:
    wanted = WANTED._replace(refuse="may", exit=[0, "fail"])
    before, after = collect(WANTED, box)
    failing = Run(12, "", "damaged")
    assert judge(wanted, before, before, failing) == []
    assert judge(wanted, before, after, FINE) == []
    assert len(judge(wanted, before, after, failing)) == len(WANTED.remove)
    assert len(judge(wanted, before, before, FINE)) == len(WANTED.remove)


@pytest.mark.parametrize(
    ("stdout", "complaint"),
    [
        ("removed all\n", "not JSON"),
        ("[]\n", "not one object"),
        ("{}\n{}\n", "not one object"),
        ('{"schema":"other","exit_code":0}\n', "an unknown schema"),
        ('{"schema":"kitcache.error/1","exit_code":9}\n', "says exit code 9"),
        ('{"schema":"kitcache.reset/1","exit_code":0,"deleted":{}}\n', "foretells"),
    ],
)
def test_a_dry_run_that_lies_is_seen(box: Path, stdout: str, complaint: str) -> None:
    before = take_snapshot(box)
    (found,) = judge_dry(WANTED, before, before, Run(0, stdout, ""))
    assert complaint in found


def test_a_dry_run_that_acts_is_seen(box: Path) -> None:
    before, after = collect(WANTED, box)
    found = judge_dry(WANTED, before, after, Run(0, '{"schema":"kitcache.error/1"}', ""))
    assert "new: cache/kitcache.lock" in found
    assert sum(line.startswith("gone:") for line in found) == len(WANTED.remove)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "cache").mkdir()
    with Stage(tmp_path / "cache") as stage:
        yield stage


def test_the_steps_leave_what_they_say(stage: Stage, tmp_path: Path) -> None:
    stage.do(
        [
            ["mkdir", "../pool"],
            ["write", "a/file", "text"],
            ["write", "a/other", "text"],
            ["symlink", "a/link", "../file"],
            ["hardlink", "a/file", "a/same"],
            ["rename", "a/other", "../pool/moved"],
            ["fifo", "a/pipe"],
            ["socket", "a/socket"],
            ["chmod", "a/file", "400"],
            ["grow", "a/file", 1 << 40],
            ["pad", "../pool/moved", 7],
            ["age", "a", 3600],
            ["mkdir", "b/c"],
            ["remove", "b"],
        ]
    )
    tree = take_snapshot(tmp_path)
    kinds = {name: entry.kind for name, entry in tree.items()}
    assert kinds == {
        ".": "directory",
        "cache": "directory",
        "pool": "directory",
        "pool/moved": "file",
        "cache/a": "directory",
        "cache/a/file": "file",
        "cache/a/link": "symlink",
        "cache/a/same": "file",
        "cache/a/pipe": "fifo",
        "cache/a/socket": "socket",
    }
    assert (tree["cache/a/file"].mode, tree["cache/a/file"].size) == (0o400, 1 << 40)
    assert (tmp_path / "pool" / "moved").read_text() == "text   "
    assert (tmp_path / "cache/a/same").stat().st_nlink == 2
    hour_old = tree["pool/moved"].mtime_ns - 3590 * 10**9
    assert all(tree[f"cache/a/{name}"].mtime_ns < hour_old for name in ("file", "link", "pipe"))


def test_a_held_lock_ends_when_its_time_is_over(stage: Stage) -> None:
    stage.do([["flock", "lock", "ex", 0], ["flock", "other", "sh"]])
    assert lock(stage.at("other"), "-s")
    assert not lock(stage.at("other"), "-x", "-n")
    assert not lock(stage.at("lock"), "-s", "-n")
    stage.start()
    assert lock(stage.at("lock"), "-x")
    assert not lock(stage.at("other"), "-x", "-n")


def lock(path: Path, *how: str) -> bool:
    """Whether flock(1) got the lock; without -n it waits, ten seconds at most."""
    command = ["flock", *how, "-w", "10", str(path), "true"]
    return subprocess.run(command, check=False).returncode == 0


def test_a_later_step_runs_after_the_start(stage: Stage) -> None:
    stage.do([["later", 0, "write", "made", "x"]])
    assert not stage.at("made").exists()
    stage.start()
    stage.timers[0].join()
    assert stage.at("made").read_text() == "x"


def test_a_later_step_that_fails_is_kept(stage: Stage) -> None:
    stage.do([["later", 0, "remove", "absent"]])
    stage.start()
    stage.timers[0].join()
    assert len(stage.trouble) == 1


def test_an_immutable_file_is_removable_afterwards(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        stage.do([["write", "fixed", "x"]])
        try:
            stage.do([["immutable", "fixed"]])
        except ImpossibleError as reason:
            pytest.skip(str(reason))
        with pytest.raises(PermissionError):
            (tmp_path / "fixed").unlink()
    (tmp_path / "fixed").unlink()


def test_an_unknown_step_is_an_error(stage: Stage) -> None:
    with pytest.raises(ValueError, match="unknown step"):
        stage.do([["explode", "x"]])


def test_an_expectation_about_nothing_is_an_error(box: Path) -> None:
    tree = take_snapshot(box)
    for word in ("0123456789abcdef", "ingest/absent", "sha512/0123456789abcdef"):
        with pytest.raises(ValueError, match=r"stands for 0 names|is not in the cache"):
            resolve(word, tree)


def test_blobs_come_out_read_only(box: Path) -> None:
    blob = next((box / "cache" / "blobs" / "sha256").iterdir())
    assert stat.S_IMODE(os.stat(blob).st_mode) == 0o444
