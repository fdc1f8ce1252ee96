"""A blob comes from one layout into another: as a hard link, else as a copy that was proven.

It gets its name in one step. A copy is written in .kitcache/ of the layout that it comes to, so
that nobody takes it for an export under way.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from io import RawIOBase
from typing import BinaryIO, Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, Damaged
from kitcache.oci.digest import Digest
from kitcache.store.blobs import NEW_BLOB
from kitcache.store.index import give_owner, users_of
from kitcache.store.ingest import PROVEN_BYTES, find_blob, room_for_blobs
from kitcache.store.layout import Layout, io_error
from kitcache.store.notes import need_room, room_of

Brought = Literal["linked", "copied", "there"]

_CHUNK_BYTES = 1024 * 1024
_COPY_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Another file system, another's file, too many links, a file system that has none.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)

_NOT_A_FILE = "not-a-file", "is no regular file"
_OTHER_BYTES = "wrong-digest", "holds other bytes than its digest says"


def _nobody(_: int) -> None:
    pass


def bring_blob(
    source: Layout,
    target: Layout,
    digest: Digest,
    size: int | None,
    *,
    proves: bool = False,
    on_copied: Callable[[int], None] = _nobody,
) -> Brought:
    """Have a blob of one layout in another one too; how it came, or "there": it was whole already.

    size: bytes, None if unknown. What lies under its name and is no such blob is replaced. Blobs of
    at most PROVEN_BYTES are hashed, and what is copied; of others that are linked or there the
    length is believed, but for proves: then what is linked is hashed as well. A file that the owner
    of the target could not read is copied. The name is on the disk after sync_blobs. on_copied:
    told of the bytes of each step of a copy; what it raises ends the copy.

    The caller holds kitcache.lock of both, whose directories have been opened. Raises Damaged where
    the source has no such blob (missing, torn, not-a-file, wrong-digest, unreadable), KitcacheError
    (disk full, read-only): then what was there before is there, and nothing is left of a copy.
    """
    if find_blob(target, digest, size or 0) is not None:
        return "there"
    with _open_source(source, digest, size, proves=proves) as file:
        bringing = _Bringing(source, target, digest, file, room_for_blobs(target, digest.algorithm))
        try:
            if bringing.link():
                return "linked"
        except OSError as error:
            raise io_error(target.path, "cannot link a blob", error) from None
        bringing.copy(on_copied)
        return "copied"


def _open_source(source: Layout, digest: Digest, size: int | None, *, proves: bool) -> BinaryIO:
    fd = source.open_blob(digest)
    if fd is None:
        is_missing = source.stat_blob(digest) is None
        kind, problem = ("missing", "is missing") if is_missing else _NOT_A_FILE
        raise _damaged(source, digest, kind, problem)
    file = open(fd, "rb")  # noqa: SIM115 - the caller's, if it is what it should be
    try:
        length = os.fstat(fd).st_size
        if size is not None and length != size:
            verb = "is cut short" if length < size else "is too long"
            raise _damaged(source, digest, "torn", f"{verb} ({length:,} of {size:,} bytes)")
        if proves or length <= PROVEN_BYTES:
            found = hashlib.file_digest(file, digest.algorithm)
            if found.hexdigest() != digest.hex:
                raise _damaged(source, digest, *_OTHER_BYTES)
            file.seek(0)
    except OSError as error:
        file.close()
        raise _damaged(source, digest, "unreadable", f"cannot be read: {error.strerror}") from None
    except BaseException:
        file.close()
        raise
    return file


class _Bringing(NamedTuple):
    """One blob on its way. file: the source's, opened. room: blobs/<algorithm>/ of the target."""

    source: Layout
    target: Layout
    digest: Digest
    file: BinaryIO
    room: int

    def link(self) -> bool:
        """Whether that very file has the blob's name in the target now. Raises OSError."""
        name, origin = self.digest.hex, self.source.blobs[self.digest.algorithm]
        if not self._is_readable_there():
            return False
        try:
            try:
                os.link(name, name, src_dir_fd=origin, dst_dir_fd=self.room, follow_symlinks=False)
            except FileExistsError:
                return self._replace_by_link(origin)
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        if self._is_same(name, self.room):
            return True
        # Somebody has put something else in its place meanwhile: what was opened is copied.
        os.unlink(name, dir_fd=self.room)
        return False

    def _is_readable_there(self) -> bool:
        """Whether the owner of the target could read this very file; a copy can be read by all."""
        found = os.fstat(self.file.fileno())
        if found.st_mode & 0o444 == 0o444:
            return True
        users = users_of(self.target)
        needed = stat.S_IROTH
        if users.st_uid == found.st_uid:
            needed = stat.S_IRUSR
        elif users.st_gid == found.st_gid:
            needed = stat.S_IRGRP
        return users.st_uid == 0 or bool(found.st_mode & needed)

    def _replace_by_link(self, origin: int) -> bool:
        name, new = self.digest.hex, _new_name()
        with room_of(self.target) as own_fd:
            if own_fd is None:
                return False
            os.link(name, new, src_dir_fd=origin, dst_dir_fd=own_fd, follow_symlinks=False)
            try:
                if not self._is_same(new, own_fd):
                    return False
                os.rename(new, name, src_dir_fd=own_fd, dst_dir_fd=self.room)
            finally:
                _unlink(new, own_fd)
        return True

    def _is_same(self, name: str, directory: int) -> bool:
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return os.path.samestat(named, os.fstat(self.file.fileno()))

    def copy(self, on_copied: Callable[[int], None]) -> None:
        """The bytes, proven while they are written, under the blob's name in the target."""
        with need_room(self.target) as own_fd:
            new = _new_name()
            try:
                with open(os.open(new, _COPY_FLAGS, 0o600, dir_fd=own_fd), "wb", 0) as copy:
                    self._write_proven(copy, on_copied)
                    give_owner(copy.fileno(), users_of(self.target))
                    os.fchmod(copy.fileno(), 0o444)
                    os.fsync(copy.fileno())
                os.rename(new, self.digest.hex, src_dir_fd=own_fd, dst_dir_fd=self.room)
            except OSError as error:
                raise io_error(self.target.path, "cannot write a blob", error) from None
            finally:
                _unlink(new, own_fd)

    def _write_proven(self, copy: RawIOBase, on_copied: Callable[[int], None]) -> None:
        seen = hashlib.new(self.digest.algorithm)
        while data := self._read():
            seen.update(data)
            view = memoryview(data)
            while view:
                view = view[copy.write(view) or 0 :]
            on_copied(len(data))
        if seen.hexdigest() != self.digest.hex:
            raise _damaged(self.source, self.digest, *_OTHER_BYTES)

    def _read(self) -> bytes:
        try:
            return self.file.read(_CHUNK_BYTES)
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            raise _damaged(self.source, self.digest, "unreadable", problem) from None


def _new_name() -> str:
    return f"{NEW_BLOB}.{os.urandom(8).hex()}"


def _unlink(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _damaged(source: Layout, digest: Digest, kind: str, problem: str) -> Damaged:
    return Damaged(
        source.path, f"blob {digest.short} {problem}", kind=kind, untouched=NOTHING_CHANGED
    )
