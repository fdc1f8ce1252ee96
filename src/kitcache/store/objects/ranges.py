"""A long listing in parallel: the keys are divided into ranges, one request at a time in each."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import NamedTuple

from kitcache.store.objects.client import ObjectClient, ObjectInfo

_THREADS = 4
"""As many pages are in memory, each half a megabyte while it is parsed."""
_SEQUENTIAL_PAGES = 16
"""A listing with more pages is divided."""
_MIN_PAGES = 20
"""Each range ends with a page that is partly of the next range, so a range has many pages."""
_MAX_RANGES = 16
_SPACE = 16**4


class _Range(NamedTuple):
    """The keys from `start` on, and below `until` if that is not "". All are above `after`."""

    after: str
    start: str
    until: str


def list_ranges(
    client: ObjectClient, blobs_key: str, *, versions: bool
) -> Iterator[list[ObjectInfo]]:
    """Yield all objects whose keys begin with blobs_key, page by page.

    Pages of one range are in order. Of several ranges they are not. If the caller stops early, the
    threads end after their current request.
    """
    pages = client.list_pages(blobs_key, versions=versions)
    after = ""
    for number, page in enumerate(pages, 1):
        yield page.objects
        if page.is_last:
            return
        after = page.objects[-1].key
        if number == _SEQUENTIAL_PAGES and client.abilities().renews:
            break
    else:
        return
    yield from _Parallel(client, blobs_key, _divide(blobs_key, after), versions=versions).run()


def _divide(blobs_key: str, after: str) -> list[_Range]:
    """Return ranges that cover all keys above `after`. Digests are distributed evenly."""
    prefix = f"{blobs_key}sha256:"
    try:
        position = int(after.removeprefix(prefix)[:4], 16)
    except ValueError:
        position = 0
    left = _SPACE - position
    pages_left = _SEQUENTIAL_PAGES * left // max(position, 1)
    count = max(1, min(_MAX_RANGES, pages_left // _MIN_PAGES))
    starts = [position + left * number // count for number in range(1, count)]
    # A key below the first digest of the range; longer keys sort after it.
    places = [_Range(f"{prefix}{start - 1:04x}~", f"{prefix}{start:04x}", "") for start in starts]
    untils = [*(place.start for place in places), ""]
    return [
        place._replace(until=until)
        for place, until in zip([_Range(after, "", ""), *places], untils, strict=True)
    ]


class _Parallel:
    """Threads that list ranges. Their pages wait in a queue for the caller's thread."""

    def __init__(
        self, client: ObjectClient, blobs_key: str, ranges: list[_Range], *, versions: bool
    ) -> None:
        self._client = client
        self._blobs_key = blobs_key
        self._versions = versions
        self._ranges = iter(ranges)
        self._lock = threading.Lock()
        self._is_stopping = False
        self._results: SimpleQueue[list[ObjectInfo] | BaseException | None] = SimpleQueue()
        self._free_slots = threading.Semaphore(_THREADS)

    def run(self) -> Iterator[list[ObjectInfo]]:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        left = len(threads)
        try:
            while left:
                result = self._results.get()
                if isinstance(result, BaseException):
                    raise result
                if result is None:
                    left -= 1
                else:
                    yield result
                    self._free_slots.release()
        finally:
            self._is_stopping = True
            for _ in threads:
                self._free_slots.release()
            for thread in threads:
                thread.join()

    def _work(self) -> None:
        try:
            while not self._is_stopping:
                with self._lock:
                    part = next(self._ranges, None)
                if part is None:
                    break
                self._list(part)
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            self._results.put(error)
        else:
            self._results.put(None)

    def _list(self, part: _Range) -> None:
        pages = self._client.list_pages(self._blobs_key, after=part.after, versions=self._versions)
        is_last = False
        while not is_last:
            self._free_slots.acquire()
            page = None if self._is_stopping else next(pages, None)
            if page is None:
                self._free_slots.release()
                return
            objects = page.objects
            is_over = bool(part.until and objects and objects[-1].key >= part.until)
            if is_over or (objects and objects[0].key < part.start):
                objects = [
                    info
                    for info in objects
                    if part.start <= info.key and not (part.until and info.key >= part.until)
                ]
            self._results.put(objects)
            is_last = page.is_last or is_over
