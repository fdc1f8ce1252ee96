"""The sweep: one pass over all blob names. A dry run is the same pass without deletion.

Names are streamed, so memory does not grow with unreachable blobs. To delete, the caller's thread
and the store's other threads (`delete_threads`) take batches of names in turn from one scan. A dry
run has one thread: a second would only contend for the GIL (docs/benchmarks.md).
"""

import threading
from collections.abc import Callable, Iterator, Sequence

from kitcache.errors import KitcacheError
from kitcache.gc.control import Control
from kitcache.gc.values import MAX_LISTED, NameAndReason, Plan, Progress, SweepResult, Tally
from kitcache.store.protocol import CollectableStore
from kitcache.store.values import BATCH_SIZE, Batch, DeleteResult, HeldLock, StoredTimes


def dry_run_sweep(
    plan: Plan, store: CollectableStore, control: Control, *, with_foreign_bytes: bool = False
) -> SweepResult:
    """Count what apply would delete. Deletes nothing and needs no lock.

    Args:
        with_foreign_bytes: Also sum the sizes of foreign files, and of files in foreign
            directories.

    """
    sweep = _Sweep(plan, store, control, None, with_foreign_bytes=with_foreign_bytes)
    return sweep.run(lambda: True)


def apply(
    plan: Plan, lock: HeldLock[CollectableStore], control: Control, is_current: Callable[[], bool]
) -> SweepResult:
    """Delete every blob that the plan does not keep, then its `drop_ingests`.

    A file that cannot be deleted is listed in `not_deleted` and does not stop the sweep. A file
    that another process has deleted does not count. Cancelled or an I/O error ends the sweep
    early: see `failure`.

    Args:
        is_current: Called before each batch, by the thread that deletes it. If it returns False,
            the sweep ends with `stopped`.

    """
    return _Sweep(plan, lock.store, control, lock).run(is_current)


class _Counts:
    """The counts of one thread. Only that thread changes them."""

    def __init__(self) -> None:
        self.deleted_blobs = self.deleted_bytes = 0
        self.young_blobs = self.young_bytes = 0
        self.not_deleted: list[NameAndReason] = []
        self.not_deleted_count = 0

    def add_failure(self, name: str, reason: str) -> None:
        self.not_deleted_count += 1
        if len(self.not_deleted) < MAX_LISTED:
            self.not_deleted.append((name, reason))


class _Sweep:
    def __init__(
        self,
        plan: Plan,
        store: CollectableStore,
        control: Control,
        lock: HeldLock[CollectableStore] | None,
        *,
        with_foreign_bytes: bool = False,
    ) -> None:
        self._plan = plan
        self._young_from_ns = min(plan.young_since_ns, plan.changed_from_ns)
        self._store = store
        self._control = control
        self._lock = lock
        self._is_stopping = False
        self._cancel = control.cancel or threading.Event()
        self._own = _Counts()
        self._counts = [self._own]
        self._foreign: list[str] = []
        self._foreign_tally = Tally()
        self._with_foreign_bytes = with_foreign_bytes

    def run(self, is_current: Callable[[], bool]) -> SweepResult:
        is_complete, ingests, failure = False, Tally(), None
        try:
            is_complete = self._sweep_blobs(is_current)
            self._control.check()
            for path in self._store.foreign_names():
                self._add_foreign(path)
            if is_complete and is_current():
                ingests = self._delete_ingests()
        except KitcacheError as error:
            failure = error
        counts = self._counts
        return SweepResult(
            deleted=self._deleted(),
            too_young=Tally(sum(c.young_blobs for c in counts), sum(c.young_bytes for c in counts)),
            ingests_deleted=ingests,
            not_deleted=tuple(item for c in counts for item in c.not_deleted)[:MAX_LISTED],
            not_deleted_count=sum(c.not_deleted_count for c in counts),
            foreign=tuple(self._foreign),
            foreign_tally=self._foreign_tally,
            stopped=not is_complete,
            failure=failure,
        )

    def _deleted(self) -> Tally:
        counts = self._counts
        return Tally(sum(c.deleted_blobs for c in counts), sum(c.deleted_bytes for c in counts))

    def _sweep_blobs(self, is_current: Callable[[], bool]) -> bool:
        """Sweep all blobs; return False if the sweep was stopped."""
        batches = _Batches(self._store.scan_blobs())
        helpers: list[threading.Thread] = []
        wanted = self._store.delete_threads - 1 if self._lock else 0
        full = self._store.delete_batch_size if self._store.scans_completely else BATCH_SIZE
        try:
            while (batch := self._next(batches)) is not None:
                if self._cancel.is_set():
                    self._is_stopping = True
                    break
                if not helpers and len(batch.names) + len(batch.foreign) >= full:
                    for _ in range(wanted):
                        helpers += self._start_helper(batches, is_current)
                self._sweep_batch(batch, self._own, is_current)
                deleted = self._deleted()
                self._control.report(Progress("sweep", deleted.blobs, deleted.bytes))
        finally:
            self._is_stopping = self._is_stopping or not batches.is_done
            for helper in helpers:
                helper.join()
        if batches.failure is not None:
            raise batches.failure
        return not self._is_stopping

    def _start_helper(
        self, batches: "_Batches", is_current: Callable[[], bool]
    ) -> list[threading.Thread]:
        counts = _Counts()
        self._counts.append(counts)

        def work() -> None:
            try:
                while (batch := self._next(batches)) is not None:
                    self._sweep_batch(batch, counts, is_current)
            except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
                batches.failure = error

        helper = threading.Thread(target=work, daemon=True)
        try:
            helper.start()
        except RuntimeError:  # the system has no more threads
            return []
        return [helper]

    def _next(self, batches: "_Batches") -> Batch | None:
        """Return the next batch, None at the end or if the sweep stops. Any thread calls it."""
        with batches.lock:
            batch = None if self._is_stopping else batches.take()
            for path in batch.foreign if batch else ():
                self._add_foreign(path)
        return batch

    def _sweep_batch(self, batch: Batch, counts: _Counts, is_current: Callable[[], bool]) -> None:
        """Delete each name that the plan does not keep and that is not too young."""
        keep = self._plan.keep[batch.algorithm]
        self._count_recent(batch, counts)
        if self._lock is None and batch.stats is not None:
            pairs = zip(batch.names, batch.stats, strict=True)
            listed = {name: stat for name, stat in pairs if name not in keep}
            self._sweep_names(batch.algorithm, list(listed), list(listed.values()), counts)
            return
        unreferenced = [name for name in batch.names if name not in keep]
        size = self._store.delete_batch_size
        # Another thread may set the flag while this one asks, so it is never set to False here.
        if not is_current():
            self._is_stopping = True
        for start in range(0, len(unreferenced), size):
            if self._is_stopping or self._cancel.is_set():
                return
            self._sweep_chunk(batch.algorithm, unreferenced[start : start + size], counts)

    def _count_recent(self, batch: Batch, counts: _Counts) -> None:
        """Count the blobs that were live in a recent run as too young."""
        recent = self._plan.recent.get(batch.algorithm)
        if recent and batch.stats is not None:
            for name, stat in zip(batch.names, batch.stats, strict=True):
                if name in recent:
                    counts.young_blobs += 1
                    counts.young_bytes += stat.st_size

    def _sweep_chunk(self, algorithm: str, names: list[str], counts: _Counts) -> None:
        try:
            stats = self._store.stat_names(algorithm, names)
        except OSError:  # at least one is missing: try each
            for name in names:
                if self._is_stopping or self._cancel.is_set():
                    return
                self._sweep_name(algorithm, name, counts)
        else:
            self._sweep_names(algorithm, names, stats, counts)

    def _sweep_name(self, algorithm: str, name: str, counts: _Counts) -> None:
        try:
            stats = self._store.stat_names(algorithm, [name])
        except FileNotFoundError:
            return
        except OSError as error:
            counts.add_failure(f"blobs/{algorithm}/{name}", error.strerror or str(error))
        else:
            self._sweep_names(algorithm, [name], stats, counts)

    def _sweep_names(
        self, algorithm: str, names: list[str], stats: Sequence[StoredTimes], counts: _Counts
    ) -> None:
        """Delete all names at once if none can be too young; else check each name."""
        if (
            names
            and max([stat.st_mtime_ns for stat in stats]) < self._young_from_ns
            and max([stat.st_ctime_ns for stat in stats]) < self._plan.changed_from_ns
        ):
            self._delete(algorithm, names, stats, counts)
            return
        old = []
        for name, stat in zip(names, stats, strict=True):
            if not stat.st_nlink:  # another process is deleting it, which changes its ctime
                continue
            if self._plan.is_too_young(stat.st_mtime_ns, stat.st_ctime_ns):
                counts.young_blobs += 1
                counts.young_bytes += stat.st_size
            else:
                old.append((name, stat))
        if old:
            self._delete(algorithm, [name for name, _ in old], [stat for _, stat in old], counts)

    def _delete(
        self, algorithm: str, names: list[str], stats: Sequence[StoredTimes], counts: _Counts
    ) -> None:
        result = DeleteResult()
        if self._lock is not None:
            result = self._store.delete_names(self._lock, algorithm, names, stats)
        if result.failures or result.missing:
            for name, reason in result.failures.items():
                counts.add_failure(f"blobs/{algorithm}/{name}", reason)
            kept = {*result.failures, *result.missing}
            stats = [stat for name, stat in zip(names, stats, strict=True) if name not in kept]
        counts.deleted_blobs += len(stats)
        counts.deleted_bytes += sum([stat.st_size for stat in stats])

    def _delete_ingests(self) -> Tally:
        deleted = Tally()
        unchanged = () if self._lock else self._store.writer_activity().ingests
        for ingest in self._plan.drop_ingests:
            try:
                if self._lock is None:
                    is_deleted = ingest in unchanged
                else:
                    is_deleted = self._store.delete_ingest(self._lock, ingest)
            except OSError as error:
                self._own.add_failure(f"ingest/{ingest.name}", error.strerror or str(error))
            else:
                deleted = deleted.plus(Tally(1, ingest.bytes)) if is_deleted else deleted
        return deleted

    def _add_foreign(self, path: str) -> None:
        size = self._store.foreign_bytes(path) if self._with_foreign_bytes else 0
        self._foreign_tally = self._foreign_tally.plus(Tally(1, size))
        if len(self._foreign) < MAX_LISTED:
            self._foreign.append(path)


class _Batches:
    """One scan that several threads share: the thread that has the lock takes the next batch."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.lock = threading.Lock()
        self.is_done = False
        self.failure: BaseException | None = None
        self._batches = batches

    def take(self) -> Batch | None:
        if self.is_done:
            return None
        try:
            return next(self._batches)
        except StopIteration:
            self.is_done = True
        except KitcacheError as error:
            self.failure = error
        return None
