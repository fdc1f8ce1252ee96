"""Layout: a cache directory opened once. Files below it are opened relative to open directories.

DIR itself can be a symlink, which is resolved here once; below it no symlink is followed.
Source: OCI image-spec, image-layout.md.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self, TypeVar

from kitcache.errors import Damaged, KitcacheError, NotACache, Unreadable, Unsafe
from kitcache.oci.digest import HEX_LENGTHS, Digest
from kitcache.oci.document import count_values
from kitcache.oci.links import can_be_json
from kitcache.store.ioerrors import check_blame, io_error, size_problem, unreadable
from kitcache.store.values import STRUCTURAL_LIMIT_BYTES, BlobStat
from kitcache.store.verified import WrongDigest, read_all

STRUCTURAL_LIMIT_VALUES = 1_000_000
"""A document with more JSON values is refused: each takes up to half a kilobyte of memory."""

DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe waits for its other end.
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HEAD_BYTES = 4096
_LAYOUT_LIMIT_BYTES = 64 * 1024
_PART_BYTES = 1024 * 1024
_VERSION_WAIT_S = 2.0
_VERSION_PAUSE_S = 0.02


def blob_stat(status: os.stat_result) -> BlobStat:
    """Return a stat result as a BlobStat."""
    kind: Literal["file", "symlink", "other"] = "other"
    if stat.S_ISREG(status.st_mode):
        kind = "file"
    elif stat.S_ISLNK(status.st_mode):
        kind = "symlink"
    return BlobStat(status.st_size, status.st_mtime_ns, status.st_ctime_ns, kind, status.st_nlink)


L = TypeVar("L", bound="Layout")


class Layout:
    """An open cache directory. As a context manager it closes its directories.

    Attributes:
        path: As the caller named it, for messages.
        root_fd: The open directory.
        blobs: The open directory of each known algorithm, after open_directories().
        blobs_fd, ingest_fd: blobs/ and ingest/, after open_directories(); None if missing.
    """

    def __init__(self, path: str, root_fd: int) -> None:
        self.path = path
        self.root_fd = root_fd
        self.blobs: dict[str, int] = {}
        self.blobs_fd: int | None = None
        self.ingest_fd: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_directories()
        os.close(self.root_fd)

    def open_directories(self) -> None:
        """Open blobs/, blobs/<algorithm>/ and ingest/, again if they are open.

        Raises:
            Unsafe: One of them is a symlink or not a directory.
        """
        self._close_directories()
        self.blobs_fd = open_directory(self, "blobs", self.root_fd)
        if self.blobs_fd is not None:
            for algorithm in HEX_LENGTHS:
                fd = open_directory(self, algorithm, self.blobs_fd, "blobs/")
                if fd is not None:
                    self.blobs[algorithm] = fd
        self.ingest_fd = open_directory(self, "ingest", self.root_fd)

    def _close_directories(self) -> None:
        for fd in (*self.blobs.values(), self.blobs_fd, self.ingest_fd):
            if fd is not None:
                os.close(fd)
        self.blobs, self.blobs_fd, self.ingest_fd = {}, None, None

    def stat_blob(self, digest: Digest) -> BlobStat | None:
        """Return the stat of a blob's file, None if it is missing. Reads no content."""
        fd = self.blobs.get(digest.algorithm)
        if fd is None:
            return None
        try:
            return blob_stat(os.stat(digest.hex, dir_fd=fd, follow_symlinks=False))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise io_error(self.path, f"cannot stat blob {digest}", error) from None

    def open_blob(self, digest: Digest) -> int | None:
        """Open a blob's file without checking it. Return None if no regular file has its name.

        Raises:
            Unreadable: The file exists and cannot be opened.
            KitcacheError: The process may not open more files.
        """
        try:
            fd = self._open_blob(digest)
        except Damaged:
            return None
        try:
            is_regular = stat.S_ISREG(os.fstat(fd).st_mode)
        except OSError as error:
            os.close(fd)
            raise self._unreadable(digest, error) from None
        if is_regular:
            return fd
        os.close(fd)
        return None

    def read_blob(
        self,
        digest: Digest,
        size: int | None,
        *,
        unless_binary: bool = False,
    ) -> bytes | None:
        """Return a blob's bytes after checking its digest, and its size if one is given.

        Follows no symlink.

        Args:
            unless_binary: Return None, unchecked, if the first bytes cannot be JSON.

        Raises:
            Damaged: Kind missing, wrong-size, wrong-digest, not-a-file or unknown-algorithm.
            Unreadable: The file exists and cannot be read, so it may be intact.
            Unsafe: It has more than STRUCTURAL_LIMIT_BYTES, which are not read, or too many values.
            KitcacheError: The process may not open more files.
        """
        if not digest.is_known:
            raise self._damaged("unknown-algorithm", f"{digest.algorithm} cannot be checked here")
        fd = self._open_blob(digest)
        try:
            return self._read_open_blob(fd, digest, size, unless_binary)
        except OSError as error:
            raise self._unreadable(digest, error) from None
        finally:
            os.close(fd)

    def _open_blob(self, digest: Digest) -> int:
        try:
            if digest.algorithm not in self.blobs:
                raise FileNotFoundError
            return os.open(digest.hex, FILE_FLAGS, dir_fd=self.blobs[digest.algorithm])
        except FileNotFoundError:
            raise self._damaged("missing", "is missing") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise self._damaged("not-a-file", "is not a regular file") from None
            raise self._unreadable(digest, error) from None

    def _read_open_blob(
        self, fd: int, digest: Digest, size: int | None, unless_binary: bool
    ) -> bytes | None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise self._damaged("not-a-file", "is not a regular file")
        if size is not None and status.st_size != size:
            raise self._damaged("wrong-size", size_problem(status.st_size, size))
        if unless_binary and not can_be_json(os.pread(fd, _HEAD_BYTES, 0)):
            return None
        if status.st_size > STRUCTURAL_LIMIT_BYTES:
            raise Unsafe(
                self.path,
                f"is larger than an index, manifest or cacheconfig may be"
                f" ({status.st_size:,} of at most {STRUCTURAL_LIMIT_BYTES:,} bytes)",
            )
        try:
            data = read_all(fd, digest, status.st_size)
        except WrongDigest as error:
            raise self._damaged("wrong-digest", error.problem) from None
        excess = excess_values(data)
        if excess:
            raise Unsafe(
                self.path, f"has more values than an index, manifest or cacheconfig may ({excess})"
            )
        return data

    def _damaged(self, kind: str, problem: str) -> Damaged:
        return Damaged(self.path, problem, kind=kind)

    def _unreadable(self, digest: Digest, error: OSError) -> Unreadable:
        """Return Unreadable; raise KitcacheError if a resource is missing (see check_blame)."""
        check_blame(self.path, error)
        return unreadable(self.path, f"blob {digest.short}", error)


def open_checked(open_as: type[L], name: str, check: Callable[[Layout], None]) -> L:
    """Open the directory at that path. Raises NotACache and the exceptions of `check`."""
    try:
        root_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotACache(name, "no such directory") from None
    except NotADirectoryError:
        raise NotACache(name, "it is not a directory") from None
    except OSError as error:
        raise io_error(name, "cannot be opened", error) from None
    except ValueError as error:
        raise NotACache(name, str(error)) from None
    layout = open_as(name, root_fd)
    try:
        check(layout)
    except BaseException:
        layout.__exit__(None, None, None)
        raise
    return layout


def open_directory(layout: Layout, name: str, parent: int, prefix: str = "") -> int | None:
    """Open a directory below DIR. Return None if there is none.

    Args:
        prefix: The path of the parent, for messages.

    Raises:
        Unsafe: It is a symlink or not a directory.
    """
    try:
        return os.open(name, DIR_FLAGS, dir_fd=parent)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        try:
            is_symlink = stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except OSError:  # It was replaced, or deleted, since.
            is_symlink = False
        raise Unsafe(
            layout.path,
            f"{prefix}{name} is {'a symbolic link' if is_symlink else 'not a directory'}",
            details=("other caches may share its target",) if is_symlink else (),
            hints=(f"put a real directory in place of {prefix}{name}",),
        ) from None
    except OSError as error:
        raise io_error(layout.path, f"cannot open {prefix}{name}", error) from None


def open_file(layout: Layout, name: str) -> int | None:
    """Open a regular file directly below DIR. Return None if there is none.

    Raises:
        Unsafe: It is a symlink, a pipe or a directory.
    """
    try:
        fd = os.open(name, FILE_FLAGS, dir_fd=layout.root_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        try:
            status = os.stat(name, dir_fd=layout.root_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError:
            raise io_error(layout.path, f"cannot open {name}", error) from None
        if stat.S_ISREG(status.st_mode):
            raise io_error(layout.path, f"cannot open {name}", error) from None
        raise _not_regular(layout, name, status.st_mode) from None
    try:
        mode = look_at_open(layout, fd, name).st_mode
    except KitcacheError:
        os.close(fd)
        raise
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise _not_regular(layout, name, mode)
    return fd


def excess_values(data: bytes) -> str:
    """Return a clause if these bytes have too many JSON values, else ""."""
    if len(data) <= STRUCTURAL_LIMIT_VALUES or not can_be_json(data[:_HEAD_BYTES]):
        return ""
    count = count_values(data)
    if count <= STRUCTURAL_LIMIT_VALUES:
        return ""
    return f"up to {count:,} of at most {STRUCTURAL_LIMIT_VALUES:,}"


def read_at_most(fd: int, most_bytes: int) -> bytes:
    """Read the rest of a file, or a little more than most_bytes of it. Raises OSError.

    Memory grows with the size of the file, not with the limit.
    """
    parts, length = [], 0
    while length <= most_bytes and (part := os.read(fd, _PART_BYTES)):
        parts.append(part)
        length += len(part)
    return b"".join(parts)


def _not_regular(layout: Layout, name: str, mode: int) -> Unsafe:
    thing = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
    return Unsafe(layout.path, f"{name} is {thing}", hints=(f"put a real {name} in its place",))


def is_bare(layout: Layout) -> bool:
    """Return True if there is neither an oci-layout nor an index.json."""
    return _read_version(layout) is None and look_at(layout, "index.json") is None


def check_version(layout: Layout) -> None:
    """Raise NotACache for a bare directory, Unsafe for an unknown version."""
    version = _read_version(layout)
    deadline = time.monotonic() + _VERSION_WAIT_S
    # BuildKit overwrites the file in place with each tag that it publishes.
    while version == "" and _is_fresh(layout) and time.monotonic() < deadline:
        time.sleep(_VERSION_PAUSE_S)
        version = _read_version(layout)
    if version is None:
        if look_at(layout, "index.json") is None:
            raise NotACache(layout.path, "it has neither oci-layout nor index.json")
    elif version.split(".")[0] != "1":
        state = f"of version {version!r}" if version else "unreadable"
        hint = 'restore it from a copy: {"imageLayoutVersion":"1.0.0"}'
        raise Unsafe(
            layout.path,
            f"oci-layout is {state}; known is 1.0.0",
            hints=("use a version of kitcache that supports it" if version else hint,),
        )


def _read_version(layout: Layout) -> str | None:
    """Return the version in oci-layout; "" if it cannot be parsed, None if there is no file."""
    fd = open_file(layout, "oci-layout")
    if fd is None:
        return None
    with open(fd, "rb") as file:
        try:
            data = file.read(_LAYOUT_LIMIT_BYTES)
        except OSError as error:
            raise unreadable(layout.path, "oci-layout", error) from None
    try:
        version = json.loads(data)["imageLayoutVersion"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return version if isinstance(version, str) else ""


def _is_fresh(layout: Layout) -> bool:
    """Return True if oci-layout may be half-written: it was changed less than two seconds ago."""
    status = look_at(layout, "oci-layout")
    return status is None or abs(time.time() - status.st_mtime) < _VERSION_WAIT_S


def look_at_open(layout: Layout, fd: int, name: str) -> os.stat_result:
    """Return the stat of an open file. Raises KitcacheError with its name."""
    try:
        return os.fstat(fd)
    except OSError as error:
        raise io_error(layout.path, f"cannot stat {name}", error) from None


def look_at(layout: Layout, name: str) -> os.stat_result | None:
    """Return the stat of a name directly below DIR, None if it is missing."""
    try:
        return os.stat(name, dir_fd=layout.root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise io_error(layout.path, f"cannot stat {name}", error) from None
