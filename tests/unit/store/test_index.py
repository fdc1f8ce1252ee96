"""store/index.py: index.json read while others rewrite it, and written in one step."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kitcache.errors import Damaged, KitcacheError, Unsafe
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError
from kitcache.store.index import (
    INDEX,
    INDEX_TEMP,
    edit_index,
    publish_index,
    read_index,
    read_stable_index,
    stamp_index,
)
from kitcache.store.layout import Layout
from tests.hostile.build import Sample

TORN = b'{"schemaVersion":2,"manifests":[{"media'


class Pauses:
    """A pause that takes no time: it counts, and at the n-th one the file is whole again."""

    def __init__(self, sample: Sample, whole: bytes | None = None, at: int = 0) -> None:
        self.sample, self.whole, self.at = sample, whole, at
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self.whole is not None and len(self.seconds) == self.at:
            self.sample.box.write_index(self.whole)


def sha256(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def test_the_file_as_it_is_now(sample: Sample, layout: Layout) -> None:
    path = sample.dir / INDEX
    data = path.read_bytes()
    assert read_index(layout) == (data, sha256(data), path.stat().st_mtime_ns)


def test_no_file_is_no_data(sample: Sample, layout: Layout) -> None:
    (sample.dir / INDEX).unlink()
    assert read_index(layout) == (None, sha256(b""), 0)
    assert read_stable_index(layout, Pauses(sample)) == (read_index(layout), ())
    assert stamp_index(layout) is None


def test_it_has_a_cap(sample: Sample, layout: Layout) -> None:
    with (sample.dir / INDEX).open("r+b") as file:
        file.truncate(64 * 2**20 + 1)
    with pytest.raises(Unsafe, match=r"index.json is larger than any index may be"):
        read_index(layout)


@pytest.mark.parametrize("at", [1, 3, 10])
def test_a_torn_one_is_read_again(sample: Sample, layout: Layout, at: int) -> None:
    whole = (sample.dir / INDEX).read_bytes()
    sample.box.write_index(TORN)
    pauses = Pauses(sample, whole, at)
    index, entries = read_stable_index(layout, pauses)
    assert index.data == whole
    assert [entry.ref_name for entry in entries] == ["main", "dev"]
    assert len(pauses.seconds) == at


def test_one_that_stays_torn_is_an_error_after_half_a_second(
    sample: Sample, layout: Layout
) -> None:
    sample.box.write_index(TORN)
    pauses = Pauses(sample)
    with pytest.raises(Damaged, match=r"index.json is invalid or ambiguous: not JSON"):
        read_stable_index(layout, pauses)
    assert sum(pauses.seconds) == pytest.approx(0.5)


def test_a_whole_one_is_not_waited_for(sample: Sample, layout: Layout) -> None:
    pauses = Pauses(sample)
    read_stable_index(layout, pauses)
    assert pauses.seconds == []


def test_one_that_vanishes_while_torn(sample: Sample, layout: Layout) -> None:
    sample.box.write_index(TORN)
    assert read_stable_index(layout, lambda _: (sample.dir / INDEX).unlink())[1] == ()


def test_the_stamp_changes_with_the_file(sample: Sample, layout: Layout) -> None:
    path = sample.dir / INDEX
    data, first = path.read_bytes(), stamp_index(layout)
    assert stamp_index(layout) == first
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(data[:-1] + b" ")
    os.utime(path, ns=times)
    second = stamp_index(layout)
    assert second != first
    path.rename(sample.dir / "old")
    path.write_bytes(data)
    assert stamp_index(layout) != second


def test_an_edit_replaces_the_file_in_one_step(sample: Sample, layout: Layout) -> None:
    path = sample.dir / INDEX
    with path.open("rb") as reader:
        before = reader.read()
        assert edit_index(layout, lambda data: (b"new " + (data or b""), 7)) == 7
        reader.seek(0)
        assert reader.read() == before, "the old file itself must not change"
    assert path.read_bytes() == b"new " + before
    assert not (sample.dir / INDEX_TEMP).exists()


def test_equal_bytes_are_not_written(sample: Sample, layout: Layout) -> None:
    stamp = stamp_index(layout)
    assert edit_index(layout, lambda data: (data or b"", "same")) == "same"
    assert stamp_index(layout) == stamp


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o664, 0o666])
def test_the_mode_stays_whatever_the_umask(sample: Sample, layout: Layout, mode: int) -> None:
    (sample.dir / INDEX).chmod(mode)
    umask = os.umask(0o077)
    try:
        edit_index(layout, lambda _: (b"{}", None))
    finally:
        os.umask(umask)
    assert stat.S_IMODE((sample.dir / INDEX).stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_owner_and_group_stay(sample: Sample, layout: Layout) -> None:
    os.chown(sample.dir / INDEX, 1234, 2345)
    edit_index(layout, lambda _: (b"{}", None))
    found = (sample.dir / INDEX).stat()
    assert (found.st_uid, found.st_gid) == (1234, 2345)


def test_what_a_killed_writer_left_is_no_hindrance(sample: Sample, layout: Layout) -> None:
    (sample.dir / INDEX_TEMP).write_bytes(b"half of an ind")
    (sample.dir / INDEX_TEMP).chmod(0o000)
    edit_index(layout, lambda _: (b"{}", None))
    assert (sample.dir / INDEX).read_bytes() == b"{}"
    assert not (sample.dir / INDEX_TEMP).exists()


def test_a_link_in_the_way_is_not_followed(sample: Sample, layout: Layout) -> None:
    bystander = sample.box.top / "bystander"
    before = bystander.read_bytes()
    (sample.dir / INDEX_TEMP).symlink_to(bystander)
    edit_index(layout, lambda _: (b"{}", None))
    assert bystander.read_bytes() == before
    assert (sample.dir / INDEX).read_bytes() == b"{}"


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_write_that_fails_leaves_the_old_file(
    sample: Sample, layout: Layout, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (sample.dir / INDEX).read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(KitcacheError, match=r"cannot write index.json: No space left") as caught:
        edit_index(layout, lambda _: (b"{}", None))
    assert caught.value.effect == "nothing was changed"
    assert (sample.dir / INDEX).read_bytes() == before
    assert not (sample.dir / INDEX_TEMP).exists()


def test_a_name_that_cannot_be_taken_leaves_the_old_file(sample: Sample, layout: Layout) -> None:
    before = (sample.dir / INDEX).read_bytes()
    (sample.dir / INDEX_TEMP).mkdir()
    with pytest.raises(KitcacheError, match=r"cannot write index.json: File exists"):
        edit_index(layout, lambda _: (b"{}", None))
    assert (sample.dir / INDEX).read_bytes() == before


def test_an_edit_that_raises_changes_nothing(sample: Sample, layout: Layout) -> None:
    stamp = stamp_index(layout)

    def refuse(data: bytes | None) -> tuple[bytes, None]:
        raise KeyError

    with pytest.raises(KeyError):
        edit_index(layout, refuse)
    assert stamp_index(layout) == stamp


def test_bytes_and_name_are_on_the_disk_before_it_returns(
    sample: Sample, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        calls.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real_fsync(fd)

    def rename(*args: str, **fds: int) -> None:
        calls.append("rename")
        real_rename(*args, **fds)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    edit_index(layout, lambda _: (b"{}", None))
    assert calls == ["file", "rename", "directory"]


class Lock:
    """Notes what happens while it is held."""

    def __init__(self, calls: list[str], step: Callable[[], object] = lambda: None) -> None:
        self.calls, self.step = calls, step

    @contextmanager
    def take(self) -> Iterator[None]:
        self.step()
        self.calls.append("locked")
        yield
        self.calls.append("unlocked")


@contextmanager
def room(sample: Sample) -> Iterator[int]:
    (sample.dir / ".kitcache").mkdir(exist_ok=True)
    fd = os.open(sample.dir / ".kitcache", os.O_RDONLY)
    yield fd
    os.close(fd)
    assert os.listdir(sample.dir / ".kitcache") == []


def append(data: bytes | None) -> tuple[bytes, str]:
    return (data or b"") + b"\n", "answer"


def test_publishing_writes_before_the_lock_and_syncs_after_it(
    sample: Sample, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, before = os.fsync, (sample.dir / INDEX).read_bytes()

    def fsync(fd: int) -> None:
        calls.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real_fsync(fd)

    with room(sample) as fd:
        monkeypatch.setattr(os, "fsync", fsync)
        assert publish_index(layout, fd, Lock(calls).take(), append) == "answer"
    assert calls == ["file", "locked", "unlocked", "directory"]
    assert (sample.dir / INDEX).read_bytes() == before + b"\n"


def test_what_others_published_meanwhile_is_in_it(sample: Sample, layout: Layout) -> None:
    path = sample.dir / INDEX
    lock = Lock([], lambda: path.write_bytes(b"theirs"))
    with room(sample) as fd:
        publish_index(layout, fd, lock.take(), append)
    assert path.read_bytes() == b"theirs\n"


@pytest.mark.parametrize("torn", [True, False])
def test_what_cannot_be_prepared_is_done_under_the_lock(
    sample: Sample, layout: Layout, torn: bool
) -> None:
    """Half of an index that BuildKit is writing, or no room of ours."""

    def edit(data: bytes | None) -> tuple[bytes, str]:
        if data == TORN:
            raise DocumentError("not-json", "torn")
        return append(data)

    path, whole = sample.dir / INDEX, (sample.dir / INDEX).read_bytes()
    if torn:
        path.write_bytes(TORN)
    with room(sample) as fd:
        lock = Lock([], lambda: path.write_bytes(whole))
        publish_index(layout, fd if torn else None, lock.take(), edit)
    assert path.read_bytes() == whole + b"\n"


def test_publishing_the_same_again_renews_the_time_only(sample: Sample, layout: Layout) -> None:
    """Else a reset would take the uploads before it for an export that is about to publish."""
    path = sample.dir / INDEX
    os.utime(path, (0, 0))
    before = path.stat()
    with room(sample) as fd:
        publish_index(layout, fd, Lock([]).take(), lambda data: (data or b"", None))
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime > before.st_mtime


def test_a_failure_under_the_lock_leaves_nothing_in_the_room(
    sample: Sample, layout: Layout
) -> None:
    def fail() -> None:
        raise KeyError

    before = (sample.dir / INDEX).read_bytes()
    with room(sample) as fd, pytest.raises(KeyError):
        publish_index(layout, fd, Lock([], fail).take(), append)
    assert (sample.dir / INDEX).read_bytes() == before
