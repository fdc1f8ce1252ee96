"""The content stores of a build: each gives the daemon access to one cache directory.

A store records the blobs that it received, which index.json then names.
"""

import os
from threading import Lock
from typing import NamedTuple

from kitcache.errors import KitcacheError
from kitcache.gc.values import Tally
from kitcache.oci.digest import Digest
from kitcache.store.directory import DirectoryStore
from kitcache.store.ingest import BlobWriter, Ingester, IngestStatus


class BlobFile(NamedTuple):
    """An open blob, whose fd the caller closes; its size and modification time."""

    fd: int
    size: int
    written_ns: int


class UploadInProgress(Exception):
    """Another stream writes that ref."""


class ExistingBlob(NamedTuple):
    """A blob that exists already, and its size in bytes."""

    digest: Digest
    size: int


class RootBlob(NamedTuple):
    """The blob that references all others of an export, and its size in bytes."""

    digest: Digest
    size: int


class ContentStore:
    """Read access to the blobs of a layout by their digests.

    Attributes:
        read: The blobs whose bytes were requested.
    """

    def __init__(self, layout: DirectoryStore) -> None:
        self._layout = layout
        self.read: set[Digest] = set()

    def open_blob(self, digest: Digest) -> BlobFile | None:
        """Open a blob, None if no regular file has its name. Raises Unreadable."""
        fd = self._layout.open_blob(digest)
        if fd is None:
            return None
        stat = os.fstat(fd)
        return BlobFile(fd, stat.st_size, stat.st_mtime_ns)


class WritableContentStore(ContentStore):
    """Write access to a layout, for one export.

    Written and reused blobs are counted. The last blob whose ref is a bare digest is the root:
    BuildKit sends layers, config and manifest, and only the last two have such refs. For an image
    the root is the last manifest or index, whose refs begin with `manifest-` or `index-`.
    """

    def __init__(self, intake: Ingester) -> None:
        super().__init__(intake.layout)
        self._intake = intake
        self._lock = Lock()
        self._incoming: dict[str, IncomingBlob] = {}
        self._written: dict[Digest, int] = {}
        self._reused: dict[Digest, int] = {}
        self._root: RootBlob | None = None
        self._failure: KitcacheError | None = None

    @property
    def root(self) -> RootBlob | None:
        """The root of the export, None until it was received or found."""
        return self._root

    @property
    def written(self) -> Tally:
        """The blobs that were received and did not exist before."""
        with self._lock:
            return Tally(len(self._written), sum(self._written.values()))

    @property
    def reused(self) -> Tally:
        """The blobs that were requested and existed already."""
        with self._lock:
            sizes = [n for digest, n in self._reused.items() if digest not in self._written]
        return Tally(len(sizes), sum(sizes))

    @property
    def failure(self) -> KitcacheError | None:
        """The first error of the disk, None for none."""
        return self._failure

    def progress(self) -> tuple[IngestStatus, ...]:
        """Return the status of each running upload."""
        with self._lock:
            return tuple(incoming.progress for incoming in self._incoming.values())

    def begin(self, ref: str, total: int, expected: Digest | None) -> "IncomingBlob | ExistingBlob":
        """Start an upload, or return the ExistingBlob if the blob is complete.

        Raises UploadInProgress if another stream writes that ref, KitcacheError for disk errors.
        """
        incoming = IncomingBlob(self, ref)
        with self._lock:
            if ref in self._incoming:
                raise UploadInProgress
            self._incoming[ref] = incoming
        try:
            size = None if expected is None else self._intake.find(expected, total)
            if expected is not None and size is not None:
                self._record_reused(ref, expected, size)
                self.forget(ref)
                return ExistingBlob(expected, size)
            algorithm = expected.algorithm if expected else "sha256"
            incoming.upload = self._intake.begin(ref, algorithm, total)
        except BaseException as error:
            self.forget(ref)
            self.record_failure(error)
            raise
        return incoming

    def abort(self, ref: str) -> bool:
        """Make an upload fail at its next step. Return False if none has that ref."""
        with self._lock:
            incoming = self._incoming.get(ref)
        if incoming is None:
            return False
        incoming.is_aborted = True
        return True

    def forget(self, ref: str) -> None:
        """Release the ref of an upload that has ended."""
        with self._lock:
            self._incoming.pop(ref, None)

    def record_failure(self, error: BaseException) -> None:
        """Record the first error of the disk."""
        if isinstance(error, KitcacheError) and self._failure is None:
            self._failure = error

    def record_commit(self, ref: str, digest: Digest, size: int, *, is_new: bool) -> None:
        """Record a complete blob."""
        if not is_new:
            self._record_reused(ref, digest, size)
            return
        with self._lock:
            self._written[digest] = size
            self._set_root(ref, digest, size)

    def _record_reused(self, ref: str, digest: Digest, size: int) -> None:
        with self._lock:
            self._reused[digest] = size
            self._set_root(ref, digest, size)

    def _set_root(self, ref: str, digest: Digest, size: int) -> None:
        if ref in (str(digest), f"manifest-{digest}", f"index-{digest}"):
            self._root = RootBlob(digest, size)


class IncomingBlob:
    """An upload into a store, for one thread; `close` ends it, complete or not."""

    upload: BlobWriter

    def __init__(self, store: WritableContentStore, ref: str) -> None:
        self._store = store
        self._ref = ref
        self.is_aborted = False

    @property
    def progress(self) -> IngestStatus:
        """The status of the upload."""
        upload = getattr(self, "upload", None)
        return upload.progress if upload else IngestStatus(self._ref, 0, 0, 0, 0)

    def write(self, data: memoryview) -> None:
        """Append data. Raises KitcacheError."""
        try:
            self.upload.write(data)
        except KitcacheError as error:
            self._store.record_failure(error)
            raise

    def truncate(self) -> None:
        """Delete the data. Raises KitcacheError."""
        self.upload.truncate()

    def commit(self, total: int, expected: Digest | None) -> tuple[Digest, bool]:
        """Complete the blob; return its digest, and True if it did not exist before.

        Raises DigestMismatch, KitcacheError.
        """
        size = self.progress.offset
        try:
            digest, is_new = self.upload.commit(total, expected)
        except KitcacheError as error:
            self._store.record_failure(error)
            raise
        self._store.record_commit(self._ref, digest, size, is_new=is_new)
        return digest, is_new

    def close(self) -> None:
        """Release the ref, and delete an incomplete upload."""
        self._store.forget(self._ref)
        self.upload.abort()
