"""Uploads: ingest/<name>/ while a blob is written, blobs/<algorithm>/<hex> when it is complete.

An upload has the files of containerd's content store (plugins/content/local), so every reset sees
it. Unlike in containerd its name is unique, so two exports of one layer do not collide. A blob is
synced before it gets its name; sync_blobs makes all names durable before index.json is replaced.
"""

import hashlib
import os
import time
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from kitcache.errors import NOTHING_CHANGED, KitcacheError, Unreadable
from kitcache.oci.digest import Digest
from kitcache.store.files import copy_owner, make_directory, reference_stat
from kitcache.store.index import date_index
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import DIR_FLAGS, NEW_FILE_FLAGS, Layout
from kitcache.store.scan import uploads_changed_ns
from kitcache.store.verified import WrongDigest, verify

if TYPE_CHECKING:
    from kitcache.store.directory import DirectoryStore

ALWAYS_HASHED_BYTES = 1024 * 1024
"""An existing blob of at most this length is hashed before it is used."""

_FILES = ("ref", "startedat", "updatedat", "total", "data")
_REFRESH_S = 10.0


class DigestMismatch(Exception):
    """An upload has another size or digest than its client stated. The message is containerd's."""


class IngestStatus(NamedTuple):
    """The progress of an upload.

    Attributes:
        offset: The bytes that were written.
        total: 0 if unknown.
    """

    ref: str
    offset: int
    total: int
    started_ns: int
    updated_ns: int


class Ingester:
    """Adds blobs to one cache. Creates ingest/ and blobs/ if they are missing.

    Callable from several threads. It opens its own directories. It closes them after close(), once
    the last upload has ended.

    Raises:
        Unsafe: One of the directories is a symlink.
        KitcacheError: One cannot be created.
    """

    def __init__(self, store: "DirectoryStore") -> None:
        self._reference = reference_stat(store)
        self.layout = store.reopen()
        self._lock = Lock()
        self._running = 0
        self._uploads: set[BlobWriter] = set()
        self._own_change_ns: int | None = None
        self._is_closed = False
        try:
            self.layout.open_directories()
            self._open_missing()
        except BaseException:
            self.layout.__exit__(None, None, None)
            raise

    def _open_missing(self) -> None:
        layout = self.layout
        if layout.ingest_fd is None:
            layout.ingest_fd = make_directory(layout, "ingest", layout.root_fd)
        self.algorithm_fd("sha256")

    def copy_owner(self, fd: int) -> None:
        """Give a new file the owner and group of the cache, as far as the caller may."""
        copy_owner(fd, self._reference)

    def algorithm_fd(self, algorithm: str) -> int:
        """Return the fd of blobs/<algorithm>/."""
        with self._lock:
            return open_algorithm(self.layout, algorithm)

    def find(self, digest: Digest, size: int) -> int | None:
        """Return the length of a complete blob, and set its time to now; None if it is missing.

        The new time protects the blobs that this export reuses from a sweep by age. A blob of
        another user keeps its time. See find_blob.
        """
        length = find_blob(self.layout, digest, size)
        if length is not None:
            with suppress(OSError):
                fd = self.layout.blobs[digest.algorithm]
                os.utime(digest.hex, dir_fd=fd, follow_symlinks=False)
        return length

    def begin(self, ref: str, algorithm: str, total: int) -> "BlobWriter":
        """Begin an upload. Raises KitcacheError; ingest/ has no file of the upload then."""
        with self._lock:
            if self._is_closed:
                raise KitcacheError(
                    self.layout.path, "the export has ended", effect=NOTHING_CHANGED
                )
            self._running += 1
        try:
            upload = BlobWriter(self, ref, algorithm, total)
        except BaseException:
            self.end_upload(None)
            raise
        with self._lock:
            self._uploads.add(upload)
            if self.is_closed:
                upload.discard()
        return upload

    def end_upload(self, upload: "BlobWriter | None") -> None:
        """Record that an upload has ended; None for an upload that could not begin."""
        with self._lock:
            if upload is not None:
                self._uploads.discard(upload)
            self._running -= 1
            self._own_change_ns = self._uploads_changed_ns()
            is_last = self._is_closed and not self._running
        if is_last:
            self.layout.__exit__(None, None, None)

    def put(self, ingest_fd: int, digest: Digest) -> None:
        """Rename an upload's data to its blob's name below blobs/. Raises OSError."""
        target_fd = self.algorithm_fd(digest.algorithm)
        os.rename("data", digest.hex, src_dir_fd=ingest_fd, dst_dir_fd=target_fd)

    def close(self) -> None:
        """Refuse new uploads; delete those that are running, so that their next step fails."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            # The process may end before the threads of these uploads can delete them.
            for upload in self._uploads:
                upload.discard()
            if self._uploads:
                self._own_change_ns = self._uploads_changed_ns()
            changed_ns = self._uploads_changed_ns()
            if changed_ns is not None and changed_ns == self._own_change_ns:
                # Only this process wrote to ingest/, so no reset has to wait for an export.
                date_index(self.layout)
            is_last = not self._running
        if is_last:
            self.layout.__exit__(None, None, None)

    def _uploads_changed_ns(self) -> int | None:
        """Return when names in ingest/ changed last, None if that is unknown."""
        with suppress(KitcacheError):
            return uploads_changed_ns(self.layout)
        return None

    @property
    def is_closed(self) -> bool:
        """Return True if no upload can continue."""
        return self._is_closed


def open_algorithm(layout: Layout, algorithm: str) -> int:
    """Return the fd of blobs/<algorithm>/; create it with the cache's owner and mode if missing.

    The caller has opened the layout's directories. Raises Unsafe, KitcacheError.
    """
    if layout.blobs_fd is None:
        layout.blobs_fd = make_directory(layout, "blobs", layout.root_fd)
    fd = layout.blobs.get(algorithm)
    if fd is None:
        fd = make_directory(layout, algorithm, layout.blobs_fd, "blobs/")
        layout.blobs[algorithm] = fd
    return fd


def find_blob(layout: Layout, digest: Digest, size: int) -> int | None:
    """Return the length of a complete blob, None if there is none.

    Args:
        size: Expected length, 0 if unknown. A blob of at most ALWAYS_HASHED_BYTES or of unknown
            size is hashed; for other blobs only the length is compared.
    """
    try:
        fd = layout.open_blob(digest)
        if fd is None:
            return None
        with open(fd, "rb"):
            length = os.fstat(fd).st_size
            if size > 0 and length != size:
                return None
            if size > 0 and length > ALWAYS_HASHED_BYTES:
                return length
            verify(fd, digest, length)
            return length
    except (Unreadable, WrongDigest, OSError):  # A new blob replaces it.
        return None


class BlobWriter:
    """One upload, used by one thread. After commit or abort it has no file in ingest/.

    A message costs one write call. `updatedat` is renewed every ten seconds.
    """

    def __init__(self, ingester: Ingester, ref: str, algorithm: str, total: int) -> None:
        self._ingester = ingester
        self._path = ingester.layout.path
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._name = hashlib.sha256(ref.encode("utf-8", "replace") + os.urandom(16)).hexdigest()
        self._fd: int | None = None
        self._data_fd: int | None = None
        self._is_over = False
        self._renew_s = time.monotonic() + _REFRESH_S
        now_ns = time.time_ns()
        self.progress = IngestStatus(ref, 0, max(total, 0), now_ns, now_ns)
        try:
            self._open(ref)
        except OSError as error:
            self._clear()
            raise io_error(self._path, "cannot begin an upload in ingest/", error) from None

    def _open(self, ref: str) -> None:
        parent = self._ingester.layout.ingest_fd
        os.mkdir(self._name, 0o755, dir_fd=parent)
        self._fd = os.open(self._name, DIR_FLAGS, dir_fd=parent)
        self._ingester.copy_owner(self._fd)
        stamp = _rfc3339(self.progress.started_ns)
        self._write_file("ref", ref.encode("utf-8", "replace"))
        self._write_file("startedat", stamp)
        self._write_file("updatedat", stamp)
        if self.progress.total:
            self._write_file("total", b"%d" % self.progress.total)
        self._data_fd = self._create("data")

    def _create(self, name: str) -> int:
        fd = os.open(name, NEW_FILE_FLAGS, 0o644, dir_fd=self._fd)
        self._ingester.copy_owner(fd)
        return fd

    def _write_file(self, name: str, data: bytes) -> None:
        fd = self._create(name)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def write(self, data: bytes | memoryview) -> None:
        """Append data. A KitcacheError (disk full, export ended) aborts the upload."""
        try:
            self._write_all(memoryview(data))
            self._hash.update(data)
            now_s = time.monotonic()
            if now_s >= self._renew_s:
                self._renew_s = now_s + _REFRESH_S
                self._renew()
        except OSError as error:
            self.abort()
            raise io_error(self._path, "cannot write a blob", error) from None
        self.progress = self.progress._replace(
            offset=self.progress.offset + len(data), updated_ns=time.time_ns()
        )

    def _write_all(self, view: memoryview) -> None:
        fd = self._data()
        while view:
            view = view[os.write(fd, view) :]

    def _data(self) -> int:
        if self._data_fd is None or self._ingester.is_closed:
            raise OSError(0, "the upload was ended")
        return self._data_fd

    def _renew(self) -> None:
        fd = os.open("updatedat", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            os.pwrite(fd, _rfc3339(time.time_ns()), 0)
        finally:
            os.close(fd)

    def truncate(self) -> None:
        """Discard the written bytes. If it raises KitcacheError, it aborts the upload."""
        try:
            fd = self._data()
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
        except OSError as error:
            self.abort()
            raise io_error(self._path, "cannot begin a blob again", error) from None
        self._hash = hashlib.new(self._algorithm)
        self.progress = self.progress._replace(offset=0)

    def commit(self, total: int, expected: Digest | None) -> tuple[Digest, bool]:
        """Sync the blob and give it its name. Delete its files in ingest/, also after an error.

        Args:
            total: Its length, 0 if unknown.

        Returns:
            Its digest, and False if the cache has the blob already.

        Raises:
            DigestMismatch: It has another size or digest.
            KitcacheError: Disk full, read-only, export ended.
        """
        try:
            digest = self._verify(total, expected)
            if self._ingester.find(digest, self.progress.offset) is not None:
                return digest, False
            fd = self._data()
            os.fsync(fd)
            os.fchmod(fd, 0o444)
            if self._fd is None:
                raise OSError(0, "the upload was ended")
            self._ingester.put(self._fd, digest)
        except OSError as error:
            raise io_error(self._path, "cannot put a blob in its place", error) from None
        finally:
            self.abort()
        return digest, True

    def _verify(self, total: int, expected: Digest | None) -> Digest:
        length = self.progress.offset
        if total > 0 and total != length:
            raise DigestMismatch(f"unexpected commit size {length}, expected {total}")
        digest = Digest(self._algorithm, self._hash.hexdigest())
        if expected is not None and expected != digest:
            raise DigestMismatch(f"unexpected commit digest {digest}, expected {expected}")
        return digest

    def abort(self) -> None:
        """Delete it from ingest/. Idempotent."""
        if not self._is_over:
            self._clear()
            self._ingester.end_upload(self)

    def discard(self) -> None:
        """Delete its files, from any thread. Its own thread closes its open files."""
        parent = self._ingester.layout.ingest_fd
        with suppress(OSError):
            fd = os.open(self._name, DIR_FLAGS, dir_fd=parent)
            for name in _FILES:
                with suppress(OSError):
                    os.unlink(name, dir_fd=fd)
            os.close(fd)
            os.rmdir(self._name, dir_fd=parent)

    def _clear(self) -> None:
        self._is_over = True
        for name in _FILES if self._fd is not None else ():
            with suppress(OSError):
                os.unlink(name, dir_fd=self._fd)
        with suppress(OSError):
            os.rmdir(self._name, dir_fd=self._ingester.layout.ingest_fd)
        for fd in (self._data_fd, self._fd):
            if fd is not None:
                os.close(fd)
        self._fd = self._data_fd = None


def _rfc3339(ns: int) -> bytes:
    """Return a text of a fixed length, so that a later time can overwrite it."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9))
    return f"{stamp}.{ns % 10**9:09d}Z".encode()
