"""The sweep: one walk over all blobs, and a dry run that is the same walk with empty hands.

Memory does not grow with garbage: names are streamed in batches from the scanning thread to two
workers, for stat and unlink release the interpreter lock.
"""

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from kitcache.errors import Cancelled
from kitcache.gc.control import Control
from kitcache.gc.values import LISTED, IngestSeen, Named, Plan, Progress, Swept, Tally
from kitcache.store.layout import Layout
from kitcache.store.locks import Held
from kitcache.store.remove import Remover
from kitcache.store.scan import BATCH_SIZE, scan_blobs, scan_foreign, weigh_foreign

if TYPE_CHECKING:
    from queue import Queue

WORKERS = 2
_QUEUED_BATCHES = 8

Remove = Callable[[str], None]


def tally(plan: Plan, layout: Layout, control: Control, *, weigh_foreign: bool = False) -> Swept:
    """What apply would do, counted. Removes nothing, needs no lock.

    weigh_foreign: also sum the bytes of foreign files, and of what lies in foreign directories.
    """
    return _Walk(plan, layout, control, None, weigh_foreign=weigh_foreign).run(lambda: True)


def apply(plan: Plan, held: Held, control: Control, is_current: Callable[[], bool]) -> Swept:
    """Remove every blob that the plan does not keep, then the uploads that it drops.

    is_current is asked between batches: once it says no, the walk ends and `stopped` says so. A
    file that cannot be removed is listed in `left`, and does not stop the rest; one that is gone
    already is nothing. Raises Cancelled, which carries what had been removed.
    """
    return _Walk(plan, held.layout, control, Remover(held)).run(is_current)


class _Counts:
    """What one thread did. Only that thread writes here."""

    def __init__(self) -> None:
        self.removed_blobs = self.removed_bytes = 0
        self.spared_blobs = self.spared_bytes = 0
        self.left: list[Named] = []
        self.left_count = 0

    def leave(self, name: str, error: OSError) -> None:
        self.left_count += 1
        if len(self.left) < LISTED:
            self.left.append((name, error.strerror or str(error)))


class _Walk:
    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        control: Control,
        remover: Remover | None,
        *,
        weigh_foreign: bool = False,
    ) -> None:
        self._plan = plan
        self._layout = layout
        self._control = control
        self._remover = remover
        self._stopping = threading.Event()
        self._own = _Counts()
        self._counts = [self._own]
        self._foreign: list[str] = []
        self._foreign_tally = Tally()
        self._weigh_foreign = weigh_foreign

    def run(self, is_current: Callable[[], bool]) -> Swept:
        is_whole = all(self._walk(algorithm, is_current) for algorithm in self._layout.blobs)
        if self._control.is_cancelled:
            removed = self._removed()
            raise Cancelled(
                self._layout.path, removed_blobs=removed.blobs, removed_bytes=removed.bytes
            )
        for name in scan_foreign(self._layout):
            self._note_foreign(name)
        ingests = Tally()
        if is_whole and is_current():
            for ingest in self._plan.drop_ingests:
                ingests = ingests.plus(self._drop(ingest))
        left = [named for counts in self._counts for named in counts.left]
        return Swept(
            removed=self._removed(),
            spared=Tally(
                sum(c.spared_blobs for c in self._counts), sum(c.spared_bytes for c in self._counts)
            ),
            ingests_removed=ingests,
            left=tuple(left[:LISTED]),
            left_count=sum(c.left_count for c in self._counts),
            foreign=tuple(self._foreign),
            foreign_tally=self._foreign_tally,
            stopped=not is_whole,
        )

    def _removed(self) -> Tally:
        return Tally(
            sum(c.removed_blobs for c in self._counts), sum(c.removed_bytes for c in self._counts)
        )

    def _walk(self, algorithm: str, is_current: Callable[[], bool]) -> bool:
        """Walk one algorithm's directory; False where it was stopped."""
        keep = self._plan.keep[algorithm]
        crew = _Crew(self._worker(algorithm))
        try:
            for batch in scan_blobs(self._layout, algorithm):
                if self._control.is_cancelled or not is_current():
                    return False
                for name in batch.odd:
                    self._note_foreign(f"blobs/{algorithm}/{name}")
                doomed = [name for name in batch.names if name not in keep]
                if len(batch.names) + len(batch.odd) < BATCH_SIZE:
                    self._judge_all(algorithm, doomed, self._own)
                else:
                    crew.give(doomed)
                removed = self._removed()
                self._control.tell(Progress("sweep", removed.blobs, removed.bytes))
        except BaseException:
            self._stopping.set()
            raise
        finally:
            if self._control.is_cancelled:
                self._stopping.set()
            crew.dismiss()
        return True

    def _worker(self, algorithm: str) -> Callable[["Queue[list[str] | None]"], None]:
        def work(batches: "Queue[list[str] | None]") -> None:
            counts = _Counts()
            self._counts.append(counts)
            while (names := batches.get()) is not None:
                self._judge_all(algorithm, names, counts)

        return work

    def _judge_all(self, algorithm: str, names: list[str], counts: _Counts) -> None:
        """Remove each name unless its age spares it; the one place that compares the age."""
        fd, stat = self._layout.blobs[algorithm], os.stat
        remove = self._remover.blobs_of(algorithm) if self._remover else _pretend
        spare_after_ns = self._plan.spare_after_ns
        is_stopping = self._stopping.is_set
        blobs = size = 0
        for name in names:
            if is_stopping():
                break
            try:
                found = stat(name, dir_fd=fd, follow_symlinks=False)
                if spare_after_ns is not None and found.st_mtime_ns >= spare_after_ns:
                    counts.spared_blobs += 1
                    counts.spared_bytes += found.st_size
                    continue
                remove(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                counts.leave(f"blobs/{algorithm}/{name}", error)
                continue
            blobs += 1
            size += found.st_size
        counts.removed_blobs += blobs
        counts.removed_bytes += size

    def _drop(self, ingest: IngestSeen) -> Tally:
        try:
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
        if len(self._foreign) < LISTED:
            self._foreign.append(name)


def _pretend(name: str) -> None:
    """A dry run's hands."""


class _Crew:
    """Two threads that work through batches; none is started before there is one."""

    def __init__(self, work: Callable[["Queue[list[str] | None]"], None]) -> None:
        self._work = work
        self._batches: Queue[list[str] | None] | None = None
        self._threads: list[threading.Thread] = []

    def give(self, names: list[str]) -> None:
        if self._batches is None:
            self._batches = self._start()
        self._batches.put(names)

    def _start(self) -> "Queue[list[str] | None]":
        from queue import Queue  # noqa: PLC0415 - a small cache needs no crew, and starts faster

        batches: Queue[list[str] | None] = Queue(_QUEUED_BATCHES)
        for _ in range(WORKERS):
            thread = threading.Thread(target=self._work, args=(batches,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return batches

    def dismiss(self) -> None:
        if self._batches is not None:
            for _ in self._threads:
                self._batches.put(None)
            for thread in self._threads:
                thread.join()
