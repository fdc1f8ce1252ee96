"""Hashes blobs on all cores and compares the hashes with the names.

The caller's thread hashes small files: they cost system calls, and threads that contend for the GIL
between calls are slower than one. Large files go to one thread per core, because hashing releases
the GIL.
"""

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from math import inf
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import NamedTuple, Self

from kitcache.gc.control import Control
from kitcache.gc.values import Progress, Tally
from kitcache.oci.digest import Digest, is_blob_name
from kitcache.store.directory import DirectoryStore
from kitcache.store.hashing import BlobHasher, count_cores
from kitcache.upkeep.results import BadBlob

_SMALL_BYTES = 64 * 1024
# Cancellation is checked between two chunks. 256 KiB take a millisecond and fit a core's cache.
_CHUNK_BYTES = 256 * 1024
_WAIT_S = 0.02
_REPORT_S = 0.1
_COUNT_AFTER_S = 1.0


class HashResult(NamedTuple):
    """The result of hashing.

    Attributes:
        blobs: The existing blobs, with the sizes of their files.
        bad_blobs: Blobs that do not match their digest, by digest; also names of blobs that are
            not regular files.
        symlinks: Those that lead to a file; it is not read.
        began_ns: When hashing began, by the clock of the file system; 0 if unknown. Files that are
            written, replaced or added afterwards have a later time.
    """

    blobs: Tally
    bad_blobs: tuple[BadBlob, ...]
    symlinks: tuple[Digest, ...] = ()
    began_ns: int = 0


def hash_all(
    store: DirectoryStore, control: Control, *, before: HashResult | None = None, began_ns: int = 0
) -> HashResult:
    """Hash every blob below blobs/<known algorithm>/. The store's directories have been opened.

    A blob that is deleted before it is read is not counted. Memory grows with the bad blobs only.
    Progress is reported in the caller's thread; the total is counted after one second.

    Args:
        before: Skip the blobs that were intact then and have not changed since.

    Raises:
        Cancelled: Within a tenth of a second, also inside a large blob.
        KitcacheError: A directory cannot be listed.
    """
    irregular: list[Digest] = []
    skipped = Tally()
    suspects = {blob.digest for blob in before.bad_blobs} if before else set()

    def changed() -> Generator[Digest]:
        nonlocal skipped
        for digest in _every_blob(store, irregular):
            if before is not None and digest not in suspects:
                stat = store.stat_blob(digest)
                # No program can set a file's change time.
                if stat and max(stat.mtime_ns, stat.ctime_ns) < before.began_ns:
                    skipped = skipped.plus(Tally(1, stat.size))
                    continue
            yield digest

    with closing(changed()) as digests:
        result = _hash(store, control, digests, counts_total=True)
    result = _add_irregular(store, result, irregular)
    return result._replace(blobs=result.blobs.plus(skipped), began_ns=began_ns)


def hash_some(store: DirectoryStore, digests: Iterable[Digest], control: Control) -> HashResult:
    """Hash these blobs as hash_all does; count those that exist."""
    irregular: list[Digest] = []

    def regular() -> Iterator[Digest]:
        for digest in digests:
            stat = store.stat_blob(digest)
            if stat is not None and stat.kind == "file":
                yield digest
            elif stat is not None:
                irregular.append(digest)

    result = _hash(store, control, regular(), counts_total=False)
    return _add_irregular(store, result, irregular)


def _add_irregular(
    store: DirectoryStore, result: HashResult, digests: Iterable[Digest]
) -> HashResult:
    bad_blobs, symlinks = list(result.bad_blobs), []
    for digest in digests:
        stat = store.stat_blob(digest)
        if stat is None or stat.kind == "file":
            continue  # deleted or replaced since it was listed
        target, _ = store.follow_symlink(digest)
        if target is None:
            bad_blobs.append(BadBlob(digest, "is a symlink that leads to nothing", 0))
        elif target.kind == "other":
            bad_blobs.append(BadBlob(digest, "is not a regular file", 0))
        else:
            symlinks.append(digest)
    return result._replace(bad_blobs=tuple(sorted(bad_blobs)), symlinks=tuple(sorted(symlinks)))


def _every_blob(store: DirectoryStore, irregular: list[Digest] | None = None) -> Iterator[Digest]:
    """Yield the digest of every regular file; append the names of blobs that are not files."""
    for batch in store.scan_blobs():
        for name in batch.names:
            yield Digest(batch.algorithm, name)
        if irregular is not None:
            names = [path.rpartition("/")[2] for path in batch.foreign]
            irregular += [
                Digest(batch.algorithm, n) for n in names if is_blob_name(batch.algorithm, n)
            ]


def _hash(
    store: DirectoryStore, control: Control, digests: Iterable[Digest], *, counts_total: bool
) -> HashResult:
    with _Pool(store, control) as pool:
        own = _Worker(store, pool.stop, _SMALL_BYTES)
        workers = [own]
        reporter = _ProgressReporter(store, control, workers, counts_total=counts_total)
        for digest in digests:
            control.check()
            if not own.hash(digest, largest=_SMALL_BYTES):
                workers[1:] = pool.start()
                if not workers[1:]:
                    own.hash(digest)
                while workers[1:] and not pool.offer(digest):
                    reporter.report()
            reporter.report()
        while not pool.finish():
            reporter.report()
        reporter.report(is_last=True)
    bad_blobs = sorted(blob for worker in workers for blob in worker.bad_blobs)
    return HashResult(_sum(workers), tuple(bad_blobs))


def _sum(workers: Iterable["_Worker"]) -> Tally:
    return Tally(sum(w.blobs for w in workers), sum(w.bytes for w in workers))


class _Worker:
    """Hashes blobs in one thread. Other threads read its counters while it runs."""

    def __init__(self, store: DirectoryStore, stop: Event, chunk_bytes: int) -> None:
        self._hasher = BlobHasher(store, stop, chunk_bytes)
        self.blobs = 0
        self.bad_blobs: list[BadBlob] = []

    @property
    def bytes(self) -> int:
        return self._hasher.bytes

    def hash(self, digest: Digest, *, largest: int | None = None) -> bool:
        """Hash a blob; return False if its file has more than `largest` bytes."""
        hashed = self._hasher.hash_blob(digest, largest=largest)
        if hashed == "large":
            return False
        if not isinstance(hashed, str):
            self.blobs += 1
            if hashed.problem:
                self.bad_blobs.append(BadBlob(digest, hashed.problem, hashed.size))
        return True


class _Pool:
    """One thread per core, started at the first large blob and joined at the end of the block."""

    def __init__(self, store: DirectoryStore, control: Control) -> None:
        self._store = store
        self._control = control
        self._cores = count_cores()
        self._workers: list[_Worker] = []
        self._threads: list[Thread] = []
        self._failures: list[BaseException] = []
        # None ends the queue; each thread leaves it to the next one.
        self._queue: Queue[Digest | None] = Queue(2 * self._cores)
        self._is_closed = False
        self.stop = Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop.set()
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put_nowait(None)
        for thread in self._threads:
            thread.join()

    def start(self) -> list[_Worker]:
        """Start the threads and return their workers; an empty list if no thread can be started."""
        while len(self._threads) < self._cores:
            worker = _Worker(self._store, self.stop, _CHUNK_BYTES)
            thread = Thread(target=self._work, args=(worker,), name="kitcache-hash")
            try:
                thread.start()
            except RuntimeError:  # The system allows no more threads: use those that started.
                self._cores = len(self._threads)
                break
            self._threads.append(thread)
            self._workers.append(worker)
        return self._workers

    def offer(self, digest: Digest) -> bool:
        """Queue a blob; return False if the queue was full for 20 ms."""
        self._check()
        return self._put(digest)

    def finish(self) -> bool:
        """Close the queue; return True if every blob is hashed, else wait for at most 20 ms."""
        self._check()
        if self._threads and not self._is_closed:
            self._is_closed = self._put(None)
            return False
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_WAIT_S)
                return False
        self._check()
        return True

    def _put(self, digest: Digest | None) -> bool:
        try:
            self._queue.put(digest, timeout=_WAIT_S)
        except Full:
            return False
        return True

    def _check(self) -> None:
        self._control.check()
        if self._failures:
            raise self._failures[0]

    def _work(self, worker: _Worker) -> None:
        try:
            while (digest := self._queue.get()) is not None:
                worker.hash(digest)
            self._queue.put_nowait(None)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._failures.append(error)


class _ProgressReporter:
    """Reports the progress of the workers ten times a second, if the caller wants it."""

    def __init__(
        self, store: DirectoryStore, control: Control, workers: list[_Worker], *, counts_total: bool
    ) -> None:
        self._store = store
        self._control = control
        self._workers = workers
        self._counts_total = counts_total
        self._began_s = time.monotonic()
        self._next_s = inf if control.on_progress is None else self._began_s + _REPORT_S
        self._total_bytes = 0

    def report(self, *, is_last: bool = False) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s and not is_last:
            return
        self._next_s = now_s + _REPORT_S
        if self._counts_total and now_s >= self._began_s + _COUNT_AFTER_S and not is_last:
            self._counts_total = False
            for digest in _every_blob(self._store):
                self._control.check()
                stat = self._store.stat_blob(digest)
                self._total_bytes += stat.size if stat else 0
        seconds = time.monotonic() - self._began_s
        done = _sum(self._workers)
        self._control.report(Progress("verify", *done, self._total_bytes, seconds))
