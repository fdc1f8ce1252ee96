"""store/stages.py: what an exec that was killed left is deleted by the next reset."""

import fcntl
import os
from pathlib import Path

from kitcache.gc.reset import reset
from tests.hostile.build import Sample


def stage(sample: Sample, name: str) -> Path:
    """A staging directory that holds a link of a live blob and half of an upload."""
    path = sample.dir / ".kitcache" / name
    (path / "blobs" / "sha256").mkdir(parents=True)
    blob = min(sample.live)
    (path / "blobs" / "sha256" / blob).hardlink_to(sample.dir / "blobs" / "sha256" / blob)
    (path / "half").write_bytes(b"x" * 1000)
    (path / "kitcache.lock").touch()
    return path


def test_a_reset_deletes_what_no_process_holds(sample: Sample) -> None:
    dead, unlocked = stage(sample, "stage-dead"), stage(sample, "stage-young")
    (unlocked / "kitcache.lock").unlink()
    alive = stage(sample, "stage-alive")
    other = stage(sample, "other")
    with (alive / "kitcache.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reset(sample.dir)
    assert sorted(os.listdir(sample.dir / ".kitcache")) == [other.name, alive.name]
    assert not dead.exists()
    assert {path.name for path in (sample.dir / "blobs" / "sha256").iterdir()} == sample.live
    assert (alive / "half").exists()


def test_a_link_in_its_place_is_left_alone(sample: Sample, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").mkdir()
    (victim / "file").touch()
    (sample.dir / ".kitcache").mkdir()
    (sample.dir / ".kitcache" / "stage-x").symlink_to(victim)
    reset(sample.dir)
    assert sorted(os.listdir(victim)) == ["file"]
    assert (sample.dir / ".kitcache" / "stage-x").is_symlink()


def test_a_dry_run_leaves_it(sample: Sample) -> None:
    dead = stage(sample, "stage-dead")
    reset(sample.dir, dry_run=True)
    assert dead.exists()
