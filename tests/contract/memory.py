"""A cache in dictionaries: the second implementation of the storage seam, and a fake for tests.

Like an object store it has roots that are not blobs (`inline`), and locks that exclude nobody.
"""

import hashlib
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Self

from kitcache.errors import Damaged, NotConfirmed
from kitcache.oci.digest import HEX_LENGTHS, Digest
from kitcache.oci.index import read_entries
from kitcache.oci.links import can_be_json
from kitcache.store.ioerrors import size_problem
from kitcache.store.protocol import CollectableStore
from kitcache.store.values import (
    NOTHING_REMEMBERED,
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

NAMES_PER_BATCH = 5


class Blob(NamedTuple):
    """The bytes of a blob, and the facts of a listing."""

    data: bytes
    st_mtime_ns: int
    st_ctime_ns: int = 0
    st_nlink: int = 1

    @property
    def st_size(self) -> int:
        return len(self.data)


class MemoryStore:
    """A cache whose content is in its attributes, for tests to look at and to change."""

    def __init__(self, path: str = "memory", clock_ns: int = 4_000_000_000 * 10**9) -> None:
        self.path = path
        self.blobs_are_leaves = False
        self.roots_name = "index.json"
        self.scans_completely = True
        self.remembered = NOTHING_REMEMBERED
        self.needs_confirmation = ""
        self.prepared_for: list[set[Digest]] = []
        self.min_age_floor_ns = 0
        self.delete_batch_size = 3
        self.delete_threads = 1
        self.blobs: dict[Digest, Blob] = {}
        self.inline: dict[Digest, Blob] = {}
        self.index: bytes | None = None
        self.index_changed_ns = 0
        self.activity = WriterActivity()
        self.foreign: dict[str, int] = {}
        self.undeletable: dict[str, str] = {}
        self.skipped_sweeps = 0
        self.tag_uses: dict[str, TagUse] = {}
        self.clock_ns = clock_ns

    def refresh(self) -> None:
        pass

    def now_ns(self) -> int:
        return self.clock_ns

    def roots_stamp(self) -> Hashable | None:
        return None if self.index is None else (self.index, self.index_changed_ns)

    def read_roots(self, pause: Callable[[float], None]) -> Roots:
        version = Digest("sha256", hashlib.sha256(self.index or b"").hexdigest())
        entries = () if self.index is None else read_entries(self.index)
        return Roots(self.index, version, self.index_changed_ns, entries)

    def read_blob(
        self, digest: Digest, size: int | None, *, unless_binary: bool = False
    ) -> bytes | None:
        blob = self._find(digest)
        if not digest.is_known:
            raise self._damaged("unknown-algorithm", f"{digest.algorithm} cannot be checked here")
        if blob is None:
            raise self._damaged("missing", "is missing")
        if size is not None and size != blob.st_size:
            raise self._damaged("wrong-size", size_problem(blob.st_size, size))
        if unless_binary and not can_be_json(blob.data):
            return None
        if not digest.matches(blob.data):
            raise self._damaged("wrong-digest", "does not match its digest")
        return blob.data

    def _damaged(self, kind: str, problem: str) -> Damaged:
        return Damaged(self.path, problem, kind=kind)

    def _find(self, digest: Digest) -> Blob | None:
        return self.blobs.get(digest) or self.inline.get(digest)

    def stat_blob(self, digest: Digest) -> BlobStat | None:
        blob = self._find(digest)
        return blob and BlobStat(blob.st_size, blob.st_mtime_ns, blob.st_ctime_ns, "file", 1)

    def stat_blobs(self, digests: Collection[Digest]) -> Iterator[tuple[Digest, BlobStat]]:
        for digest in digests:
            stat = self.stat_blob(digest)
            if stat is not None:
                yield digest, stat

    def follow_symlink(self, digest: Digest) -> tuple[BlobStat | None, Digest | None]:
        return None, None

    def scan_blobs(self) -> Iterator[Batch]:
        for algorithm in HEX_LENGTHS:
            names = [digest.hex for digest in self.blobs if digest.algorithm == algorithm]
            prefix = f"blobs/{algorithm}/"
            yield Batch(algorithm, [], [path for path in self.foreign if path.startswith(prefix)])
            for start in range(0, len(names), NAMES_PER_BATCH):
                yield Batch(algorithm, names[start : start + NAMES_PER_BATCH], [])

    def writer_activity(self) -> WriterActivity:
        return self.activity

    def read_tag_uses(self) -> Mapping[str, TagUse]:
        return self.tag_uses

    def read_layer_uses(self) -> Mapping[str, int]:
        return {}

    @contextmanager
    def lock(self, kind: LockKind, wait_policy: WaitPolicy) -> Iterator[HeldLock[Self]]:
        yield HeldLock(self, kind)

    @contextmanager
    def reopen(self) -> Iterator[Self]:
        yield self

    def check_exists(self) -> None:
        pass

    def next_tick_ns(self, lock: HeldLock[Self]) -> int:
        return self.clock_ns

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def recall(self, grace_ns: int) -> Remembered:
        return self.remembered

    def check_confirmed(self, live: Collection[Digest], *, confirmed: bool) -> None:
        if self.needs_confirmation and not confirmed:
            raise NotConfirmed(self.path, self.needs_confirmation)

    def check_sweep(self, live: Collection[Digest], *, may_write: bool) -> None:
        pass

    def prepare_sweep(self, live: Collection[Digest]) -> None:
        self.prepared_for.append(set(live))

    def report(self) -> StoreReport:
        return StoreReport()

    def restore_blobs(self, digests: Collection[Digest]) -> Collection[Digest]:
        return ()

    def find_risks(self) -> Sequence[str]:
        return ()

    def touch_roots(self) -> None:
        self.index_changed_ns = self.clock_ns

    def commit_roots(
        self, change: IndexChange, wait_policy: WaitPolicy, *, before: Roots | None = None
    ) -> Roots | None:
        if before is not None and before.data != self.index:
            return None
        self.index = change(self.index)
        self.index_changed_ns = self.clock_ns
        return self.read_roots(wait_policy.pause)

    def stat_names(self, algorithm: str, names: Sequence[str]) -> Sequence[StoredTimes]:
        try:
            return [self.blobs[Digest(algorithm, name)] for name in names]
        except KeyError as error:
            raise FileNotFoundError(str(error)) from None

    def delete_names(
        self,
        lock: HeldLock[Self],
        algorithm: str,
        names: Sequence[str],
        stats: Sequence[StoredTimes] = (),
    ) -> DeleteResult:
        self._require_exclusive(lock)
        failures = {name: self.undeletable[name] for name in names if name in self.undeletable}
        digests = [Digest(algorithm, name) for name in names if name not in failures]
        missing = [digest.hex for digest in digests if self.blobs.pop(digest, None) is None]
        return DeleteResult(missing, failures)

    def delete_ingest(self, lock: HeldLock[Self], ingest: Ingest) -> bool:
        self._require_exclusive(lock)
        others = tuple(other for other in self.activity.ingests if other != ingest)
        is_deleted = others != self.activity.ingests
        self.activity = self.activity._replace(ingests=others)
        return is_deleted

    def _require_exclusive(self, lock: HeldLock[CollectableStore]) -> None:
        if lock.kind != "exclusive" or lock.store is not self:
            raise ValueError("deletion requires the exclusive lock of the same store")

    def disk_size(self) -> tuple[int, int]:
        return 0, 0

    def write_blob(self, data: bytes) -> Digest:
        digest = Digest("sha256", hashlib.sha256(data).hexdigest())
        self.blobs[digest] = Blob(data, self.clock_ns, self.clock_ns)
        return digest

    def read_parts(self, digest: Digest, size: int) -> Iterator[bytes]:
        yield from (bytes([byte]) for byte in self.read_blob(digest, size) or b"")

    def put_blob(self, digest: Digest, size: int, parts: Iterable[bytes | memoryview]) -> None:
        data = b"".join(parts)
        assert len(data) == size
        self.blobs[digest] = Blob(data, self.clock_ns, self.clock_ns)

    def reuse_blob(self, digest: Digest, stat: BlobStat) -> bool:
        blob = self.blobs.get(digest)
        if blob is None or blob.st_size != stat.size or not digest.matches(blob.data):
            return False
        self.blobs[digest] = blob._replace(st_mtime_ns=self.clock_ns)
        return True

    def sync_blobs(self) -> None:
        pass

    def write_tag_uses(self, changed: Mapping[str, TagUse]) -> None:
        self.tag_uses |= changed

    def foreign_names(self) -> Iterator[str]:
        in_scans = tuple(f"blobs/{algorithm}/" for algorithm in HEX_LENGTHS)
        yield from (path for path in self.foreign if not path.startswith(in_scans))

    def foreign_bytes(self, path: str) -> int:
        return self.foreign.get(path, 0)

    def quarantined(self) -> tuple[int, int]:
        return 0, 0

    def read_skipped_sweeps(self) -> int:
        return self.skipped_sweeps

    def count_skipped_sweep(self) -> int:
        self.skipped_sweeps += 1
        return self.skipped_sweeps

    def finish_sweep(self) -> None:
        self.skipped_sweeps = 0
