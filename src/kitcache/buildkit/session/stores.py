"""What a daemon may read from, and write to, while a build runs: one cache directory a store.

A store knows what it was really given, which is what index.json will name.
"""

import os
from threading import Lock
from typing import NamedTuple

from kitcache.errors import KitcacheError, printable
from kitcache.gc.values import Tally
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.directory import DirectoryStore
from kitcache.store.ingest import BlobWriter, Ingester, IngestStatus


class BlobFile(NamedTuple):
    """A blob that can be read. fd: the caller closes it. size: bytes; written_ns: since 1970."""

    fd: int
    size: int
    written_ns: int


class UploadInProgress(Exception):
    """Another stream is writing that ref."""


class ExistingBlob(NamedTuple):
    """The blob is here already. size: bytes."""

    digest: Digest
    size: int


class RootBlob(NamedTuple):
    """A blob under which others are: a manifest, an index. size: bytes."""

    digest: Digest
    size: int


class ContentStore:
    """One layout, to read from: blobs by their digest, and nothing else.

    read: the blobs whose bytes were asked for, not only whether they are there.
    """

    def __init__(self, layout: DirectoryStore) -> None:
        self._layout = layout
        self.read: set[Digest] = set()

    def open_blob(self, digest: Digest) -> BlobFile | None:
        """A blob's file, None where no regular file has its name. Raises Unreadable."""
        fd = self._layout.open_blob(digest)
        if fd is None:
            return None
        found = os.fstat(fd)
        return BlobFile(fd, found.st_size, found.st_mtime_ns)


class WritableContentStore(ContentStore):
    """One layout, to write one export to.

    What was really written or found is counted, and the last blob whose ref is a bare digest is
    the root: BuildKit sends layers, then config, then manifest, and calls only the last two so. Of
    an image it is the last manifest or index, which have refs of their own kind.
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
        """The last blob that came, or was here, as what others are under."""
        return self._root

    @property
    def written(self) -> Tally:
        """What came and was not here before."""
        with self._lock:
            return Tally(len(self._written), sum(self._written.values()))

    @property
    def reused(self) -> Tally:
        """What was asked for and was here already."""
        with self._lock:
            sizes = [n for digest, n in self._reused.items() if digest not in self._written]
        return Tally(len(sizes), sum(sizes))

    @property
    def failure(self) -> KitcacheError | None:
        """The first thing that went wrong on the disk, None where nothing did."""
        return self._failure

    def progress(self) -> tuple[IngestStatus, ...]:
        """The uploads under way."""
        with self._lock:
            return tuple(incoming.progress for incoming in self._incoming.values())

    def begin(self, ref: str, total: int, expected: Digest | None) -> "IncomingBlob | ExistingBlob":
        """A new upload; Present where the blob is here whole.

        Raises BeingWritten while another stream has that ref, KitcacheError for the disk's faults.
        """
        incoming = IncomingBlob(self, ref)
        with self._lock:
            if ref in self._incoming:
                raise UploadInProgress
            self._incoming[ref] = incoming
        try:
            size = None if expected is None else self._intake.find(expected, total)
            if expected is not None and size is not None:
                self._note_reused(ref, expected, size)
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
        """Make an upload fail at its next step; False where none has that ref."""
        with self._lock:
            incoming = self._incoming.get(ref)
        if incoming is None:
            return False
        incoming.is_aborted = True
        return True

    def forget(self, ref: str) -> None:
        """An upload is over: its ref is free."""
        with self._lock:
            self._incoming.pop(ref, None)

    def record_failure(self, error: BaseException) -> None:
        """Remember the first failure of the disk."""
        if isinstance(error, KitcacheError) and self._failure is None:
            self._failure = error

    def record_commit(self, ref: str, digest: Digest, size: int, *, is_new: bool) -> None:
        """A blob has come whole."""
        if not is_new:
            self._note_reused(ref, digest, size)
            return
        with self._lock:
            self._written[digest] = size
            self._note_root(ref, digest, size)

    def _note_reused(self, ref: str, digest: Digest, size: int) -> None:
        with self._lock:
            self._reused[digest] = size
            self._note_root(ref, digest, size)

    def _note_root(self, ref: str, digest: Digest, size: int) -> None:
        if ref in (str(digest), f"manifest-{digest}", f"index-{digest}"):
            self._root = RootBlob(digest, size)


class IncomingBlob:
    """An upload into an export store, used by one thread; `close` ends it, however it went."""

    upload: BlobWriter

    def __init__(self, store: WritableContentStore, ref: str) -> None:
        self._store = store
        self._ref = ref
        self.is_aborted = False

    @property
    def progress(self) -> IngestStatus:
        """How far it is."""
        upload = getattr(self, "upload", None)
        return upload.progress if upload else IngestStatus(self._ref, 0, 0, 0, 0)

    def write(self, data: memoryview) -> None:
        """Append. Raises KitcacheError."""
        try:
            self.upload.write(data)
        except KitcacheError as error:
            self._store.record_failure(error)
            raise

    def truncate(self) -> None:
        """Begin again without bytes. Raises KitcacheError."""
        self.upload.truncate()

    def commit(self, total: int, expected: Digest | None) -> tuple[Digest, bool]:
        """The digest, and whether the blob is new here. Raises Mismatch, KitcacheError."""
        size = self.progress.offset
        try:
            digest, is_new = self.upload.commit(total, expected)
        except KitcacheError as error:
            self._store.record_failure(error)
            raise
        self._store.record_commit(self._ref, digest, size, is_new=is_new)
        return digest, is_new

    def close(self) -> None:
        """Free the ref, and remove what was not committed."""
        self._store.forget(self._ref)
        self.upload.abort()


def read_digest(text: str) -> Digest:
    """A digest that can be checked here. Raises ValueError."""
    digest = parse_digest(text)
    if not digest.is_known:
        raise ValueError(f"{printable(text[:80])}: its algorithm cannot be checked here")
    return digest
