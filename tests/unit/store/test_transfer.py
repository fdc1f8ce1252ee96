"""store/transfer.py: a blob of one layout in another one too, whole or not at all."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kitcache.errors import Damaged, KitcacheError, Unreadable
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store import transfer as module
from kitcache.store.ingest import ALWAYS_HASHED_BYTES
from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from kitcache.store.transfer import copy_blob
from tests.hostile.build import Box, Sample

SHORT = b"a layer " * 100
LONG = b"a long layer " * (ALWAYS_HASHED_BYTES // 10)


@pytest.fixture
def other(tmp_path: Path) -> Box:
    """A second cache, without blobs."""
    (tmp_path / "other").mkdir()
    box = Box(tmp_path / "other")
    box.write_index(b'{"schemaVersion":2,"manifests":[]}')
    (box.dir / "blobs" / "sha256").rmdir()
    (box.dir / "blobs").rmdir()
    return box


@pytest.fixture
def target(other: Box) -> Iterator[Layout]:
    with open_store(other.dir) as opened:
        opened.open_directories()
        yield opened


def put(box: Box, data: bytes, algorithm: str = "sha256") -> tuple[Digest, Path]:
    digest = box.blob(data, algorithm=algorithm)["digest"]
    return parse_digest(digest), box.path_of(digest)


def opened_again(layout: Layout) -> Layout:
    layout.open_directories()
    return layout


def without_links(monkeypatch: pytest.MonkeyPatch, code: int = errno.EXDEV) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)


@pytest.fixture
def unlinked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two caches are on two file systems."""
    without_links(monkeypatch)


@pytest.fixture(params=["linked", "copied"])
def is_linked(request: pytest.FixtureRequest) -> bool:
    """Whether a link can be made; else a blob is copied."""
    if request.param == "copied":
        request.getfixturevalue("unlinked")
    return bool(request.param == "linked")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [len(SHORT), None])
def test_it_is_the_same_file_where_it_can_be(
    sample: Sample, layout: Layout, other: Box, target: Layout, algorithm: str, size: int | None
) -> None:
    digest, path = put(sample.box, SHORT, algorithm)
    before = path.stat()
    assert copy_blob(opened_again(layout), target, digest, size) == "linked"
    assert other.path_of(str(digest)).samefile(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert copy_blob(layout, target, digest, size) == "reused"
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert not (other.dir / ".kitcache").exists()


@pytest.mark.parametrize(
    "code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS]
)
def test_else_a_copy(
    sample: Sample,
    layout: Layout,
    other: Box,
    target: Layout,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    digest, path = put(sample.box, LONG)
    without_links(monkeypatch, code)
    steps: list[int] = []
    assert copy_blob(layout, target, digest, len(LONG), on_copied=steps.append) == "copied"
    copy = other.path_of(str(digest))
    assert copy.read_bytes() == LONG
    assert not copy.samefile(path)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o444
    assert (sum(steps), len(steps) > 1) == (len(LONG), True)
    assert os.listdir(other.dir / ".kitcache") == []
    assert os.listdir(other.dir / "ingest") == []


def test_another_failure_to_link_is_an_error(
    sample: Sample, layout: Layout, target: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = put(sample.box, SHORT)
    without_links(monkeypatch, errno.ENOSPC)
    with pytest.raises(
        KitcacheError, match=r"cannot link blob sha256:\w{12}: No space left"
    ) as caught:
        copy_blob(layout, target, digest, len(SHORT))
    assert caught.value.path == target.path


@pytest.mark.parametrize("there", [b"", SHORT[:-1], SHORT + b"!", b"!" * len(SHORT)])
def test_what_is_no_such_blob_is_replaced(
    sample: Sample, layout: Layout, other: Box, target: Layout, there: bytes, is_linked: bool
) -> None:
    digest, _ = put(sample.box, SHORT)
    path = other.path_of(str(digest))
    path.parent.mkdir(parents=True)
    path.write_bytes(there)
    brought = copy_blob(layout, opened_again(target), digest, len(SHORT))
    assert brought == ("linked" if is_linked else "copied")
    assert path.read_bytes() == SHORT
    assert os.listdir(path.parent) == [digest.hex]
    assert os.listdir(other.dir / ".kitcache") == []


def test_a_link_in_the_targets_place_is_replaced_and_not_followed(
    sample: Sample, layout: Layout, other: Box, target: Layout, is_linked: bool
) -> None:
    digest, _ = put(sample.box, SHORT)
    path = other.path_of(str(digest))
    path.parent.mkdir(parents=True)
    victim = other.top / "bystander"
    path.symlink_to(victim)
    copy_blob(layout, opened_again(target), digest, len(SHORT))
    assert not path.is_symlink()
    assert path.read_bytes() == SHORT
    assert victim.read_text() == "a file beside"


def test_a_directory_in_the_way_is_told_and_left_alone(
    sample: Sample, layout: Layout, other: Box, target: Layout, is_linked: bool
) -> None:
    digest, _ = put(sample.box, SHORT)
    path = other.path_of(str(digest))
    path.mkdir(parents=True)
    with pytest.raises(KitcacheError, match=f"blob {digest.short}: Is a directory") as caught:
        copy_blob(layout, opened_again(target), digest, len(SHORT))
    assert caught.value.path == target.path
    assert path.is_dir()
    assert os.listdir(other.dir / ".kitcache") == []


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (None, "missing"),
        (SHORT[:-1], "wrong-size"),
        (SHORT + b"!", "wrong-size"),
        (b"!" * len(SHORT), "wrong-digest"),
        ("link", "not-a-file"),
        ("pipe", "not-a-file"),
        ("directory", "not-a-file"),
    ],
)
def test_what_the_source_does_not_have_does_not_come(
    sample: Sample,
    layout: Layout,
    other: Box,
    target: Layout,
    found: bytes | str | None,
    kind: str,
    is_linked: bool,
) -> None:
    digest, path = put(sample.box, SHORT)
    path.unlink()
    if isinstance(found, bytes):
        path.write_bytes(found)
    elif found == "link":
        real = sample.box.top / "real"
        real.write_bytes(SHORT)
        path.symlink_to(real)
    elif found == "pipe":
        os.mkfifo(path)
    elif found == "directory":
        path.mkdir()
    with pytest.raises(Damaged, match=f"blob {digest.short} ") as caught:
        copy_blob(layout, target, digest, len(SHORT))
    assert (caught.value.kind, caught.value.path) == (kind, layout.path)
    assert not other.path_of(str(digest)).exists()


def test_long_ones_are_proven_when_copied_or_asked_for(
    sample: Sample, layout: Layout, other: Box, target: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, path = put(sample.box, LONG)
    sample.box.damage(str(digest), LONG[:-1] + b"!")
    with pytest.raises(Damaged, match="does not match its digest"):
        copy_blob(layout, target, digest, len(LONG), proves=True)
    with monkeypatch.context() as patch:
        without_links(patch)
        with pytest.raises(Damaged, match="does not match its digest"):
            copy_blob(layout, target, digest, len(LONG))
    assert not other.path_of(str(digest)).exists()
    assert os.listdir(other.dir / ".kitcache") == []
    assert copy_blob(layout, target, digest, len(LONG)) == "linked"
    assert other.path_of(str(digest)).samefile(path)


def test_what_is_put_in_the_sources_place_meanwhile_is_not_linked(
    sample: Sample, layout: Layout, other: Box, target: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was opened and proven before; then somebody makes a link of it."""
    digest, path = put(sample.box, SHORT)
    real = os.link

    def swapped(*args: Any, **more: Any) -> None:
        path.unlink()
        path.symlink_to(sample.box.top / "bystander")
        real(*args, **more)

    monkeypatch.setattr(os, "link", swapped)
    assert copy_blob(layout, target, digest, len(SHORT)) == "copied"
    copy = other.path_of(str(digest))
    assert not copy.is_symlink()
    assert copy.read_bytes() == SHORT


@pytest.mark.parametrize("is_source", [True, False])
def test_what_is_swept_meanwhile_comes_as_a_copy(
    sample: Sample,
    layout: Layout,
    other: Box,
    target: Layout,
    monkeypatch: pytest.MonkeyPatch,
    is_source: bool,
) -> None:
    """Somebody who knows no lock removes the name right before the link, or the link itself."""
    digest, path = put(sample.box, SHORT)
    real = os.link

    def swept(*args: Any, **more: Any) -> None:
        if is_source:
            path.unlink()
        real(*args, **more)
        if not is_source:
            other.path_of(str(digest)).unlink()

    monkeypatch.setattr(os, "link", swept)
    assert copy_blob(layout, target, digest, len(SHORT)) == "copied"
    assert other.path_of(str(digest)).read_bytes() == SHORT


@pytest.mark.usefixtures("unlinked")
def test_a_full_disk_leaves_nothing(
    sample: Sample, layout: Layout, other: Box, target: Layout
) -> None:
    digest, _ = put(sample.box, LONG)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(
        KitcacheError, match=r"cannot write blob sha256:\w{12}: No space left"
    ) as caught:
        copy_blob(layout, target, digest, len(LONG), on_copied=full)
    assert caught.value.path == target.path
    assert os.listdir(other.dir / ".kitcache") == []
    assert not other.path_of(str(digest)).exists()


@pytest.mark.usefixtures("unlinked")
def test_without_a_room_nothing_is_copied(
    sample: Sample, layout: Layout, other: Box, target: Layout
) -> None:
    digest, _ = put(sample.box, SHORT)
    (other.dir / ".kitcache").symlink_to(other.top)
    with pytest.raises(KitcacheError, match=r"cannot create \.kitcache/"):
        copy_blob(layout, target, digest, len(SHORT))
    assert not other.path_of(str(digest)).exists()


@pytest.mark.usefixtures("unlinked")
def test_a_copy_is_for_the_users_of_the_cache(
    sample: Sample, layout: Layout, other: Box, target: Layout
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to have a cache of somebody else")
    os.chown(other.dir / "index.json", 1234, 2345)
    digest, _ = put(sample.box, SHORT)
    copy_blob(layout, target, digest, len(SHORT))
    copy = other.path_of(str(digest)).stat()
    assert (copy.st_uid, copy.st_gid) == (1234, 2345)
    room = other.path_of(str(digest)).parent.stat()
    assert (room.st_uid, room.st_gid) == (1234, 2345)


def test_a_source_that_cannot_be_read_is_told_as_the_sources_fault(
    sample: Sample, layout: Layout, target: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = put(sample.box, LONG)
    without_links(monkeypatch)

    def broken(*_: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "readv", broken)
    with pytest.raises(Unreadable, match="cannot be read: Input/output error") as caught:
        copy_blob(layout, target, digest, len(LONG))
    assert caught.value.path == layout.path


def test_a_process_that_is_out_of_memory_is_no_fault_of_the_source(
    sample: Sample, layout: Layout, target: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = put(sample.box, SHORT)

    def starved(*_: Any) -> bytes:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "readv", starved)
    with pytest.raises(KitcacheError, match="cannot read a blob") as caught:
        copy_blob(layout, target, digest, len(SHORT))
    assert not isinstance(caught.value, Damaged)


def test_a_read_that_gives_less_than_there_is_is_no_damage(
    sample: Sample, layout: Layout, target: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file system over a network may."""
    digest, _ = put(sample.box, SHORT)
    real = os.readv
    monkeypatch.setattr(os, "readv", lambda fd, parts: real(fd, [memoryview(parts[0])[:7]]))
    assert copy_blob(layout, target, digest, len(SHORT)) == "linked"


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "how"),
    [
        (0o444, 1, 1, "linked"),
        (0o600, 0, 0, "linked"),
        (0o640, 1, 0, "linked"),
        (0o604, 1, 1, "linked"),
        (0o600, 1, 0, "copied"),
        (0o600, 1, 1, "copied"),
        (0o640, 1, 1, "copied"),
    ],
)
def test_a_file_that_the_owner_of_the_target_could_not_read_is_copied(
    sample: Sample,
    target: Layout,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    uid: int,
    gid: int,
    how: str,
) -> None:
    """uid, gid: of the target's owner, beside those of the file."""
    digest, path = put(sample.box, SHORT)
    own = path.stat()
    users = [0o644, 0, 0, 1, 5000 + uid, 5000 + gid, 0, 0, 0, 0]
    real = os.fstat

    def owned(fd: int) -> os.stat_result:
        found = real(fd)
        is_blob = os.path.samestat(found, own)
        changed = [stat.S_IFREG | mode, *found[1:4], 5000, 5000, *found[6:10]]
        return os.stat_result(changed) if is_blob else found

    monkeypatch.setattr(module, "reference_stat", lambda _: os.stat_result(users))
    with open_store(sample.dir) as opened:
        opened.open_directories()
        monkeypatch.setattr(os, "fstat", owned)
        assert copy_blob(opened, target, digest, len(SHORT)) == how
