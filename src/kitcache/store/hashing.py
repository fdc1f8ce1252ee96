"""Verification of blobs by reading their files.

A small file costs one open, one stat, one read and one close: there may be a hundred thousand.
"""

import errno
import os
import stat
from threading import Event
from typing import Literal, NamedTuple

from kitcache.oci.digest import Digest
from kitcache.store.ioerrors import check_blame, io_error
from kitcache.store.layout import FILE_FLAGS, Layout
from kitcache.store.verified import WrongDigest, read_parts

_SHOWN_DIGITS = 12
_NOT_REGULAR = "is not a regular file"


class Hashed(NamedTuple):
    """The length of a file in bytes, and its problem as a clause; "" if its digest matches."""

    size: int
    problem: str


Unhashed = Literal["gone", "large", "stopped"]
"""Why a blob was not hashed: it does not exist, it is too large, or `stop` was set."""


class BlobHasher:
    """Hashes blobs one after another in one thread, through one buffer.

    Attributes:
        bytes: The number of bytes read so far. Other threads may read it.
    """

    def __init__(self, layout: Layout, stop: Event, chunk_bytes: int) -> None:
        self._layout = layout
        self._stop = stop
        self._buffer = bytearray(chunk_bytes)
        self.bytes = 0

    def hash_blob(self, digest: Digest, *, largest: int | None = None) -> Hashed | Unhashed:
        """Hash a blob of a known algorithm whose directory is open. No symlink is followed.

        Args:
            largest: Do not hash a file with more bytes.

        Returns:
            Its length, 0 if unknown, and its problem. A file that cannot be read has a problem.

        Raises:
            KitcacheError: The process may not open more files.
        """
        try:
            fd = os.open(digest.hex, FILE_FLAGS, dir_fd=self._layout.blobs[digest.algorithm])
        except FileNotFoundError:
            return "gone"
        except OSError as error:
            check_blame(self._layout.path, error)
            return Hashed(0, _unreadable(error))
        try:
            return self._hash_open(fd, digest, largest)
        finally:
            os.close(fd)

    def _hash_open(self, fd: int, digest: Digest, largest: int | None) -> Hashed | Unhashed:
        size = 0
        try:
            file = os.fstat(fd)
            if not stat.S_ISREG(file.st_mode):
                return Hashed(0, _NOT_REGULAR)
            size = file.st_size
            if largest is not None and size > largest:
                return "large"
            return self._hash_file(fd, digest, size)
        except OSError as error:
            check_blame(self._layout.path, error)
            return Hashed(size, _unreadable(error))

    def _hash_file(self, fd: int, digest: Digest, size: int) -> Hashed | Unhashed:
        if size > len(self._buffer) and hasattr(os, "posix_fadvise"):
            # The kernel then doubles its read-ahead.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        try:
            for part in read_parts(fd, digest, size, self._buffer, to_end=False):
                self.bytes += len(part)
                if self._stop.is_set():
                    return "stopped"
        except WrongDigest as error:
            actual = f"{digest.algorithm}:{error.actual_hex[:_SHOWN_DIGITS]}"
            return Hashed(size, f"holds other bytes ({actual}…)" if size else "is empty")
        return Hashed(size, "")


def check_may_read(layout: Layout, digest: Digest) -> None:
    """Raise KitcacheError if the process lacks the permission to read a blob.

    Such a blob may be intact, but only another user can verify it.
    """
    try:
        os.close(os.open(digest.hex, FILE_FLAGS, dir_fd=layout.blobs[digest.algorithm]))
    except PermissionError as error:
        raise io_error(layout.path, f"cannot read blob {digest.short}", error) from None
    except OSError:
        pass


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _unreadable(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return _NOT_REGULAR
    return f"cannot be read: {error.strerror or error}"
