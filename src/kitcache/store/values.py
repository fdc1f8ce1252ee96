"""The values of the storage seam: what stores return and take. They hold no file or connection."""

from collections.abc import (
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, Protocol, TypeVar

from kitcache.oci.digest import Digest

if TYPE_CHECKING:
    from kitcache.oci.index import IndexEntry

BATCH_SIZE = 512
"""How many names a Batch of a directory has; the last Batch of an algorithm has fewer."""

STRUCTURAL_LIMIT_BYTES = 64 * 1024 * 1024
"""A larger index, manifest or cacheconfig is refused. BuildKit imports at most 1 MiB."""

LockKind = Literal["shared", "exclusive"]

IndexChange = Callable[[bytes | None], bytes]
"""Makes the new index document from the current one, which is None if it is missing."""

StoreT_co = TypeVar("StoreT_co", covariant=True)


class StoredTimes(Protocol):
    """The facts of a listing. An os.stat_result has them, so no object per blob is created."""

    @property
    def st_size(self) -> int:
        """The length of the blob in bytes."""

    @property
    def st_mtime_ns(self) -> int:
        """When the blob was written."""

    @property
    def st_ctime_ns(self) -> int:
        """When the blob, its name or its mode changed last. No client can choose it."""

    @property
    def st_nlink(self) -> int:
        """0 if another process is deleting the blob."""


class BlobStat(NamedTuple):
    """The stat of a blob's name, which need not belong to a file. No symlink is followed.

    Attributes:
        size: In bytes.
        mtime_ns: When it was written.
        ctime_ns: When it, its name or its mode changed last. No client can choose it.
        names: The number of its hard links. If it is more than one, deletion frees no space.

    """

    size: int
    mtime_ns: int
    ctime_ns: int
    kind: Literal["file", "symlink", "other"]
    names: int


class Batch(NamedTuple):
    """Some names of one algorithm.

    Attributes:
        names: The hex digits of regular files, each of the length that the algorithm has. An object
            store with versions adds superseded versions, as `<hex>@<version>`: no plan keeps them.
        foreign: The paths, relative to the cache, of everything else.
        stats: The facts of each name, if the listing has them; a dry run uses them.

    """

    algorithm: str
    names: list[str]
    foreign: list[str]
    stats: Sequence[StoredTimes] | None = None


class Roots(NamedTuple):
    """The roots of a cache at one moment, as an OCI index document.

    A store whose roots are objects builds the document from them, one entry for each root. If such
    a root is not a blob (S3's `manifests/<name>`), the store's read_blob and stat_blob answer for
    its digest, and scan_blobs does not list it.

    Attributes:
        data: None if there is no document.
        version: Equal versions have equal entries.
        changed_ns: When the roots were written last, 0 if there are none.
        entries: The entries of `data`, in order. A caller replaces them to survey other roots.

    """

    data: bytes | None
    version: Digest
    changed_ns: int
    entries: "tuple[IndexEntry, ...]"


class Ingest(NamedTuple):
    """An upload that is running or unfinished.

    Attributes:
        writes_ns: When its directory and its files were written last, sorted.
        bytes: The sum of the sizes of its files.
        is_marked: A reset that was killed had begun to delete it, so its times are meaningless.
        is_protected: The minimum age protects its export, so it does not make the cache busy: a
            multipart upload to an object store.

    """

    name: str
    writes_ns: tuple[int, ...]
    bytes: int
    is_marked: bool = False
    is_protected: bool = False


class WriterActivity(NamedTuple):
    """Recent writes of clients that hold none of kitcache's locks. Empty for an object store.

    Attributes:
        ingests: BuildKit's uploads, by name.
        other_writes_ns: When the uploads of other clients, such as oras, were written.
        changed_ns: When an upload last began or ended, 0 if that is unknown.

    """

    ingests: tuple[Ingest, ...] = ()
    other_writes_ns: tuple[int, ...] = ()
    changed_ns: int = 0


class TagUse(NamedTuple):
    """When a tag was last exported and imported, in ns since 1970; None if never.

    Attributes:
        digest: The manifest of the last export, None if unknown.
    """

    exported_ns: int | None = None
    imported_ns: int | None = None
    digest: str | None = None

    @property
    def used_ns(self) -> int:
        """The later of both times, 0 if there is none."""
        return max(self.exported_ns or 0, self.imported_ns or 0)


class DeleteResult(NamedTuple):
    """The result of a deletion: the names that are in neither field were deleted.

    Attributes:
        missing: The names that did not exist.
        failures: The names that could not be deleted, with the reason.

    """

    missing: Collection[str] = ()
    failures: Mapping[str, str] = {}


class Remembered(NamedTuple):
    """The blobs to keep because of earlier runs, whether a root reaches them now or not.

    Attributes:
        names: The hex digits of blobs that were live lately, by algorithm.
        keeps_all: No blob is deleted, because no run is known that is old enough.
    """

    names: Mapping[str, Collection[str]] = {}
    keeps_all: bool = False


NOTHING_REMEMBERED = Remembered()


class RequestCounts(NamedTuple):
    """How many requests were sent to an object store, retries included."""

    list: int = 0
    get: int = 0
    head: int = 0
    put: int = 0
    copy: int = 0
    delete: int = 0


class StoreReport(NamedTuple):
    """Facts for the result of a command. Empty for a directory.

    Attributes:
        requests: None for a directory.
        warnings: Sentences about the store or its last runs.
    """

    requests: RequestCounts | None = None
    warnings: tuple[str, ...] = ()


NO_REPORT = StoreReport()


class LockHolder(NamedTuple):
    """The process that holds a lock. A field is None if it is unknown.

    Attributes:
        command: The program, and its subcommand if that is a known one; never an argument.

    """

    pid: int | None
    command: str | None


class Waiting(NamedTuple):
    """An event: a call waits for another process.

    Attributes:
        waiting_for: The name of the lock; "export" for the tag of an upload that has just ended;
            "roots" for those of exports to an object store; "answer" for an object store.
        seconds: How long it waits at most.

    """

    path: str
    waiting_for: str
    holder: LockHolder
    seconds: float


class WaitPolicy(NamedTuple):
    """How to wait for a lock.

    Attributes:
        pause: Waits that many seconds, or raises Cancelled.
        on_wait: Is called at most once per wait.

    """

    timeout_s: float
    pause: Callable[[float], None]
    on_wait: Callable[[Waiting], None]


class HeldLock(NamedTuple, Generic[StoreT_co]):
    """Proof that the caller holds kitcache.lock of `store`. Only a store's `lock` creates one.

    Attributes:
        fd: The lock file; -1 if the store has none.

    """

    store: StoreT_co
    kind: LockKind
    fd: int = -1
