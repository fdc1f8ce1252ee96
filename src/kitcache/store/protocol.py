"""The storage seam: the protocols through which `gc` and `upkeep` read and change a cache.

`open_store(address)` of store/open.py returns a store. store/directory.py implements the protocols
for a directory, tests/contract/memory.py for a dictionary; every store passes tests/contract/. An
object store has no locks and no uploads, so only the age of a blob protects an export from a sweep
(`min_age_floor_ns`). A registry cannot list blobs, so it can be a CacheStore only.
"""

from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from kitcache.oci.digest import Digest
from kitcache.store.values import (
    Batch,
    BlobStat,
    DeleteResult,
    HeldLock,
    IndexChange,
    Ingest,
    LockKind,
    Remembered,
    Roots,
    StoredTimes,
    StoreReport,
    TagUse,
    WaitPolicy,
    WriterActivity,
)


class CacheStore(Protocol):
    """The methods that read a cache. Failures are KitcacheErrors.

    Attributes:
        path: As the caller named the cache, for messages.
        blobs_are_leaves: No blob references another blob; only roots do. True for object stores,
            where each root is a cacheconfig.
        roots_name: What contains the roots, for messages: index.json, or a prefix of keys.

    """

    path: str

    @property
    def blobs_are_leaves(self) -> bool: ...
    @property
    def roots_name(self) -> str: ...

    def refresh(self) -> None:
        """Open the current directories, or list the prefixes. Called before other reads."""

    def now_ns(self) -> int:
        """Return the time of the clock by which ages are measured, in ns since 1970."""

    def roots_stamp(self) -> Hashable | None:
        """Return a value that changes if the roots do, None without roots. Costs one stat call."""

    def read_roots(self, pause: Callable[[float], None]) -> Roots:
        """Read the roots. Retry if they are half-written.

        Raises:
            Damaged: They are invalid or ambiguous.

        """

    def read_blob(
        self, digest: Digest, size: int | None, *, unless_binary: bool = False
    ) -> bytes | None:
        """Return the bytes of a blob after checking its digest, and its size if one is given.

        Returns:
            None, unchecked, if unless_binary is set and the first bytes cannot be JSON.

        Raises:
            Damaged: Kind missing, wrong-size, wrong-digest, not-a-file or unknown-algorithm.
            Unreadable: The blob exists and cannot be read, so it may be intact.
            Unsafe: It is larger than a structural blob may be.

        """

    def stat_blob(self, digest: Digest) -> BlobStat | None:
        """Return the stat of a blob's name, None if it is missing. Reads no content."""

    def stat_blobs(self, digests: Collection[Digest]) -> Iterator[tuple[Digest, BlobStat]]:
        """Yield those of the blobs that exist, once, in any order. An object store lists."""

    def follow_symlink(self, digest: Digest) -> tuple[BlobStat | None, Digest | None]:
        """Return the stat of a symlink's target, and the digest that the target's name has.

        Each is None if there is none. No blob is deleted because of this result.
        """

    def scan_blobs(self) -> Iterator[Batch]:
        """Yield the names of all blobs. A name can be skipped while other names are deleted."""

    def writer_activity(self) -> WriterActivity:
        """Return the recent writes of clients that hold none of kitcache's locks."""

    def read_tag_uses(self) -> Mapping[str, TagUse]:
        """Return when each tag was exported and imported, as far as that was recorded.

        Raises:
            Unreadable: Records exist and cannot be read.

        """

    def read_layer_uses(self) -> Mapping[str, int]:
        """Return when imports read a blob last, in ns since 1970, by its digest.

        Raises:
            Unreadable: Records exist and cannot be read.

        """


class CollectableStore(CacheStore, Protocol):
    """A store that a sweep can delete from.

    As a context manager it closes its file descriptors or connections.

    Attributes:
        min_age_floor_ns: No younger blob is deleted, whatever the options are; `export_time_ns` of
            the options is added to it. 0 if locks protect an export, as in a directory.
        scans_completely: A scan during deletions skips no name that is not deleted.
        delete_batch_size: How many names one call of stat_names, then one of delete_names, gets.
        delete_threads: How many threads delete. Two for a directory, because unlink releases the
            GIL for long; a third would only contend for it.

    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @property
    def min_age_floor_ns(self) -> int: ...
    @property
    def scans_completely(self) -> bool: ...
    @property
    def delete_batch_size(self) -> int: ...
    @property
    def delete_threads(self) -> int: ...

    def lock(
        self, kind: LockKind, wait_policy: WaitPolicy
    ) -> AbstractContextManager[HeldLock[Self]]:
        """Hold the lock of the cache. A store without locks returns at once.

        Raises:
            Busy: It was not acquired within the timeout. Names the holder.

        """

    def reopen(self) -> AbstractContextManager[Self]:
        """Open the same cache once more, with file descriptors of its own."""

    def check_exists(self) -> None:
        """Raise KitcacheError if another process has deleted the cache itself."""

    def next_tick_ns(self, lock: HeldLock[Self]) -> int:
        """Return a time of the clock that dates blobs: no later change has an earlier time."""

    def recall(self, grace_ns: int) -> Remembered:
        """Return the blobs that earlier runs protect. Always empty for a directory.

        Args:
            grace_ns: The minimum age of a blob that is deleted.
        """

    def check_confirmed(self, live: Collection[Digest], *, confirmed: bool) -> None:
        """Raise NotConfirmed if only a confirmed run may delete. Never raises for a directory.

        Args:
            live: The blobs that roots reach now.
            confirmed: The user has confirmed the run.
        """

    def check_sweep(self, live: Collection[Digest], *, may_write: bool) -> None:
        """Test once whether a sweep is safe. Called before roots are edited for one.

        Args:
            live: The blobs that roots will reach.
            may_write: False for a dry run: then an object store does not test itself.

        Raises:
            Unsafe: The store cannot protect exports. Nothing was changed.
        """

    def prepare_sweep(self, live: Collection[Digest]) -> None:
        """Make the roots durable, whichever client wrote them. Called before the first deletion.

        An object store tests itself, and records `live`, the blobs that roots reach now; also in
        a run that is not confirmed, so that a later run keeps the blobs of running imports.

        Raises:
            Unsafe: The store cannot protect exports. Nothing was deleted.
        """

    def restore_blobs(self, digests: Collection[Digest]) -> Collection[Digest]:
        """Restore blobs that the current sweep has deleted. Return those that exist again.

        A directory and most object stores cannot. Azure can, with soft delete.
        """

    def touch_roots(self) -> None:
        """Set the time of the roots to now if possible, so that no reset waits for an export."""

    def stat_names(self, algorithm: str, names: Sequence[str]) -> Sequence[StoredTimes]:
        """Return the facts of each name as they are now, in order.

        An object store lists the names again. It returns facts with 0 links, and with a change in
        the far future, for a missing name.

        Raises:
            OSError: One of them is missing, or has no facts.

        """

    def delete_names(
        self,
        lock: HeldLock[Self],
        algorithm: str,
        names: Sequence[str],
        stats: Sequence[StoredTimes] = (),
    ) -> DeleteResult:
        """Delete blobs. Callable from several threads. Only gc.sweep calls it.

        Args:
            stats: The facts of each name, from stat_names; empty to delete whatever has the names.
                A store that can deletes a blob only if it still has these facts.

        Raises:
            ValueError: The lock is not the exclusive lock of this store. Nothing was deleted.

        """

    def delete_ingest(self, lock: HeldLock[Self], ingest: Ingest) -> bool:
        """Delete an upload. Return False if it is missing, or was written since the survey.

        Raises:
            ValueError: As delete_names.
            OSError: It, or a part of it, could not be deleted.

        """

    def foreign_names(self) -> Iterator[str]:
        """Yield paths, relative to the cache, that neither a client nor kitcache creates.

        Directories end in a slash. The foreign paths of scan_blobs are not repeated.
        """

    def foreign_bytes(self, path: str) -> int:
        """Return the size of a foreign file, or of all files below a foreign directory."""

    def quarantined(self) -> tuple[int, int]:
        """Return how many files repairs have quarantined, and the sum of their sizes."""

    def read_skipped_sweeps(self) -> int:
        """Return how many sweeps in a row were skipped, 0 if that is unknown."""

    def count_skipped_sweep(self) -> int:
        """Record one more skipped sweep. Return how many in a row there are."""

    def finish_sweep(self) -> None:
        """Reset the count of skipped sweeps; delete files of killed processes. Never raises."""

    def report(self) -> StoreReport:
        """Return facts about the requests so far, and warnings, for a result."""

    def find_risks(self) -> Sequence[str]:
        """Return a sentence for each setting of the store that endangers the cache."""


class EditableStore(CollectableStore, Protocol):
    """A store whose roots kitcache edits: prune, trim, tag, untag, merge, repair, a build."""

    def disk_size(self) -> tuple[int, int]:
        """Return the size of the file system and its free space for the user, in bytes."""

    def write_blob(self, data: bytes) -> Digest:
        """Write a structural blob. The caller holds the store's lock, shared or exclusive."""

    def read_parts(self, digest: Digest, size: int) -> Iterator[bytes | memoryview]:
        """Yield the bytes of a blob in parts, and verify them at the end. For several threads.

        A part is valid until the next one is requested.

        Raises:
            Damaged: As read_blob; wrong-digest after the last part.
            Unreadable: As read_blob.

        """

    def put_blob(self, digest: Digest, size: int, parts: Iterable[bytes | memoryview]) -> None:
        """Write a blob from its parts, which the caller verifies. For several threads.

        If `parts` raises, the error is passed on and no blob is written. The caller holds the
        store's lock, shared or exclusive.
        """

    def reuse_blob(self, digest: Digest, stat: BlobStat) -> bool:
        """Return True if a new root may name an existing blob. For several threads.

        A directory hashes a small blob. An object store gives an old blob a new date, as an
        exporter does, so that no sweep deletes it before the root is published.

        Args:
            stat: As stat_blobs returned it.

        """

    def sync_blobs(self) -> None:
        """Make all written blobs durable. Called before the roots that reference them."""

    def write_tag_uses(self, changed: Mapping[str, TagUse]) -> None:
        """Replace the records of these tags; an empty record deletes one.

        Raises:
            Unreadable: Records exist and cannot be read. Nothing was written.
        """

    def commit_roots(
        self, change: IndexChange, wait_policy: WaitPolicy, *, before: Roots | None = None
    ) -> Roots | None:
        """Replace the roots in one step: readers find the old or the new, also after a crash.

        The caller holds the store's lock, shared or exclusive.

        Args:
            change: Called, perhaps several times, with the index document as it is at that moment.
                It may raise to give up.
            wait_policy: For the clients' own lock of the index, held for milliseconds.
            before: The roots that the change was decided from.

        Returns:
            The new roots. None, and nothing was changed, if `before` is given and the roots have
            another version by now: the caller decides again.

        """


class RootObjectStore(EditableStore, Protocol):
    """An object store: each root is an object of its own.

    Attributes:
        quarantine_name: The prefix of the quarantine, for messages.

    """

    @property
    def quarantine_name(self) -> str: ...

    def quarantine_root(self, name: str, data: bytes) -> None:
        """Keep the bytes of a root that will be removed, under its name in the quarantine."""
