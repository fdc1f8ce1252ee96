"""Exporters among themselves, and exporters that are killed: no tag ever lacks a blob."""

import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import kitcache
from tests.hostile import crash, exporting, privilege
from tests.property import witness
from tests.property.disk import ingests, settle

PROGRAM = str(Path(exporting.__file__))
ROUNDS = int(os.environ.get("KITCACHE_ROUNDS", "20"))
EXPORTERS = 8
TOP = str(Path(__file__).parents[2])


def command(root: Path, tag: str, seed: int, rounds: int, *more: str) -> list[str]:
    return [sys.executable, PROGRAM, str(root), tag, str(seed), str(rounds), *more]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": TOP, "PYTHONDONTWRITEBYTECODE": "1"}


def finish(child: "subprocess.Popen[str]") -> list[str]:
    out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (0, ""), err
    return out.splitlines()


def holes_while_others_work(root: Path) -> tuple[witness.Hole, ...]:
    """What a tag lacks that index.json names before the look and after it."""
    index = root / "index.json"
    if not index.exists():
        return ()
    before = index.read_bytes()
    found = witness.holes(root)
    return found if index.read_bytes() == before else ()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_eight_processes_into_one_directory(root: Path) -> None:
    """Each with a tag of its own, but for two; each sweeps after each export, if it can."""
    tags = [f"t{n}" for n in range(EXPORTERS - 2)] + ["both", "both"]
    rounds = max(3, ROUNDS // 4)
    children = [
        subprocess.Popen(
            command(root, tag, seed, rounds),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, tag in enumerate(tags)
    ]
    while any(child.poll() is None for child in children):
        assert holes_while_others_work(root) == ()
    lines = [line.split() for child in children for line in finish(child)]
    assert {line[0] for line in lines} == {"published"}
    assert {line[1] for line in lines} <= {"done", "skipped"}
    assert "done" in {line[1] for line in lines}, "the last one out sweeps"
    assert witness.holes(root) == ()
    assert {tag.ref_name for tag in kitcache.ls(root).tags} == set(tags)
    assert ingests(root) == frozenset()
    report = kitcache.reset(root)
    assert report.missing_blobs == ()
    assert witness.holes(root) == ()


def test_eight_threads_into_one_directory(root: Path) -> None:
    def work(seed: int) -> list[str]:
        rng = random.Random(seed)
        results = []
        for _ in range(max(3, ROUNDS // 4)):
            results += exporting.export(str(root), f"t{seed}", exporting.make_blobs(rng))
        return [result.outcome for result in results]

    with ThreadPoolExecutor(EXPORTERS) as pool:
        outcomes = [outcome for each in pool.map(work, range(EXPORTERS)) for outcome in each]
    assert set(outcomes) == {"published"}
    assert witness.holes(root) == ()
    assert len(kitcache.ls(root).tags) == EXPORTERS
    assert ingests(root) == frozenset()


SYSCALLS = ("rename", "renameat", "renameat2", "fsync", "rmdir")


@pytest.fixture(scope="module")
def _tool() -> None:
    missing = crash.missing_tool()
    if missing:
        privilege.cannot(missing)


@pytest.mark.usefixtures("_tool")
def test_an_export_killed_at_any_rename_or_fsync_leaves_every_tag_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old tag stays or the new one is there; the next export and its reset finish the work."""
    monkeypatch.setenv("PYTHONPATH", TOP)
    seed, log = 7, tmp_path / "log"
    new = exporting.make_blobs(random.Random(seed), 6)[-1].digest

    def fresh(name: str) -> tuple[Path, str]:
        root = tmp_path / name
        old = exporting.make_blobs(random.Random(1), 6)
        exporting.export(str(root), "t", old)
        return root, old[-1].digest

    root, _ = fresh("recorded")
    calls = crash.record(command(root, "t", seed, 1, "--pinned"), SYSCALLS, log)
    renamed = [call.name for call in calls if call.syscall.startswith("rename")]
    assert new[7:] in renamed, "blobs get their names"
    assert renamed.index(new[7:]) < renamed.index("index.json"), "before the tag does"
    synced = [call.syscall for call in calls]
    assert synced.count("fsync") >= 8

    seen = set()
    for n, call in enumerate(calls):
        root, old = fresh(f"killed-{n}")
        assert crash.kill_before(command(root, "t", seed, 1, "--pinned"), call, log), call
        assert witness.holes(root) == (), call
        (tag,) = kitcache.ls(root).tags
        assert str(tag.digest) in (old, new), call
        assert tag.missing == 0, call
        seen.add(str(tag.digest) == new)
        (result,) = exporting.export(str(root), "t", exporting.make_blobs(random.Random(seed)))
        assert (result.outcome, result.digest) == ("published", new), call
        for path in [*(root / "ingest").rglob("*")]:
            os.utime(path, (time.time() - 7200, time.time() - 7200))
        settle(root)
        kitcache.reset(root)
        assert ingests(root) == frozenset(), call
        assert len(os.listdir(root / "blobs" / "sha256")) == 8, call
    assert seen == {True, False}
