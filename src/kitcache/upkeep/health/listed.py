"""Checks the blobs of an object store: by their listing, or by reading all of them.

To read a blob is a transfer, which costs time and money. So the blobs are read only if the caller
asks for it. The listing shows the blobs that are missing or have another size.
"""

from collections.abc import Iterable, Iterator

from kitcache.errors import Damaged
from kitcache.gc.control import Control
from kitcache.gc.values import Progress, Tally
from kitcache.oci.digest import Digest, is_blob_name
from kitcache.store.protocol import EditableStore
from kitcache.upkeep.copying.threads import Finished, JobThreads
from kitcache.upkeep.health.hash import HashResult
from kitcache.upkeep.meter import Meter
from kitcache.upkeep.results import BadBlob

_THREADS = 8

ListedBlob = tuple[Digest, int]
"""A blob and its size in the listing."""


def check_listed(store: EditableStore, control: Control, *, read: bool) -> HashResult:
    """Count all blobs. If `read` is set, read and hash them too.

    The first event has the bytes that will be transferred. It precedes the first transfer.

    Raises:
        Cancelled: Within a tenth of a second, also inside a large blob.
        KitcacheError: The store does not answer.
    """
    blobs = size = 0
    for _, length in list_blobs(store, control):
        blobs, size = blobs + 1, size + length
    if not read:
        return HashResult(Tally(blobs, size), ())
    control.report(Progress("verify", 0, 0, size))
    return _read(store, control, list_blobs(store, control), size)


def read_some(store: EditableStore, digests: Iterable[Digest], control: Control) -> HashResult:
    """Read and hash these blobs; count those that exist."""
    listed = [(digest, stat.size) for digest, stat in store.stat_blobs(frozenset(digests))]
    return _read(store, control, listed, sum(size for _, size in listed))


def list_blobs(store: EditableStore, control: Control) -> Iterator[ListedBlob]:
    """Yield all current blobs with their sizes."""
    for batch in store.scan_blobs():
        control.check()
        # A superseded version has another name, and no build reads it.
        digests = [
            Digest(batch.algorithm, name)
            for name in batch.names
            if is_blob_name(batch.algorithm, name)
        ]
        if batch.stats is None or len(digests) < len(batch.names):
            yield from ((digest, stat.size) for digest, stat in store.stat_blobs(digests))
        else:
            yield from zip(digests, (stat.st_size for stat in batch.stats), strict=True)


def _read(
    store: EditableStore, control: Control, listed: Iterable[ListedBlob], total_bytes: int
) -> HashResult:
    """Read and hash blobs in several threads. A blob that was deleted since is not counted."""
    meter = Meter("verify", total_bytes, control)

    def work(blob: ListedBlob) -> BadBlob | None:
        digest, size = blob
        try:
            for part in store.read_parts(digest, size):
                threads.report(len(part))
                if threads.stop.is_set():
                    break
        except Damaged as error:
            problem = "" if error.kind == "missing" else error.problem
            return BadBlob(digest, problem.removeprefix(f"blob {digest.short} "), size)
        return None

    threads = JobThreads(listed, work, _THREADS)
    blobs, bad_blobs = Tally(), list[BadBlob]()
    for event in threads.run(meter.report):
        if not isinstance(event, Finished):
            meter.advance(event)
        elif event.result is None or event.result.problem:
            blobs = blobs.plus(Tally(1, event.job[1]))
            bad_blobs += [event.result] if event.result else []
            meter.finish()
    return HashResult(blobs, tuple(sorted(bad_blobs)))
