"""store/commit.py: index.json is replaced in one step, under BuildKit's lock."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kitcache.errors import Busy, Damaged, KitcacheError, Unsafe
from kitcache.oci.digest import sha256_of
from kitcache.oci.index import EMPTY_INDEX, add_entries
from kitcache.store import commit as module
from kitcache.store.commit import commit_index
from kitcache.store.files import INDEX, INDEX_TEMP
from kitcache.store.index import stamp_index
from kitcache.store.layout import Layout
from kitcache.store.values import Roots, WaitPolicy
from tests.hostile.build import Sample

TORN = b'{"schemaVersion":2,"manifests":[{"media'
WAIT = WaitPolicy(0.0, lambda _: None, lambda _: None)


def append(data: bytes | None) -> bytes:
    return (data or b"") + b"\n"


def make_empty(_: bytes | None) -> bytes:
    return EMPTY_INDEX


def commit(layout: Layout, change: Callable[[bytes | None], bytes] = make_empty) -> bytes | None:
    roots = commit_index(layout, change, WAIT)
    assert roots is not None
    assert roots.data is not None
    assert roots.version == sha256_of(roots.data)
    return roots.data


@pytest.fixture
def state_dir(sample: Sample) -> Path:
    """.kitcache/, in which nothing is left behind."""
    return sample.dir / ".kitcache"


@pytest.fixture
def no_state_dir(sample: Sample) -> None:
    """A file in its place: then index.json is written next to the old one, under the lock."""
    (sample.dir / ".kitcache").write_bytes(b"")


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def hook_lock(
    monkeypatch: pytest.MonkeyPatch, step: Callable[[], object], calls: list[str]
) -> None:
    """Do something right before the lock is acquired, and record how long it is held."""

    @contextmanager
    def lock_index(*_: object) -> Iterator[None]:
        step()
        calls.append("locked")
        yield
        calls.append("unlocked")

    monkeypatch.setattr(module, "lock_index", lock_index)


def test_the_file_is_replaced_in_one_step(sample: Sample, layout: Layout, state_dir: Path) -> None:
    path = sample.dir / INDEX
    with path.open("rb") as reader:
        before = reader.read()
        assert commit(layout, append) == before + b"\n"
        reader.seek(0)
        assert reader.read() == before, "the old file itself must not change"
    assert path.read_bytes() == before + b"\n"
    assert not (sample.dir / INDEX_TEMP).exists()
    assert os.listdir(state_dir) == []


@pytest.mark.parametrize("has_state_dir", [True, False])
def test_equal_bytes_are_not_written_but_dated(
    sample: Sample, layout: Layout, has_state_dir: bool
) -> None:
    """Else a reset would take the uploads before it for an export that has yet to publish."""
    path = sample.dir / INDEX
    if not has_state_dir:
        (sample.dir / ".kitcache").write_bytes(b"")
    os.utime(path, (0, 0))
    before = path.stat()
    commit(layout, lambda data: data or b"")
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime > before.st_mtime


@pytest.mark.parametrize("has_state_dir", [True, False])
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o664, 0o666])
def test_the_mode_stays_whatever_the_umask(
    sample: Sample, layout: Layout, mode: int, has_state_dir: bool
) -> None:
    if not has_state_dir:
        (sample.dir / ".kitcache").write_bytes(b"")
    (sample.dir / INDEX).chmod(mode)
    umask = os.umask(0o077)
    try:
        commit(layout)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((sample.dir / INDEX).stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_owner_and_group_stay(sample: Sample, layout: Layout) -> None:
    os.chown(sample.dir / INDEX, 1234, 2345)
    commit(layout)
    found = (sample.dir / INDEX).stat()
    assert (found.st_uid, found.st_gid) == (1234, 2345)


@pytest.mark.usefixtures("no_state_dir")
class TestWithoutAStateDirectory:
    def test_a_file_of_a_killed_writer_is_replaced(self, sample: Sample, layout: Layout) -> None:
        (sample.dir / INDEX_TEMP).write_bytes(b"half of an ind")
        (sample.dir / INDEX_TEMP).chmod(0o000)
        commit(layout)
        assert (sample.dir / INDEX).read_bytes() == EMPTY_INDEX
        assert not (sample.dir / INDEX_TEMP).exists()

    def test_a_link_in_the_way_is_not_followed(self, sample: Sample, layout: Layout) -> None:
        bystander = sample.box.top / "bystander"
        before = bystander.read_bytes()
        (sample.dir / INDEX_TEMP).symlink_to(bystander)
        commit(layout)
        assert bystander.read_bytes() == before
        assert (sample.dir / INDEX).read_bytes() == EMPTY_INDEX

    def test_a_name_that_is_taken_leaves_the_old_file(self, sample: Sample, layout: Layout) -> None:
        before = (sample.dir / INDEX).read_bytes()
        (sample.dir / INDEX_TEMP).mkdir()
        with pytest.raises(KitcacheError, match=r"cannot write index.json: File exists"):
            commit(layout)
        assert (sample.dir / INDEX).read_bytes() == before

    def test_bytes_and_name_are_durable_before_it_returns(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch
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
        commit(layout)
        assert calls == ["file", "rename", "directory"]


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_write_that_fails_leaves_the_old_file(
    sample: Sample, layout: Layout, step: str, monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    """First in .kitcache/, then under the lock."""
    before = (sample.dir / INDEX).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(KitcacheError, match=r"cannot write index.json: No space") as caught:
            commit(layout)
    assert caught.value.effect == "nothing was changed"
    assert (sample.dir / INDEX).read_bytes() == before
    assert not (sample.dir / INDEX_TEMP).exists()
    assert os.listdir(state_dir) == []


def test_a_change_that_raises_changes_nothing(layout: Layout, state_dir: Path) -> None:
    stamp = stamp_index(layout)

    def refuse(_: bytes | None) -> bytes:
        raise KeyError

    with pytest.raises(KeyError):
        commit_index(layout, refuse, WAIT)
    assert stamp_index(layout) == stamp
    assert os.listdir(state_dir) == []


def test_the_write_is_before_the_lock_and_the_sync_of_the_name_after_it(
    sample: Sample, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, before = os.fsync, (sample.dir / INDEX).read_bytes()

    def fsync(fd: int) -> None:
        calls.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    hook_lock(monkeypatch, lambda: None, calls)
    commit(layout, append)
    assert calls == ["file", "locked", "unlocked", "directory"]
    assert (sample.dir / INDEX).read_bytes() == before + b"\n"


def test_a_change_that_another_process_published_first_is_kept(
    sample: Sample, layout: Layout, monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    path = sample.dir / INDEX
    hook_lock(monkeypatch, lambda: path.write_bytes(EMPTY_INDEX + b" "), [])
    commit(layout, append)
    assert path.read_bytes() == EMPTY_INDEX + b" \n"
    assert os.listdir(state_dir) == []


def test_a_half_written_index_is_read_again_under_the_lock(
    sample: Sample, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = sample.dir / INDEX, (sample.dir / INDEX).read_bytes()
    path.write_bytes(TORN)
    hook_lock(monkeypatch, lambda: path.write_bytes(whole), [])

    def change(data: bytes | None) -> bytes:
        return add_entries(data, ()) + b"\n"

    commit(layout, change)
    assert path.read_bytes() == whole + b"\n"


def test_an_index_that_stays_invalid_is_damaged(sample: Sample, layout: Layout) -> None:
    path = sample.dir / INDEX
    path.write_bytes(TORN)
    with pytest.raises(Damaged, match=r"index.json is invalid or ambiguous: not JSON") as caught:
        commit_index(layout, lambda data: add_entries(data, ()), WAIT)
    assert (caught.value.path, caught.value.effect) == (layout.path, "nothing was changed")
    assert path.read_bytes() == TORN


def test_an_index_that_nobody_could_read_again_is_not_written(
    sample: Sample, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (sample.dir / INDEX).read_bytes()
    monkeypatch.setattr(module, "STRUCTURAL_LIMIT_BYTES", len(before))
    with pytest.raises(Unsafe, match="would be larger than any index may be"):
        commit(layout, append)
    assert (sample.dir / INDEX).read_bytes() == before


class TestBefore:
    """Compare and swap."""

    def test_the_same_roots_are_replaced(self, layout: Layout) -> None:
        first = commit_index(layout, make_empty, WAIT)
        assert commit_index(layout, append, WAIT, before=first) is not None

    @pytest.mark.parametrize("moment", ["before", "in between"])
    def test_outdated_roots_change_nothing(
        self,
        sample: Sample,
        layout: Layout,
        monkeypatch: pytest.MonkeyPatch,
        moment: str,
        state_dir: Path,
    ) -> None:
        path, other = sample.dir / INDEX, EMPTY_INDEX + b"  "
        before = commit_index(layout, make_empty, WAIT)
        if moment == "before":
            path.write_bytes(other)
        else:
            hook_lock(monkeypatch, lambda: path.write_bytes(other), [])
        assert commit_index(layout, append, WAIT, before=before) is None
        assert path.read_bytes() == other
        assert os.listdir(state_dir) == []

    def test_no_index_is_a_state_too(self, sample: Sample, layout: Layout) -> None:
        (sample.dir / INDEX).unlink()
        none = Roots(None, sha256_of(b""), 0, ())
        assert commit_index(layout, make_empty, WAIT, before=none) is not None
        assert commit_index(layout, append, WAIT, before=none) is None


def test_a_lock_that_is_not_acquired_leaves_nothing(
    sample: Sample, layout: Layout, monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    def busy() -> None:
        raise Busy("cache", "index.json.lock is held")

    before = (sample.dir / INDEX).read_bytes()
    hook_lock(monkeypatch, busy, [])
    with pytest.raises(Busy):
        commit(layout, append)
    assert (sample.dir / INDEX).read_bytes() == before
    assert os.listdir(state_dir) == []
