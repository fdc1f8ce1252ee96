"""What others bring into a cache while a reset runs stays, whatever date it bears.

`cp -a`, tar and rsync give a file the date of its original: only its change time says when it came,
by the clock of the file system, which may count whole seconds.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kitcache
from kitcache.options.sweep import SweepOptions
from kitcache.upkeep.pruning.prune import prune
from tests.hostile.build import Sample, make_sample
from tests.hostile.pair import before
from tests.hostile.privilege import cannot, needs_root

NAME = "ab" * 32
YEAR_AGO_S = time.time() - 365 * 86400
HOUR_NS = 3600 * 10**9


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source / NAME, target], check=True)


def untar(source: Path, target: Path) -> None:
    archive = subprocess.run(["tar", "-c", "-C", source, NAME], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", target], input=archive.stdout, check=True)


def link(source: Path, target: Path) -> None:
    os.link(source / NAME, target / NAME)


def move(source: Path, target: Path) -> None:
    """As rsync, which writes beside and renames."""
    shutil.copy2(source / NAME, target / f".{NAME}.x")
    os.rename(target / f".{NAME}.x", target / NAME)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A directory with a blob that was written a year ago."""
    (directory := tmp_path / "elsewhere").mkdir()
    (directory / NAME).write_bytes(b"x")
    os.utime(directory / NAME, (YEAR_AGO_S, YEAR_AGO_S))
    return directory


@pytest.mark.parametrize("bring", [copy, untar, link, move])
@pytest.mark.parametrize("policy", [SweepOptions(), SweepOptions(min_age_ns=HOUR_NS)])
def test_it_stays_and_the_next_reset_takes_it(
    sample: Sample,
    old: Path,
    monkeypatch: pytest.MonkeyPatch,
    bring: Callable[[Path, Path], None],
    policy: SweepOptions,
) -> None:
    blobs = sample.dir / "blobs" / "sha256"
    before(monkeypatch, "kitcache.gc.collect.apply", lambda: bring(old, blobs))
    report = kitcache.reset(sample.dir, options=policy)
    assert (blobs / NAME).stat().st_mtime == pytest.approx(YEAR_AGO_S)
    assert report.too_young.blobs == 1
    assert kitcache.reset(sample.dir, options=policy).deleted.blobs == 1
    assert not (blobs / NAME).exists()


def test_a_prune_spares_it_too(sample: Sample, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = sample.dir / "blobs" / "sha256"
    before(monkeypatch, "kitcache.upkeep.edit.collect", lambda: copy(old, blobs))
    prune(sample.dir, kitcache.PrunePolicy(keep_tags=("main",)))
    assert (blobs / NAME).exists()


def test_what_was_there_a_moment_before_goes(sample: Sample) -> None:
    """However little before, and whatever happened to it: a link to it that went, another mode."""
    blobs = sample.dir / "blobs" / "sha256"
    for n in range(20):
        new = blobs / f"{n:064x}"
        new.write_bytes(b"x")
        os.link(new, sample.box.top / "other name")
        os.unlink(sample.box.top / "other name")
        new.chmod(0o444)
        assert kitcache.reset(sample.dir).too_young.blobs == 0
        assert not new.exists()


@contextmanager
def whole_seconds(at: Path) -> Iterator[Path]:
    """An ext4 that dates files by whole seconds, as old ones do."""
    needs_root()
    image = at / "image"
    with image.open("wb") as file:
        file.truncate(4 * 1024 * 1024)
    (disk := at / "disk").mkdir()
    try:
        make = ["mkfs.ext4", "-q", "-I", "128", str(image)]
        subprocess.run(make, check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, disk], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        cannot(f"no image of an ext4 can be mounted here: {error}", must_in_ci=False)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("can_date", [True, False])
def test_where_files_are_dated_by_whole_seconds_too(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch, *, can_date: bool
) -> None:
    with whole_seconds(tmp_path) as disk:
        sample = make_sample(disk)
        if not can_date:  # as the lock of another user, and for root too
            (lock := sample.dir / "kitcache.lock").touch()
            subprocess.run(["chattr", "+i", lock], check=True)
        blobs = sample.dir / "blobs" / "sha256"
        assert min(path.stat().st_ctime_ns % 10**9 for path in blobs.iterdir()) == 0
        before(monkeypatch, "kitcache.gc.collect.apply", lambda: copy(old, blobs))
        report = kitcache.reset(sample.dir)
        assert (blobs / NAME).exists()
        assert report.too_young.blobs >= 1
        assert sample.live <= set(os.listdir(blobs))
