"""naming/merge.py: sources are held shared and the target alone; who holds them is waited for."""

import fcntl
from pathlib import Path
from typing import Any

import pytest

from kitcache.errors import Busy, KitcacheError
from kitcache.gc.values import Progress
from kitcache.store.directory import DirectoryStore
from kitcache.store.values import Waiting
from kitcache.upkeep.naming.merge import merge
from tests.hostile.build import Box, Sample
from tests.unit.upkeep.naming.mergekit import items


def test_sources_are_held_shared_and_the_target_alone(
    sample: Sample, other: Box, target: Path
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
    sample: Sample, other: Box, held: str
) -> None:
    cache = sample.dir if held == "source" else other.dir
    kind = fcntl.LOCK_EX if held == "source" else fcntl.LOCK_SH
    with (cache / "kitcache.lock").open("w") as file:
        fcntl.flock(file, kind)
        before = items(other.dir)
        with pytest.raises(Busy, match=r"kitcache.lock is held by process") as caught:
            merge([sample.dir], other.dir, lock_timeout_s=0)
        assert (caught.value.path, caught.value.effect) == (
            str(cache),
            "nothing was changed",
        )
        assert items(other.dir) == before


def test_locks_are_taken_by_inode(
    sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[str, str]] = []
    real = DirectoryStore.lock

    def hold(layout: Any, kind: Any, patience: Any) -> Any:
        taken.append((layout.path, kind))
        return real(layout, kind, patience)

    monkeypatch.setattr(DirectoryStore, "lock", hold)
    merge([sample.dir], other.dir)
    merge([other.dir], sample.dir)
    first, second = sorted((sample.dir, other.dir), key=lambda path: path.stat().st_ino)
    assert [path for path, _ in taken] == [str(first), str(second)] * 2
    kinds = {(str(sample.dir), "shared"), (str(other.dir), "exclusive")}
    assert set(taken[:2]) == kinds
    assert not set(taken[2:]) & kinds


def test_a_source_that_cannot_be_locked_is_merged_and_told(
    sample: Sample, target: Path, tmp_path: Path
) -> None:
    (sample.dir / "kitcache.lock").symlink_to(tmp_path / "nowhere")
    merged = merge([sample.dir], target)
    assert merged.outcome == "done"
    assert merged.warnings == (
        f"{sample.dir}: the cache is not protected from a concurrent reset:"
        " kitcache.lock is a symbolic link",
    )
    assert not (tmp_path / "nowhere").exists()


def test_a_target_that_cannot_be_locked_is_an_error(
    sample: Sample, other: Box, tmp_path: Path
) -> None:
    (other.dir / "kitcache.lock").symlink_to(tmp_path / "nowhere")
    with pytest.raises(KitcacheError, match=r"kitcache.lock is a symbolic link"):
        merge([sample.dir], other.dir)
