"""store/locks.py: who may hold what beside whom, whom a waiter names, and the inode compared."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kitcache.errors import Busy, Cancelled, KitcacheError, Unsafe
from kitcache.store import locks
from kitcache.store.layout import Layout, open_file
from kitcache.store.locks import INDEX_LOCK, KITCACHE_LOCK, lock_index, lock_store
from kitcache.store.open import open_store
from kitcache.store.values import LockKind, Waiting, WaitPolicy
from tests.hostile.build import Sample


def no_waiting(seconds: float) -> None:
    raise AssertionError("there is nothing to wait for")


def patience(timeout_s: float = 0.0, told: list[Waiting] | None = None) -> WaitPolicy:
    events = [] if told is None else told
    return WaitPolicy(timeout_s, no_waiting, events.append)


@contextmanager
def flocked(path: Path) -> Iterator[int]:
    """Somebody else's exclusive flock on that file, as BuildKit takes it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def other(sample: Sample) -> Iterator[Layout]:
    """The same directory, opened by somebody else."""
    with open_store(sample.dir) as opened:
        yield opened


def test_a_lock_is_had_for_as_long_as_the_block_runs(sample: Sample, layout: Layout) -> None:
    path = sample.dir / KITCACHE_LOCK
    with lock_store(layout, "exclusive", patience()) as held:
        assert (held.store, held.kind) == (layout, "exclusive")
        assert is_held(path)
    assert not is_held(path)
    with pytest.raises(KeyError), lock_store(layout, "shared", patience()):
        raise KeyError
    assert not is_held(path)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("shared", "shared", True),
        ("shared", "exclusive", False),
        ("exclusive", "shared", False),
        ("exclusive", "exclusive", False),
    ],
)
def test_who_may_hold_it_beside_whom(
    layout: Layout, other: Layout, first: LockKind, second: LockKind, together: bool
) -> None:
    with lock_store(layout, first, patience()):
        if together:
            with lock_store(other, second, patience()) as held:
                assert held.kind == second
        else:
            with (
                pytest.raises(Busy, match=r"kitcache.lock is held by process"),
                lock_store(other, second, patience()),
            ):
                pass


def test_the_two_locks_are_not_one(layout: Layout, other: Layout) -> None:
    with lock_store(layout, "exclusive", patience()), lock_index(other, patience()):
        pass


def test_the_index_lock_is_exclusive(sample: Sample, layout: Layout) -> None:
    with (
        flocked(sample.dir / INDEX_LOCK),
        pytest.raises(Busy, match=r"index.json.lock is held by"),
        lock_index(layout, patience()),
    ):
        pass
    with lock_index(layout, patience()):
        assert is_held(sample.dir / INDEX_LOCK)


def test_a_lock_file_is_never_unlinked(sample: Sample, layout: Layout) -> None:
    for _ in range(2):
        with lock_store(layout, "exclusive", patience()), lock_index(layout, patience()):
            pass
        assert (sample.dir / KITCACHE_LOCK).exists()
        assert (sample.dir / INDEX_LOCK).exists()


def test_a_waiter_tells_once_whom_it_waits_for_and_gets_its_turn(
    sample: Sample, layout: Layout
) -> None:
    told: list[Waiting] = []
    pauses: list[float] = []
    with flocked(sample.dir / KITCACHE_LOCK) as fd:

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 8:
                fcntl.flock(fd, fcntl.LOCK_UN)

        with lock_store(layout, "exclusive", WaitPolicy(60.0, pause, told.append)):
            assert is_held(sample.dir / KITCACHE_LOCK)
    assert pauses == sorted(pauses)
    assert len(pauses) == 8
    assert max(pauses) == 0.1
    (event,) = told
    assert (event.path, event.waiting_for) == (layout.path, KITCACHE_LOCK)
    assert event.holder.pid == os.getpid()
    assert 0 < event.seconds <= 60


def test_a_waiter_can_be_stopped(sample: Sample, layout: Layout) -> None:
    def stop(seconds: float) -> None:
        raise Cancelled(layout.path)

    with (
        flocked(sample.dir / KITCACHE_LOCK),
        pytest.raises(Cancelled),
        lock_store(layout, "shared", WaitPolicy(60.0, stop, print)),
    ):
        pass


def test_the_time_that_was_waited_is_rounded(sample: Sample, layout: Layout) -> None:
    with (
        flocked(sample.dir / KITCACHE_LOCK),
        pytest.raises(Busy, match=r"; waited 0\.01 s\n"),
        lock_store(layout, "exclusive", WaitPolicy(0.0099996, time.sleep, lambda _: None)),
    ):
        pass


def test_a_timeout_of_nothing_does_not_wait(sample: Sample, layout: Layout) -> None:
    told: list[Waiting] = []
    with (
        flocked(sample.dir / KITCACHE_LOCK),
        pytest.raises(Busy, match="is held by process") as caught,
        lock_store(layout, "exclusive", patience(0.0, told)),
    ):
        pass
    assert told == []
    assert caught.value.effect == "nothing was changed"
    assert "wait longer" in str(caught.value)
    assert "waited" not in str(caught.value)


def test_a_lock_on_a_file_that_has_lost_its_name_does_not_count(
    sample: Sample, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BuildKit unlinks its lock file after use, here right between our open and our flock."""
    path = sample.dir / INDEX_LOCK
    path.touch()
    orphan = path.stat().st_ino
    opened = []

    def open_and_lose(layout: Layout, name: str) -> int | None:
        fd = open_file(layout, name)
        opened.append(fd)
        if len(opened) == 1:
            path.rename(sample.box.top / "orphan")
            path.touch()
        return fd

    monkeypatch.setattr(locks, "open_file", open_and_lose)
    with lock_index(layout, WaitPolicy(60.0, lambda _: None, lambda _: None)):
        assert path.stat().st_ino != orphan
        assert is_held(path), "the lock is on the file that has the name now"
        assert not is_held(sample.box.top / "orphan")
    assert len(opened) == 2


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o664, 0o666])
@pytest.mark.parametrize("name", [KITCACHE_LOCK, INDEX_LOCK])
def test_a_new_lock_file_has_the_mode_of_the_index(
    sample: Sample, layout: Layout, name: str, mode: int
) -> None:
    (sample.dir / "index.json").chmod(mode)
    umask = os.umask(0o077)
    try:
        with lock_store(layout, "shared", patience()), lock_index(layout, patience()):
            pass
    finally:
        os.umask(umask)
    assert stat.S_IMODE((sample.dir / name).stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
@pytest.mark.parametrize("model", ["index.json", "."])
def test_a_new_lock_file_belongs_to_the_users_of_the_cache(
    sample: Sample, layout: Layout, model: str
) -> None:
    os.chown(sample.dir / model, 1234, 2345)
    if model == ".":
        (sample.dir / "index.json").unlink()
        sample.dir.chmod(0o750)
    with lock_store(layout, "exclusive", patience()), lock_index(layout, patience()):
        pass
    for name in (KITCACHE_LOCK, INDEX_LOCK):
        found = (sample.dir / name).stat()
        assert (found.st_uid, found.st_gid) == (1234, 2345)
        assert stat.S_IMODE(found.st_mode) == (0o640 if model == "." else 0o644)


def test_an_existing_lock_file_is_left_as_it_is(sample: Sample, layout: Layout) -> None:
    path = sample.dir / KITCACHE_LOCK
    path.write_text("whatever")
    path.chmod(0o444)
    before = path.stat()
    with lock_store(layout, "exclusive", patience()):
        pass
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns, path.read_text()) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime_ns,
        "whatever",
    )


@pytest.mark.parametrize("target", ["nowhere", "../bystander"])
def test_a_link_for_a_lock_file_is_refused(sample: Sample, layout: Layout, target: str) -> None:
    (sample.dir / KITCACHE_LOCK).symlink_to(target)
    with (
        pytest.raises(Unsafe, match=r"kitcache.lock is a symbolic link"),
        lock_store(layout, "exclusive", patience()),
    ):
        pass
    assert not (sample.dir / "nowhere").exists()


def test_a_directory_that_is_gone_has_no_lock(sample: Sample, layout: Layout) -> None:
    sample.dir.rename(sample.box.top / "moved")
    for path in (sample.box.top / "moved").rglob("*"):
        if path.is_file():
            path.unlink()
    with lock_store(layout, "exclusive", patience()):
        assert (sample.box.top / "moved" / KITCACHE_LOCK).exists()
    (sample.box.top / "moved" / KITCACHE_LOCK).unlink()
    for path in sorted((sample.box.top / "moved").rglob("*"), reverse=True):
        path.rmdir()
    (sample.box.top / "moved").rmdir()
    with (
        pytest.raises(KitcacheError, match=r"cannot create the lock file kitcache\.lock: No such"),
        lock_store(layout, "exclusive", patience()),
    ):
        pass


def test_a_file_system_without_locks_is_said(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(
            KitcacheError, match=r"cannot lock kitcache.lock: No locks available"
        ) as caught,
        lock_store(layout, "exclusive", WaitPolicy(0, lambda seconds: None, lambda event: None)),
    ):
        pass
    assert "mount the file system with locks" in str(caught.value)
