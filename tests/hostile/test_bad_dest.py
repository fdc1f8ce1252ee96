"""A dest that cannot take an export, and a cache that is somebody else's: real disks and users.

Laws: what would stop an export at its end is told before anything is built; what goes wrong on the
way leaves no upload and no tag; root in a user's cache leaves what that user can go on with.
"""

import os
import random
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kitcache
from kitcache.errors import KitcacheError
from kitcache.options.caches import CacheExport, CacheImport
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile import exporting, privilege
from tests.hostile.build import Sample, make_sample
from tests.hostile.exporting import Blob, make_blobs
from tests.hostile.privilege import NOBODY, make_read_only, small_disk
from tests.hostile.test_bad_disk import fill, use_up_names
from tests.property import witness
from tests.property.disk import ingests
from tests.unit.buildkit.cachekit import open_caches

BLOBS = make_blobs(random.Random(1))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", size="1m", nr_inodes="200") as disk:
        yield disk


def refusal(dest: Path) -> KitcacheError:
    with (
        pytest.raises(KitcacheError) as caught,
        open_caches([CacheExport("local", dest=str(dest))], (), lock_timeout_s=0),
    ):
        pass
    assert str(dest) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("is_there", [True, False])
def test_a_read_only_disk_is_told_before_the_build(disk: Path, is_there: bool) -> None:
    if is_there:
        make_sample(disk)
    make_read_only(disk)
    before = take_snapshot(disk)
    error = refusal(disk / "cache")
    assert "Read-only file system" in error.problem
    assert "mount it writable" in error.hints[0]
    assert differences(before, take_snapshot(disk)) == []


@pytest.mark.parametrize("use_up", [fill, use_up_names])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_full_disk_is_told_before_the_build(
    disk: Path, use_up: Callable[[Path], None], is_there: bool
) -> None:
    if is_there:
        make_sample(disk)
    use_up(disk)
    error = refusal(disk / "cache")
    assert "No space left on device" in error.problem
    assert "free a little space" in error.hints[0]
    if is_there:
        assert witness.holes(disk / "cache") == ()


def test_a_disk_that_fills_up_leaves_no_upload_and_the_old_tag(disk: Path) -> None:
    root = disk / "cache"
    exporting.export(str(root), "t", BLOBS)
    huge = Blob(exporting.LAYER, os.urandom(2 << 20))
    with open_caches([CacheExport("local", dest=str(root), tag="t")], ()) as caches:
        with pytest.raises(KitcacheError, match="cannot write a blob: No space left"):
            exporting.send(caches, [huge])
        assert caches.failure is not None
        assert ingests(root) == frozenset()
    assert witness.holes(root) == ()
    (tag,) = kitcache.ls(root).tags
    assert str(tag.digest) == BLOBS[-1].digest


def test_no_space_for_the_index_leaves_the_old_one(disk: Path) -> None:
    root = disk / "cache"
    exporting.export(str(root), "t", BLOBS)
    with open_caches([CacheExport("local", dest=str(root), tag="more")], ()) as caches:
        exporting.send(caches, BLOBS)
        fill(disk)
        (result,) = caches.publish()
    assert (result.outcome, result.exit_code) == ("failed", 1)
    assert "cannot write index.json: No space left" in result.problem
    assert [tag.ref_name for tag in kitcache.ls(root).tags] == ["t"]


def as_user(uid: int, act: Callable[[], None]) -> None:
    """Run it in a child that is that user; what it asserts counts."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            act()
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, it is the test's failure
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def box() -> Iterator[Path]:
    privilege.needs_root()
    with privilege.reachable_box() as box:
        yield box


def test_root_in_a_users_cache_locks_nobody_out(box: Path) -> None:
    sample = make_sample(box)
    (sample.dir / "ingest").rmdir()
    privilege.give(sample.dir, NOBODY)
    exporting.export(str(sample.dir), "roots", BLOBS)
    owners = {(path, path.stat().st_uid) for path in sample.dir.rglob("*")}
    assert {uid for _, uid in owners} == {NOBODY}, owners

    def go_on() -> None:
        (result,) = exporting.export(str(sample.dir), "users", make_blobs(random.Random(2)))
        assert result.outcome == "published"
        assert result.reset is not None
        assert result.reset.outcome == "done"
        assert not result.reset.not_deleted

    as_user(NOBODY, go_on)
    assert {tag.ref_name for tag in kitcache.ls(sample.dir).tags} == {
        "main",
        "dev",
        "roots",
        "users",
    }


def test_a_user_cannot_export_into_roots_cache_and_is_told_why(box: Path) -> None:
    sample = make_sample(box)
    before = take_snapshot(sample.dir)

    def export() -> None:
        error = refusal(sample.dir)
        assert "Permission denied" in error.problem

    as_user(NOBODY, export)
    assert differences(before, take_snapshot(sample.dir)) == []


@pytest.mark.parametrize("lock_mode", [None, 0o600, 0o644])
def test_a_user_imports_from_roots_cache_without_writing(box: Path, lock_mode: int | None) -> None:
    """Under the lock if its file can be read, else with a warning."""
    sample: Sample = make_sample(box)
    if lock_mode is not None:
        (sample.dir / "kitcache.lock").touch()
        (sample.dir / "kitcache.lock").chmod(lock_mode)
    before = take_snapshot(sample.dir)

    def run_import() -> None:
        wanted = CacheImport("local", src=str(sample.dir), tag="main")
        warnings: list[str] = []
        with open_caches((), [wanted], warn=warnings.append) as caches:
            assert caches.import_entries[0][1]["digest"] == sample.main["digest"]
            is_warned = any("concurrent reset" in text for text in warnings)
            assert is_warned == (lock_mode != 0o644)

    as_user(NOBODY, run_import)
    assert differences(before, take_snapshot(sample.dir)) == []


def test_a_blob_whose_time_is_not_ours_to_set_is_reused(box: Path) -> None:
    """A cache that a group shares: blobs are 0444 and another's."""
    root = box / "cache"
    exporting.export(str(root), "t", BLOBS)
    for path in (root, *root.rglob("*")):
        os.chown(path, 0, NOBODY)
        if path.is_dir() or path.parent == root:
            path.chmod(path.stat().st_mode | 0o070 if path.is_dir() else 0o664)

    def export() -> None:
        (result,) = exporting.export(str(root), "mine", BLOBS)
        assert result.outcome == "published", result
        assert result.written.blobs == 0

    as_user(NOBODY, export)
