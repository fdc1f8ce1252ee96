"""The blobs of a copy: finds those that the target lacks, and sends them in parallel."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from kitcache.errors import Cancelled, Damaged, Unreadable
from kitcache.gc.control import Control
from kitcache.gc.values import Tally
from kitcache.oci.digest import Digest
from kitcache.store.protocol import EditableStore
from kitcache.store.values import BlobStat
from kitcache.upkeep.copying.threads import Finished, JobThreads
from kitcache.upkeep.meter import Meter
from kitcache.upkeep.naming.blobcopy import BlobCopy, name_root

THREADS = 8

_Method = Literal["copied", "reused"]


class TransferPlan(NamedTuple):
    """The layers of a copy, each once.

    Attributes:
        send: The target lacks them.
        reuse: The target has a blob of that name and size; its stat.
    """

    send: tuple[BlobCopy, ...]
    reuse: tuple[tuple[BlobCopy, BlobStat], ...]

    @property
    def copied(self) -> Tally:
        """The layers to send."""
        return Tally(len(self.send), sum(copy.size for copy in self.send))

    @property
    def reused(self) -> Tally:
        """The layers that the target has."""
        return Tally(len(self.reuse), sum(copy.size for copy, _ in self.reuse))


class TransferCounts(NamedTuple):
    """The layers that were sent, and those that the target had."""

    copied: Tally = Tally()
    reused: Tally = Tally()


def plan_transfer(target: EditableStore | None, copies: Collection[BlobCopy]) -> TransferPlan:
    """Divide the layers into those that the target lacks and those that it has."""
    stats: Mapping[Digest, BlobStat] = {}
    if target is not None:
        stats = dict(target.stat_blobs([copy.digest for copy in copies]))
    send, reuse = [], []
    for copy in copies:
        stat = stats.get(copy.digest)
        if stat is not None and stat.kind == "file" and stat.size == copy.size:
            reuse.append((copy, stat))
        else:
            send.append(copy)
    return TransferPlan(tuple(send), tuple(reuse))


def transfer(
    sources: Sequence[EditableStore], target: EditableStore, plan: TransferPlan, control: Control
) -> TransferCounts:
    """Send the layers that the target lacks, and protect those that it has from a sweep.

    The caller holds all locks. Blobs that were sent before an error are kept.

    Raises:
        Damaged: A source has no such blob, or other bytes. The error names the tag.
        Unreadable, KitcacheError: A source cannot be read, or the target not be written.
        Cancelled: No blob is partly written.
    """
    jobs: list[tuple[BlobCopy, BlobStat | None]] = [*plan.reuse, *((c, None) for c in plan.send)]
    meter = Meter("copy", plan.copied.bytes, control)

    def work(job: tuple[BlobCopy, BlobStat | None]) -> _Method:
        copy, stat = job
        if stat is not None and target.reuse_blob(copy.digest, stat):
            return "reused"
        target.put_blob(copy.digest, copy.size, parts_of(copy))
        return "copied"

    def parts_of(copy: BlobCopy) -> Iterator[bytes | memoryview]:
        source = sources[copy.source]
        try:
            for part in source.read_parts(copy.digest, copy.size):
                if threads.stop.is_set():
                    raise Cancelled(target.path)
                threads.report(len(part))
                yield part
        except (Damaged, Unreadable) as error:
            raise name_root(error, copy, source.roots_name) from None

    threads = JobThreads(jobs, work, THREADS)
    counts = {"copied": Tally(), "reused": Tally()}
    for event in threads.run(meter.report):
        if isinstance(event, Finished):
            counts[event.result] = counts[event.result].plus(Tally(1, event.job[0].size))
            meter.finish()
        else:
            meter.advance(event)
    return TransferCounts(**counts)
