"""Every blob's bytes against its digest, on all cores.

Small files are hashed by the caller's own thread: what they cost is calls, and threads that take
the interpreter from each other between calls are slower than one. Large ones go to a thread a
core, since hashing lets go of the interpreter.
"""

import os
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
from kitcache.store.hashing import BlobHasher
from kitcache.upkeep.results import BadBlob

_SMALL_BYTES = 64 * 1024
# A cancel is noticed between two chunks. 256 KiB take a millisecond, and stay in a core's cache.
_CHUNK_BYTES = 256 * 1024
_GLANCE_S = 0.02
_TELL_S = 0.1
_COUNT_AFTER_S = 1.0


class HashResult(NamedTuple):
    """How many blobs were hashed, with the bytes of their files, and which are not what they say.

    bad: in the order of their digests; among them what is no regular file. links: those that lead
    to one, which are not followed any further.
    """

    blobs: Tally
    bad: tuple[BadBlob, ...]
    links: tuple[Digest, ...] = ()


def rehash(layout: DirectoryStore, control: Control) -> HashResult:
    """Hash every file below blobs/<known algorithm>/ that has a blob's name.

    The layout's directories have been opened. A blob that vanishes meanwhile is not counted. Memory
    grows with what is bad or odd alone. Tells Progress in this thread; what there is in all is
    counted once a second has passed. Raises Cancelled within a tenth of a second, inside a large
    blob too, and KitcacheError where a directory cannot be listed.
    """
    odd: list[Digest] = []
    with closing(_every_blob(layout, odd)) as digests:
        found = _rehash(layout, control, digests, is_all=True)
    return _look_at_odd(layout, found, odd)


def rehash_some(layout: DirectoryStore, digests: Iterable[Digest], control: Control) -> HashResult:
    """The same of these blobs; of them are counted those that are there."""
    odd: list[Digest] = []
    found = _rehash(layout, control, _sort_out(layout, digests, odd), is_all=False)
    return _look_at_odd(layout, found, odd)


def _sort_out(
    layout: DirectoryStore, digests: Iterable[Digest], odd: list[Digest]
) -> Iterator[Digest]:
    """Those that are regular files. odd: gets those that are something else."""
    for digest in digests:
        found = layout.stat_blob(digest)
        if found is not None and found.kind == "file":
            yield digest
        elif found is not None:
            odd.append(digest)


def _look_at_odd(layout: DirectoryStore, hashed: HashResult, odd: Iterable[Digest]) -> HashResult:
    """The same, with what is not a regular file."""
    bad, links = list(hashed.bad), []
    for digest in odd:
        found = layout.stat_blob(digest)
        if found is None or found.kind == "file":
            continue  # gone, or a blob, by now
        real, _ = layout.follow_symlink(digest)
        if real is None:
            bad.append(BadBlob(digest, "is a link that leads to nothing", 0))
        elif real.kind == "other":
            bad.append(BadBlob(digest, "is not a regular file", 0))
        else:
            links.append(digest)
    return hashed._replace(bad=tuple(sorted(bad)), links=tuple(sorted(links)))


def _every_blob(layout: DirectoryStore, odd: list[Digest] | None = None) -> Generator[Digest]:
    """odd: gets what has the name of a blob and is none."""
    for batch in layout.scan_blobs():
        for name in batch.names:
            yield Digest(batch.algorithm, name)
        if odd is not None:
            names = [path.rpartition("/")[2] for path in batch.foreign]
            odd += [Digest(batch.algorithm, n) for n in names if is_blob_name(batch.algorithm, n)]


def _rehash(
    layout: DirectoryStore, control: Control, digests: Iterable[Digest], *, is_all: bool
) -> HashResult:
    with _Pool(layout, control) as pool:
        own = _Worker(layout, pool.stop, _SMALL_BYTES)
        hands = [own]
        teller = _ProgressReporter(layout, control, hands, counts=is_all)
        for digest in digests:
            control.check()
            if not own.take(digest, largest=_SMALL_BYTES):
                hands[1:] = pool.start()
                if not hands[1:]:
                    own.take(digest)
                while hands[1:] and not pool.offer(digest):
                    teller.tell()
            teller.tell()
        while not pool.finish():
            teller.tell()
        teller.tell(is_last=True)
    bad = sorted(one for hand in hands for one in hand.bad)
    return HashResult(_tally(hands), tuple(bad))


def _tally(hands: Iterable["_Worker"]) -> Tally:
    return Tally(sum(hand.blobs for hand in hands), sum(hand.bytes for hand in hands))


class _Worker:
    """What one thread hashes, and what it found. Others read the figures while it works."""

    def __init__(self, layout: DirectoryStore, stop: Event, chunk_bytes: int) -> None:
        self._hasher = BlobHasher(layout, stop, chunk_bytes)
        self.blobs = 0
        self.bad: list[BadBlob] = []

    @property
    def bytes(self) -> int:
        return self._hasher.bytes

    def take(self, digest: Digest, *, largest: int | None = None) -> bool:
        """Hash a blob; False where it is larger than that, in bytes."""
        found = self._hasher.hash_blob(digest, largest=largest)
        if found == "large":
            return False
        if not isinstance(found, str):
            self.blobs += 1
            if found.problem:
                self.bad.append(BadBlob(digest, found.problem, found.size))
        return True


class _Pool:
    """A thread a core, from the first large blob on; all have ended when the block has."""

    def __init__(self, layout: DirectoryStore, control: Control) -> None:
        self._layout = layout
        self._control = control
        self._cores = _count_cores()
        self._hands: list[_Worker] = []
        self._threads: list[Thread] = []
        self._failures: list[BaseException] = []
        # None: there is no more to come; each thread leaves it for the next one.
        self._waiting: Queue[Digest | None] = Queue(2 * self._cores)
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
                self._waiting.get_nowait()
        self._waiting.put_nowait(None)
        for thread in self._threads:
            thread.join()

    def start(self) -> list[_Worker]:
        """The hands of all threads, which have been started; none where the system has none."""
        while len(self._threads) < self._cores:
            hand = _Worker(self._layout, self.stop, _CHUNK_BYTES)
            thread = Thread(target=self._work, args=(hand,), name="kitcache-rehash")
            try:
                thread.start()
            except RuntimeError:  # fewer take longer
                self._cores = len(self._threads)
                break
            self._threads.append(thread)
            self._hands.append(hand)
        return self._hands

    def offer(self, digest: Digest) -> bool:
        """Hand over a blob; False where no thread had time for it for a moment."""
        self._check()
        return self._put(digest)

    def finish(self) -> bool:
        """No more comes: whether all is hashed. Waits for a moment where it is not."""
        self._check()
        if self._threads and not self._is_closed:
            self._is_closed = self._put(None)
            return False
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_GLANCE_S)
                return False
        self._check()
        return True

    def _put(self, digest: Digest | None) -> bool:
        try:
            self._waiting.put(digest, timeout=_GLANCE_S)
        except Full:
            return False
        return True

    def _check(self) -> None:
        self._control.check()
        if self._failures:
            raise self._failures[0]

    def _work(self, hand: _Worker) -> None:
        try:
            while (digest := self._waiting.get()) is not None:
                hand.take(digest)
            self._waiting.put_nowait(None)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._failures.append(error)


class _ProgressReporter:
    """Says how far the hands are, ten times a second, where somebody listens."""

    def __init__(
        self, layout: DirectoryStore, control: Control, hands: list[_Worker], *, counts: bool
    ) -> None:
        self._layout = layout
        self._control = control
        self._hands = hands
        self._counts = counts
        self._began_s = time.monotonic()
        self._next_s = inf if control.on_progress is None else self._began_s + _TELL_S
        self._total_bytes = 0

    def tell(self, *, is_last: bool = False) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s and not is_last:
            return
        self._next_s = now_s + _TELL_S
        if self._counts and now_s >= self._began_s + _COUNT_AFTER_S and not is_last:
            self._counts = False
            self._total_bytes = self._count_bytes()
        done = _tally(self._hands)
        seconds = time.monotonic() - self._began_s
        self._control.report(Progress("verify", *done, self._total_bytes, seconds))

    def _count_bytes(self) -> int:
        total = 0
        for digest in _every_blob(self._layout):
            self._control.check()
            found = self._layout.stat_blob(digest)
            total += found.size if found else 0
        return total


def _count_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
