"""A blob comes from one layout into another: as a hard link, else as a copy that was proven.

It gets its name in one step. A copy is written in .kitcache/ of the layout that it comes to, so
that nobody takes it for an export under way.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from typing import Literal, NamedTuple, NoReturn

from kitcache.errors import NOTHING_CHANGED, Damaged, KitcacheError
from kitcache.oci.digest import Digest
from kitcache.store.index import copy_owner, reference_stat
from kitcache.store.ingest import ALWAYS_HASHED_BYTES, find_blob, room_for_blobs
from kitcache.store.ioerrors import check_blame, io_error, unreadable
from kitcache.store.layout import NEW_FILE_FLAGS, Layout, look_at_open
from kitcache.store.state import open_state_dir, require_state_dir
from kitcache.store.write import new_name

CopyMethod = Literal["linked", "copied", "reused"]

_CHUNK_BYTES = 1024 * 1024
# Another file system, another's file, too many links, a file system that has none; and a name that
# somebody swept, here or there, after the blob was opened: its bytes can still be had.
_NO_LINK = (
    errno.EXDEV,
    errno.EPERM,
    errno.EMLINK,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.ENOENT,
)


def _nobody(_: int) -> None:
    pass


def copy_blob(
    source: Layout,
    target: Layout,
    digest: Digest,
    size: int | None,
    *,
    proves: bool = False,
    on_copied: Callable[[int], None] = _nobody,
) -> CopyMethod:
    """Have a blob of one layout in another one too; how it came, or "reused": it was whole already.

    size: bytes, None if unknown. What lies under its name and is no such blob is replaced. Blobs of
    at most PROVEN_BYTES are hashed, and what is copied; of others that are linked or there the
    length is believed, but for proves: then what is linked is hashed as well. A file that the owner
    of the target could not read is copied. The name is on the disk after sync_blobs. on_copied:
    told of the bytes of each step of a copy; what it raises ends the copy.

    The caller holds kitcache.lock of both, whose directories have been opened. Raises Damaged where
    the source has no such blob (missing, torn, not-a-file, wrong-digest), Unreadable where that is
    not known, KitcacheError (disk full, read-only): then what was there before is there, and
    nothing is left of a copy.
    """
    # The look first: to open what is not there costs more than all the rest.
    if target.stat_blob(digest) and find_blob(target, digest, size or 0) is not None:
        return "reused"
    original = _open_original(source, digest)
    try:
        original.check_length(size)
        if proves or original.found.st_size <= ALWAYS_HASHED_BYTES:
            original.check_bytes()
        room = room_for_blobs(target, digest.algorithm)
        if _link(original, target, room):
            return "linked"
        _copy(original, target, room, on_copied)
        return "copied"
    finally:
        os.close(original.fd)


class _Original(NamedTuple):
    """The blob's file in its source, opened. found: what fstat told of it then."""

    source: Layout
    digest: Digest
    fd: int
    found: os.stat_result

    def check_length(self, size: int | None) -> None:
        length = self.found.st_size
        if size is not None and length != size:
            verb = "is cut short" if length < size else "is too long"
            self._blame("wrong-size", f"{verb} ({length:,} of {size:,} bytes)")

    def check_bytes(self) -> None:
        size = self.found.st_size
        if size <= ALWAYS_HASHED_BYTES and self.digest.matches(self._read(size + 1, 0)):
            return  # with one read: there may be twenty thousand of these
        for _ in self.chunks():
            pass

    def chunks(self) -> Iterator[bytes]:
        """All its bytes. Raises Damaged, at the end, where they are other ones."""
        seen = hashlib.new(self.digest.algorithm)
        # Never 0: an empty file may have grown meanwhile.
        count, offset = min(self.found.st_size + 1, _CHUNK_BYTES), 0
        while data := self._read(count, offset):
            seen.update(data)
            offset += len(data)
            yield data
        if seen.hexdigest() != self.digest.hex:
            self._blame("wrong-digest", "holds other bytes than its digest says")

    def _read(self, count: int, offset: int) -> bytes:
        try:
            return os.pread(self.fd, count, offset)
        except OSError as error:
            check_blame(self.source.path, error)
            raise unreadable(self.source.path, f"blob {self.digest.short}", error) from None

    def _blame(self, kind: str, problem: str) -> NoReturn:
        raise _damaged(self.source, self.digest, kind, problem)


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
    raise _damaged(source, digest, "not-a-file", "is no regular file")


def _link(original: _Original, target: Layout, room: int) -> bool:
    """Whether that very file has the blob's name in the target now. Raises KitcacheError."""
    if not _is_readable_in(target, original.found):
        return False
    name, origin = original.digest.hex, original.source.blobs[original.digest.algorithm]
    try:
        try:
            os.link(name, name, src_dir_fd=origin, dst_dir_fd=room, follow_symlinks=False)
        except FileExistsError:
            return _replace_by_link(original, target, room)
        # Where somebody has put something else in its place meanwhile, in the source or in the
        # target, a copy of what was opened replaces it.
        return _is_named(original, name, room)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        what = f"cannot link blob {original.digest.short}"
        raise io_error(target.path, what, error) from None


def _replace_by_link(original: _Original, target: Layout, room: int) -> bool:
    name, origin = original.digest.hex, original.source.blobs[original.digest.algorithm]
    with open_state_dir(target) as own_fd:
        if own_fd is None:
            return False
        new = new_name()
        os.link(name, new, src_dir_fd=origin, dst_dir_fd=own_fd, follow_symlinks=False)
        try:
            if not _is_named(original, new, own_fd):
                return False
            os.rename(new, name, src_dir_fd=own_fd, dst_dir_fd=room)
        finally:
            _unlink(new, own_fd)
    return True


def _is_named(original: _Original, name: str, directory: int) -> bool:
    named = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return os.path.samestat(named, original.found)


def _is_readable_in(target: Layout, found: os.stat_result) -> bool:
    """Whether the owner of the target could read this very file; a copy can be read by all."""
    if found.st_mode & 0o444 == 0o444:
        return True
    users = reference_stat(target)
    needed = stat.S_IROTH
    if users.st_uid == found.st_uid:
        needed = stat.S_IRUSR
    elif users.st_gid == found.st_gid:
        needed = stat.S_IRGRP
    return users.st_uid == 0 or bool(found.st_mode & needed)


def _copy(original: _Original, target: Layout, room: int, on_copied: Callable[[int], None]) -> None:
    """The bytes, proven while they are written, under the blob's name in the target."""
    with require_state_dir(target) as own_fd:
        new = new_name()
        try:
            with open(os.open(new, NEW_FILE_FLAGS, 0o600, dir_fd=own_fd), "wb", 0) as copy:
                for data in original.chunks():
                    _write_all(copy, data)
                    on_copied(len(data))
                copy_owner(copy.fileno(), reference_stat(target))
                os.fchmod(copy.fileno(), 0o444)
                os.fsync(copy.fileno())
            os.rename(new, original.digest.hex, src_dir_fd=own_fd, dst_dir_fd=room)
        except OSError as error:
            what = f"cannot write blob {original.digest.short}"
            raise io_error(target.path, what, error) from None
        finally:
            _unlink(new, own_fd)


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def _unlink(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _damaged(source: Layout, digest: Digest, kind: str, problem: str) -> Damaged:
    return Damaged(source.path, f"blob {digest.short} {problem}", kind=kind, effect=NOTHING_CHANGED)
