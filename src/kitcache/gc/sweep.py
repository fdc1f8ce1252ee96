"""The sweep: one walk over all blobs, and a dry run that is the same walk with empty hands.

Memory does not grow with garbage: names are streamed. Where blobs are removed, two threads, the
caller's and a helper, take batches of names from one scan in turn, for unlink releases the
interpreter lock for long; a third thread would only fight for it, and so would a second one that
only counts (docs/benchmarks.md).
"""

import os
import threading
from collections.abc import Callable, Iterator

from kitcache.errors import KitcacheError
from kitcache.gc.control import Control
from kitcache.gc.values import (
    MAX_LISTED,
    NameAndReason,
    Plan,
    Progress,
    SurveyedIngest,
    SweepResult,
    Tally,
)
from kitcache.store.delete import BlobDeleter
from kitcache.store.layout import Layout
from kitcache.store.locks import HeldLock
from kitcache.store.scan import (
    BATCH_SIZE,
    Batch,
    read_writes,
    scan_blobs,
    scan_foreign,
    weigh_foreign,
)

CHUNK_SIZE = 64
"""So many blobs are looked at, then removed, between two looks at the cancel event."""


def dry_run_sweep(
    plan: Plan, layout: Layout, control: Control, *, weigh_foreign: bool = False
) -> SweepResult:
    """What apply would do, counted. Removes nothing, needs no lock.

    weigh_foreign: also sum the bytes of foreign files, and of what lies in foreign directories.
    """
    return _Sweep(plan, layout, control, None, weigh_foreign=weigh_foreign).run(lambda: True)


def apply(
    plan: Plan, held: HeldLock, control: Control, is_current: Callable[[], bool]
) -> SweepResult:
    """Remove every blob that the plan does not keep, then the uploads that it drops.

    is_current is asked between batches: once it says no, the walk ends and `stopped` says so. A
    file that cannot be removed is listed in `left`, and does not stop the rest; one that is gone
    already is nothing. What ended it early, Cancelled or an I/O error, is the `failure`.
    """
    return _Sweep(plan, held.layout, control, BlobDeleter(held)).run(is_current)


class _Counts:
    """What one thread did. Only that thread writes here."""

    def __init__(self) -> None:
        self.removed_blobs = self.removed_bytes = 0
        self.spared_blobs = self.spared_bytes = 0
        self.left: list[NameAndReason] = []
        self.left_count = 0

    def leave(self, name: str, error: OSError) -> None:
        self.left_count += 1
        if len(self.left) < MAX_LISTED:
            self.left.append((name, error.strerror or str(error)))


class _Sweep:
    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        control: Control,
        remover: BlobDeleter | None,
        *,
        weigh_foreign: bool = False,
    ) -> None:
        self._plan = plan
        self._spared_from_ns = min(plan.young_since_ns, plan.came_from_ns)
        self._layout = layout
        self._control = control
        self._remover = remover
        self._is_stopping = False
        self._cancel = control.cancel or threading.Event()
        self._own = _Counts()
        self._counts = [self._own]
        self._foreign: list[str] = []
        self._foreign_tally = Tally()
        self._weigh_foreign = weigh_foreign

    def run(self, is_current: Callable[[], bool]) -> SweepResult:
        is_whole, ingests, failure = False, Tally(), None
        try:
            is_whole = all(self._walk(algorithm, is_current) for algorithm in self._layout.blobs)
            self._control.check()
            for name in scan_foreign(self._layout):
                self._note_foreign(name)
            if is_whole and is_current():
                for ingest in self._plan.drop_ingests:
                    ingests = ingests.plus(self._drop(ingest))
        except KitcacheError as error:
            failure = error
        left = [named for counts in self._counts for named in counts.left]
        return SweepResult(
            deleted=self._removed(),
            too_young=Tally(
                sum(c.spared_blobs for c in self._counts), sum(c.spared_bytes for c in self._counts)
            ),
            ingests_deleted=ingests,
            not_deleted=tuple(left[:MAX_LISTED]),
            not_deleted_count=sum(c.left_count for c in self._counts),
            foreign=tuple(self._foreign),
            foreign_tally=self._foreign_tally,
            stopped=not is_whole,
            failure=failure,
        )

    def _removed(self) -> Tally:
        return Tally(
            sum(c.removed_blobs for c in self._counts), sum(c.removed_bytes for c in self._counts)
        )

    def _walk(self, algorithm: str, is_current: Callable[[], bool]) -> bool:
        """Walk one algorithm's directory; False where it was stopped."""
        batches = _Batches(scan_blobs(self._layout, algorithm))
        helper: threading.Thread | None = None
        try:
            while (batch := self._next(algorithm, batches)) is not None:
                if self._cancel.is_set() or not is_current():
                    self._is_stopping = True
                    break
                if (
                    self._remover
                    and helper is None
                    and len(batch.names) + len(batch.odd) == BATCH_SIZE
                ):
                    helper = self._start_helper(algorithm, batches)
                self._judge(algorithm, batch.names, self._own)
                removed = self._removed()
                self._control.report(Progress("sweep", removed.blobs, removed.bytes))
        finally:
            self._is_stopping = self._is_stopping or not batches.is_done
            if helper is not None:
                helper.join()
        if batches.failure is not None:
            raise batches.failure
        return not self._is_stopping

    def _start_helper(self, algorithm: str, batches: "_Batches") -> threading.Thread | None:
        counts = _Counts()
        self._counts.append(counts)

        def work() -> None:
            try:
                while (batch := self._next(algorithm, batches)) is not None:
                    self._judge(algorithm, batch.names, counts)
            except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
                batches.failure = error

        helper = threading.Thread(target=work, daemon=True)
        try:
            helper.start()
        except RuntimeError:  # the system has no thread to give: one takes longer
            return None
        return helper

    def _next(self, algorithm: str, batches: "_Batches") -> Batch | None:
        """The next batch for whichever thread asks, None at the end or once the walk stops."""
        with batches.lock:
            batch = None if self._is_stopping else batches.take()
            for name in batch.odd if batch else ():
                self._note_foreign(f"blobs/{algorithm}/{name}")
        return batch

    def _judge(self, algorithm: str, names: list[str], counts: _Counts) -> None:
        """Remove each name that the plan does not keep, and that its age does not spare."""
        keep = self._plan.keep[algorithm]
        doomed = [name for name in names if name not in keep]
        for start in range(0, len(doomed), CHUNK_SIZE):
            if self._is_stopping or self._cancel.is_set():
                return
            chunk = doomed[start : start + CHUNK_SIZE]
            done = self._delete_chunk(algorithm, chunk, counts)
            self._judge_each(algorithm, chunk[done:], counts)

    def _delete_chunk(self, algorithm: str, names: list[str], counts: _Counts) -> int:
        """Remove names up to the first that needs a closer look: how many were done."""
        # Every stat, then every unlink: taking turns, two threads would hand each other the
        # interpreter lock at each call, and that takes longer than the calls.
        fd, stat = self._layout.blobs[algorithm], os.stat
        try:
            found = [stat(name, dir_fd=fd, follow_symlinks=False) for name in names]
        except OSError:
            return 0
        if (
            max([each.st_mtime_ns for each in found]) >= self._spared_from_ns
            or max([each.st_ctime_ns for each in found]) >= self._plan.came_from_ns
        ):
            return 0
        done = len(names) if self._remover is None else self._remover.blobs(algorithm, names)
        counts.removed_blobs += done
        counts.removed_bytes += sum([each.st_size for each in found[:done]])
        return done

    def _judge_each(self, algorithm: str, names: list[str], counts: _Counts) -> None:
        fd, plan = self._layout.blobs[algorithm], self._plan
        for name in names:
            if self._is_stopping or self._cancel.is_set():
                return
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if not found.st_nlink:  # another process removes it just now, which dates it
                    continue
                if plan.is_too_young(found.st_mtime_ns, found.st_ctime_ns):
                    counts.spared_blobs += 1
                    counts.spared_bytes += found.st_size
                    continue
                if self._remover is not None:
                    self._remover.blob(algorithm, name)
            except FileNotFoundError:
                continue
            except OSError as error:
                counts.leave(f"blobs/{algorithm}/{name}", error)
                continue
            counts.removed_blobs += 1
            counts.removed_bytes += found.st_size

    def _drop(self, ingest: SurveyedIngest) -> Tally:
        try:
            # A build may have taken it up again: BuildKit resumes what it knows by its name.
            if sorted(read_writes(self._layout, ingest.name)) != sorted(ingest.writes_ns):
                return Tally()
            if self._remover is not None:
                self._remover.ingest(ingest.name)
        except FileNotFoundError:
            return Tally()
        except OSError as error:
            self._own.leave(f"ingest/{ingest.name}", error)
            return Tally()
        return Tally(1, ingest.bytes)

    def _note_foreign(self, name: str) -> None:
        size = weigh_foreign(self._layout, name) if self._weigh_foreign else 0
        self._foreign_tally = self._foreign_tally.plus(Tally(1, size))
        if len(self._foreign) < MAX_LISTED:
            self._foreign.append(name)


class _Batches:
    """One scan that two threads share: whoever has the lock takes the next batch."""

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
