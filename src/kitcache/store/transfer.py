"""Copies a blob from one cache to another: as a hard link, or as a verified copy.

The blob gets its name in one step. A copy is written in .kitcache/ of the target. It is not
written in ingest/, because a reset would regard it as an upload of a running export.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, Damaged, KitcacheError
from kitcache.oci.digest import Digest
from kitcache.store.files import (
    NEW_BLOB,
    delete_file,
    reference_stat,
    replace_file,
    temporary_name,
)
from kitcache.store.ingest import ALWAYS_HASHED_BYTES, find_blob, open_algorithm
from kitcache.store.ioerrors import check_blame, io_error, size_problem, unreadable
from kitcache.store.layout import Layout, look_at_open
from kitcache.store.state import open_state_dir, require_state_dir
from kitcache.store.verified import WrongDigest, make_buffer, read_parts, verify

_OPENING = Lock()
"""Two threads must not create one directory."""

CopyMethod = Literal["linked", "copied", "reused"]

# Another file system, another owner, too many links, no hard links. ENOENT: another process deleted
# the name after the blob was opened; its bytes can still be read.
_NO_LINK = (
    errno.EXDEV,
    errno.EPERM,
    errno.EMLINK,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.ENOENT,
)


def copy_blob(
    source: Layout,
    target: Layout,
    digest: Digest,
    size: int | None,
    *,
    proves: bool = False,
    on_copied: Callable[[int], None] = lambda _: None,
) -> CopyMethod:
    """Copy or link a blob into another cache. Return "reused" if the target had it complete.

    Any other file with its name is replaced. Copied bytes are hashed, and so is a blob of at most
    ALWAYS_HASHED_BYTES; for other blobs only the length is compared. A file that the owner of the
    target cannot read is copied. The name is durable after sync_blobs. The caller holds
    kitcache.lock of both caches and has opened their directories.

    Args:
        size: In bytes, None if unknown.
        proves: Hash a linked blob of any length too.
        on_copied: Called with the bytes of each step of a copy. An exception ends the copy.

    Raises:
        Damaged: The source has no such blob (missing, wrong-size, not-a-file, wrong-digest).
        Unreadable: The blob in the source cannot be read.
        KitcacheError: Disk full, read-only. The target is unchanged.
    """
    # A stat first: to open a missing file costs more than everything else here.
    if target.stat_blob(digest) and find_blob(target, digest, size or 0) is not None:
        return "reused"
    original = _open_original(source, digest)
    try:
        original.check_length(size)
        if proves or original.stat.st_size <= ALWAYS_HASHED_BYTES:
            original.check_bytes()
        target_fd = open_algorithm(target, digest.algorithm)
        if _link(original, target, target_fd):
            return "linked"
        put_blob(target, digest, _counted(original.chunks(), on_copied))
        return "copied"
    finally:
        os.close(original.fd)


def _counted(parts: Iterable[memoryview], on_copied: Callable[[int], None]) -> Iterator[memoryview]:
    for part in parts:
        yield part
        on_copied(len(part))


class _Original(NamedTuple):
    """The blob in its source, opened. stat: As fstat returned it then."""

    source: Layout
    digest: Digest
    fd: int
    stat: os.stat_result

    def check_length(self, size: int | None) -> None:
        length = self.stat.st_size
        if size is not None and length != size:
            raise _damaged(self.source, self.digest, "wrong-size", size_problem(length, size))

    def check_bytes(self) -> None:
        with self._blaming_source():
            verify(self.fd, self.digest, self.stat.st_size)

    def chunks(self) -> Iterator[memoryview]:
        """Yield all bytes; then raise Damaged if they do not match the digest."""
        size = self.stat.st_size
        with self._blaming_source():
            os.lseek(self.fd, 0, os.SEEK_SET)
            yield from read_parts(self.fd, self.digest, size, make_buffer(size))

    @contextmanager
    def _blaming_source(self) -> Iterator[None]:
        """Convert failures to errors of the source."""
        try:
            yield
        except WrongDigest as error:
            raise _damaged(self.source, self.digest, "wrong-digest", error.problem) from None
        except OSError as error:
            check_blame(self.source.path, error)
            raise unreadable(self.source.path, f"blob {self.digest.short}", error) from None


def _open_original(source: Layout, digest: Digest) -> _Original:
    fd = source.open_blob(digest)
    if fd is not None:
        try:
            return _Original(source, digest, fd, look_at_open(source, fd, f"blob {digest.short}"))
        except KitcacheError:
            os.close(fd)
            raise
    if source.stat_blob(digest) is None:
        raise _damaged(source, digest, "missing", "is missing")
    raise _damaged(source, digest, "not-a-file", "is not a regular file")


def _link(original: _Original, target: Layout, target_fd: int) -> bool:
    """Link the opened file as the blob in the target; return False if that is impossible."""
    if not _is_readable_in(target, original.stat):
        return False
    name, source_fd = original.digest.hex, original.source.blobs[original.digest.algorithm]
    try:
        try:
            os.link(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
        except FileExistsError:
            return _replace_by_link(original, target, target_fd)
        # If another process has replaced the name in either cache since, the caller copies the
        # opened file.
        return _is_named(original, name, target_fd)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        doing = f"cannot link blob {original.digest.short}"
        raise io_error(target.path, doing, error) from None


def _replace_by_link(original: _Original, target: Layout, target_fd: int) -> bool:
    name, source_fd = original.digest.hex, original.source.blobs[original.digest.algorithm]
    with open_state_dir(target) as state_fd:
        if state_fd is None:
            return False
        new = temporary_name(NEW_BLOB)
        os.link(name, new, src_dir_fd=source_fd, dst_dir_fd=state_fd, follow_symlinks=False)
        try:
            if not _is_named(original, new, state_fd):
                return False
            os.rename(new, name, src_dir_fd=state_fd, dst_dir_fd=target_fd)
        finally:
            # If both names belong to one file, rename does nothing.
            delete_file(state_fd, new)
    return True


def _is_named(original: _Original, name: str, dir_fd: int) -> bool:
    return os.path.samestat(os.stat(name, dir_fd=dir_fd, follow_symlinks=False), original.stat)


def _is_readable_in(target: Layout, file: os.stat_result) -> bool:
    """Return True if the owner of the target can read this file."""
    if file.st_mode & 0o444 == 0o444:
        return True
    reference = reference_stat(target)
    needed = stat.S_IROTH
    if reference.st_uid == file.st_uid:
        needed = stat.S_IRUSR
    elif reference.st_gid == file.st_gid:
        needed = stat.S_IRGRP
    return reference.st_uid == 0 or bool(file.st_mode & needed)


def read_blob_parts(source: Layout, digest: Digest, size: int) -> Iterator[memoryview]:
    """Yield the bytes of a blob, and verify them at the end; see EditableStore.read_parts."""
    original = _open_original(source, digest)
    try:
        original.check_length(size)
        yield from original.chunks()
    finally:
        os.close(original.fd)


def put_blob(target: Layout, digest: Digest, parts: Iterable[bytes | memoryview]) -> None:
    """Write a blob from its verified parts, and sync its bytes; see EditableStore.put_blob.

    The name is durable after sync_blobs.
    """
    with _OPENING:
        target_fd = open_algorithm(target, digest.algorithm)
    with require_state_dir(target) as state_fd:
        place, temporary = (target_fd, digest.hex), (state_fd, temporary_name(NEW_BLOB))
        try:
            replace_file(place, temporary, parts, reference_stat(target), 0o444)
        except OSError as error:
            doing = f"cannot write blob {digest.short}"
            raise io_error(target.path, doing, error) from None


def _damaged(source: Layout, digest: Digest, kind: str, problem: str) -> Damaged:
    return Damaged(source.path, f"blob {digest.short} {problem}", kind=kind, effect=NOTHING_CHANGED)


def is_on_file_system_of(source: Layout, path: str) -> bool:
    """Return True if the path is, or will be, on the file system of the source."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev == look_at_open(source, source.root_fd, "the directory").st_dev
