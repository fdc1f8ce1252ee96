"""The object store: a cache in a bucket behind the protocols of store/protocol.py.

An object store has no locks. The age of a blob protects a running export, and the state object
protects a running import. Each batch is looked at again right before its deletion.
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
from collections.abc import (
    Set as AbstractSet,
)
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import Self

from kitcache.errors import Damaged, KitcacheError, Unsafe, UsageError
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError
from kitcache.oci.index import read_entries
from kitcache.oci.links import can_be_json
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.ioerrors import index_error, size_problem
from kitcache.store.objects.candidates import Candidates
from kitcache.store.objects.checks import refuse_other_roots
from kitcache.store.objects.client import CHANGED, ObjectClient, Upload
from kitcache.store.objects.history import RunHistory
from kitcache.store.objects.lifecycle import find_risks
from kitcache.store.objects.listing import ALGORITHM
from kitcache.store.objects.parallel import THREADS, map_in_threads
from kitcache.store.objects.rootcommit import delete_all, replace_roots
from kitcache.store.objects.roots import RootReader
from kitcache.store.objects.streams import put_blob, read_blob_parts, reuse_blob
from kitcache.store.protocol import CollectableStore
from kitcache.store.values import (
    STRUCTURAL_LIMIT_BYTES,
    Batch,
    BlobStat,
    DeleteResult,
    HeldLock,
    IndexChange,
    Ingest,
    LockKind,
    Remembered,
    RequestCounts,
    Roots,
    StoredTimes,
    StoreReport,
    TagUse,
    WaitPolicy,
    WriterActivity,
)

_MAX_LOOKUPS = 1000
"""To find more blobs than this, a new listing takes fewer requests."""


class ObjectStore:
    """A cache in an object store. It owns its client.

    Attributes:
        path: The address without secrets.
    """

    blobs_are_leaves = True
    scans_completely = True
    delete_threads = THREADS

    def __init__(self, cache: ObjectCache, client: ObjectClient) -> None:
        self.path = client.address
        self.roots_name = cache.manifests_keys[0]
        self.quarantine_name = f"{cache.state_key}quarantine/"
        self.min_age_floor_ns = max(cache.touch_refresh_ns, 1)
        self.delete_batch_size = client.delete_batch_size
        self.cache = cache
        self.client = client
        self._roots = RootReader(client, cache)
        self._history = RunHistory(client, cache)
        self._candidates = Candidates(client, cache.blobs_key)
        self._uploads: dict[str, Upload] | None = None
        self._is_checked = False
        self._warnings: list[str] = list(cache.warnings)
        self._pause: Callable[[float], None] = lambda _: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._candidates.drop()
        self._roots.close()
        self.client.close()

    def refresh(self) -> None:
        # During a sweep the listing is the list of candidates; each is looked at again.
        if not self._candidates.is_kept:
            self._candidates.drop()
        self._uploads = None

    def now_ns(self) -> int:
        return self.client.now_ns()

    def roots_stamp(self) -> Hashable | None:
        return self._roots.stamp()

    def read_roots(self, pause: Callable[[float], None]) -> Roots:
        self._pause = self.client.pause = pause
        return self._roots.read(pause)

    def read_blob(
        self, digest: Digest, size: int | None, *, unless_binary: bool = False
    ) -> bytes | None:
        data = self._roots.document(digest)
        if data is None:
            data = self._download(digest)
        if size is not None and size != len(data):
            raise self._damaged("wrong-size", size_problem(len(data), size))
        if unless_binary and not can_be_json(data):
            return None
        if not digest.matches(data):
            raise self._damaged("wrong-digest", "does not match its digest")
        return data

    def _download(self, digest: Digest) -> bytes:
        if digest.algorithm != ALGORITHM:
            problem = f"{digest.algorithm} cannot be checked here"
            raise self._damaged("unknown-algorithm", problem)
        answer = self.client.read(self.key_of(digest), STRUCTURAL_LIMIT_BYTES + 1)
        if answer is None:
            raise self._damaged("missing", "is missing")
        data, info = answer
        if info.size > STRUCTURAL_LIMIT_BYTES:
            limit = f"{info.size:,} of at most {STRUCTURAL_LIMIT_BYTES:,} bytes"
            raise Unsafe(self.path, f"is larger than a structural blob may be ({limit})")
        return data

    def _damaged(self, kind: str, problem: str) -> Damaged:
        return Damaged(self.path, problem, kind=kind)

    def key_of(self, digest: Digest) -> str:
        """Return the key of a blob."""
        return f"{self.cache.blobs_key}{digest}"

    def stat_blob(self, digest: Digest) -> BlobStat | None:
        info = self._roots.find(digest)
        if info is None and digest.algorithm == ALGORITHM:
            if digest in self._candidates.found:
                return self._candidates.found[digest]
            info = self.client.stat(self.key_of(digest))
        return info and BlobStat(info.size, info.modified_ns, info.modified_ns, "file", 1)

    def stat_blobs(self, digests: Collection[Digest]) -> Iterator[tuple[Digest, BlobStat]]:
        roots = self._roots.digests.intersection(digests)
        yield from self._look_up(roots)
        blobs = [digest for digest in digests if digest not in roots] if roots else digests
        if self._candidates.is_listed:
            found = self._candidates.found
            yield from ((digest, found[digest]) for digest in blobs if digest in found)
            blobs = [digest for digest in blobs if digest not in found]
            if len(blobs) <= _MAX_LOOKUPS:
                yield from self._look_up(blobs)
                return
        if blobs:
            wanted = blobs if isinstance(blobs, AbstractSet) else frozenset(blobs)
            yield from self._candidates.take(wanted, self._check)
            # A listing can be late, so what a survey misses is looked up. Its set loses each blob
            # that was yielded.
            if wanted is digests and not isinstance(wanted, frozenset):
                yield from self._look_up(islice(wanted, _MAX_LOOKUPS))

    def _check(self) -> None:
        """Raise Cancelled if the caller has cancelled."""
        self._pause(0.0)

    def _look_up(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, BlobStat]]:
        for digest, stat in map_in_threads(self.stat_blob, list(digests), self._check):
            if stat is not None:
                yield digest, stat

    def follow_symlink(self, digest: Digest) -> tuple[BlobStat | None, Digest | None]:  # noqa: ARG002
        return None, None

    def scan_blobs(self) -> Iterator[Batch]:
        """Yield all blobs of the listing; take one if there is none.

        In a sweep, pages whose blobs were looked at before are not yielded again.
        """
        return self._candidates.scan(self._check)

    def writer_activity(self) -> WriterActivity:
        if self._uploads is None:
            try:
                listed = self.client.list_uploads(self.cache.blobs_key)
                self._uploads = {f"{u.key}?uploadId={u.upload_id}": u for u in listed}
            except KitcacheError as error:
                self._uploads = {}
                self._warn(f"unfinished uploads cannot be listed: {error.problem}")
        return WriterActivity(
            tuple(
                Ingest(name, (upload.began_ns,), upload.bytes, is_protected=True)
                for name, upload in self._uploads.items()
            )
        )

    def read_tag_uses(self) -> Mapping[str, TagUse]:
        """Return the date of each root: BuildKit writes it at each export."""
        return {
            name: TagUse(exported_ns=root.info.modified_ns, digest=str(root.digest))
            for name, root in self._roots.roots.items()
        }

    def read_layer_uses(self) -> Mapping[str, int]:
        return {}

    @contextmanager
    def lock(self, kind: LockKind, wait_policy: WaitPolicy) -> Iterator[HeldLock[Self]]:
        """Return at once: an object store has no lock. If `kind` is exclusive, keep the listing."""
        self._pause = self.client.pause = wait_policy.pause
        if kind == "exclusive":
            self._candidates.drop()
            self._candidates.is_kept = True
        try:
            yield HeldLock(self, kind)
        finally:
            self._candidates.is_kept = False

    @contextmanager
    def reopen(self) -> Iterator[Self]:
        yield self

    def check_exists(self) -> None:
        """Return: a bucket that was deleted makes requests fail."""

    def next_tick_ns(self, lock: HeldLock[Self]) -> int:  # noqa: ARG002 - of the protocol
        return self.now_ns()

    def recall(self, grace_ns: int) -> Remembered:
        return self._history.recall(grace_ns)

    def check_confirmed(self, live: Collection[Digest], *, confirmed: bool) -> None:
        blobs = frozenset(live) - self._roots.digests
        root_count = len(self._roots.roots)
        self._history.check_confirmed(len(blobs), root_count, confirmed=confirmed)

    def check_sweep(self, live: Collection[Digest], *, may_write: bool) -> None:
        if not self._is_checked:
            names = {digest.hex for digest in live}
            if not refuse_other_roots(self.client, self.cache, names, self.scan_blobs, self._check):
                self._warn(
                    f"the prefix {self.cache.prefix!r} has many other objects: not all were"
                    " searched for roots of another manifests_prefix"
                )
            if may_write:
                self._history.check_store(self._check)
                self._is_checked = True

    def prepare_sweep(self, live: Collection[Digest]) -> None:
        self.check_sweep(live, may_write=True)
        blobs = frozenset(live) - self._roots.digests
        self._history.record(blobs, len(self._roots.roots))

    def restore_blobs(self, digests: Collection[Digest]) -> Collection[Digest]:
        restored = [digest for digest in digests if self.client.restore(self.key_of(digest))]
        for digest in restored:
            self._warn(
                f"blob {digest} was deleted and restored: a root that was published during the"
                " sweep names it"
            )
        return restored

    def touch_roots(self) -> None:
        """Return: no reset waits for an export to an object store."""

    def stat_names(self, algorithm: str, names: Sequence[str]) -> Sequence[StoredTimes]:  # noqa: ARG002
        return self._candidates.look_again(names)

    def delete_names(
        self,
        lock: HeldLock[Self],
        algorithm: str,
        names: Sequence[str],
        stats: Sequence[StoredTimes] = (),
    ) -> DeleteResult:
        self._require_exclusive(lock)
        stats = stats or self.stat_names(algorithm, names)
        missing = [name for name, stat in zip(names, stats, strict=True) if not stat.st_nlink]
        failures: dict[str, str] = {}
        targets = self._candidates.targets(names, stats)
        size = self.delete_batch_size
        for target, reason in delete_all(self.client.delete, list(targets), size):
            if reason == CHANGED:
                missing.append(targets[target])
            else:
                failures[targets[target]] = reason
        return DeleteResult(missing, failures)

    def delete_ingest(self, lock: HeldLock[Self], ingest: Ingest) -> bool:
        self._require_exclusive(lock)
        uploads = self._uploads or {}
        upload = uploads.get(ingest.name)
        if upload is None or ingest.writes_ns != (upload.began_ns,):
            return False
        del uploads[ingest.name]
        return self.client.abort_upload(upload)

    def _require_exclusive(self, lock: HeldLock[CollectableStore]) -> None:
        if lock.kind != "exclusive" or lock.store is not self:
            raise ValueError("deletion requires the exclusive lock of the same store")

    def foreign_names(self) -> Iterator[str]:
        """Yield nothing: only the keys of blobs and of roots are listed."""
        yield from ()

    def foreign_bytes(self, path: str) -> int:
        return self._candidates.foreign_bytes(path)

    def quarantined(self) -> tuple[int, int]:
        return 0, 0

    def read_skipped_sweeps(self) -> int:
        return 0

    def count_skipped_sweep(self) -> int:
        return 1

    def finish_sweep(self) -> None:
        """Return: a killed process leaves only objects that the next sweep deletes."""

    def report(self) -> StoreReport:
        counts = RequestCounts(**self.client.requests)
        return StoreReport(
            counts, (*self._warnings, *self._history.warnings, *self.client.warnings)
        )

    def find_risks(self) -> Sequence[str]:
        rules = self.client.read_lifecycle()
        if rules is None:
            return ()
        has_versions = self.client.abilities().has_versions
        return tuple(find_risks(rules, self.cache, has_versions=has_versions))

    def _warn(self, sentence: str) -> None:
        if sentence not in self._warnings:
            self._warnings.append(sentence)

    def disk_size(self) -> tuple[int, int]:
        raise UsageError(
            "an object store has no disk, so the size and the free space of a disk are unknown",
            path=self.path,
            hints=("write the limit in bytes, such as 50GB",),
        )

    def write_blob(self, data: bytes) -> Digest:
        """Keep the document of a new root for commit_roots, which writes it under its name."""
        return self._roots.add(data)

    def read_parts(self, digest: Digest, size: int) -> Iterator[bytes | memoryview]:
        return read_blob_parts(self.client, self.key_of(digest), digest, size)

    def put_blob(self, digest: Digest, size: int, parts: Iterable[bytes | memoryview]) -> None:
        put_blob(self.client, self.key_of(digest), size, parts)

    def reuse_blob(self, digest: Digest, stat: BlobStat) -> bool:
        touch_refresh_ns = self.cache.touch_refresh_ns
        return reuse_blob(self.client, self.key_of(digest), stat, touch_refresh_ns)

    def quarantine_root(self, name: str, data: bytes) -> None:
        self.client.write(f"{self.quarantine_name}{name}", data)

    def sync_blobs(self) -> None:
        """Return: an object is durable when its request has succeeded."""

    def write_tag_uses(self, changed: Mapping[str, TagUse]) -> None:
        """Return: the date of a root is its record, and BuildKit writes it."""

    def commit_roots(
        self, change: IndexChange, wait_policy: WaitPolicy, *, before: Roots | None = None
    ) -> Roots | None:
        """Replace the roots, one request each: first the written ones, then the removed ones.

        Each root is written or removed only if no other client has changed it since it was read.
        Otherwise the result is None, and the caller decides again from the new roots; other roots
        may have been changed. A crash leaves each root in its old or in its new state.
        """
        roots = self.read_roots(wait_policy.pause)
        if before is not None and before.version != roots.version:
            return None
        try:
            entries = read_entries(change(roots.data))
        except DocumentError as error:
            raise index_error(self.path, error) from None
        new = {e.ref_name: e.descriptor for e in entries if e.ref_name and e.descriptor}
        if not replace_roots(self.client, self._roots, new):
            return None
        return self.read_roots(wait_policy.pause)
