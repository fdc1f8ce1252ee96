"""The blobs of a merge: plans the copies in order, and makes them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from kitcache.errors import Damaged, Unreadable
from kitcache.gc.control import Control
from kitcache.gc.reach import reach
from kitcache.gc.values import Root, Survey, Tally
from kitcache.oci.digest import Digest
from kitcache.store.directory import DirectoryStore
from kitcache.store.ingest import find_blob
from kitcache.store.ioerrors import repair_command
from kitcache.store.transfer import CopyMethod, copy_blob, is_on_file_system_of
from kitcache.store.write import sync_blobs
from kitcache.upkeep.meter import Meter


class BlobCopy(NamedTuple):
    """A blob to copy.

    Attributes:
        source: The number of the cache that has it.
        size: Of its file, in bytes.
        root: A root that reaches it.
    """

    source: int
    digest: Digest
    size: int
    root: Root


class CopyPlan(NamedTuple):
    """All blobs to copy, each once. No blob of `structure` precedes a blob that it references."""

    leaves: tuple[BlobCopy, ...]
    structure: tuple[BlobCopy, ...]

    @property
    def blobs(self) -> tuple[BlobCopy, ...]:
        """All blobs, in order."""
        return self.leaves + self.structure


class CopyCounts(NamedTuple):
    """How blobs were copied. reused: They existed in the target."""

    linked: Tally = Tally()
    copied: Tally = Tally()
    reused: Tally = Tally()


def plan_copies(surveys: Sequence[Survey], roots: Sequence[tuple[int, Root]]) -> CopyPlan:
    """Return all existing blobs that these roots reach.

    Args:
        roots: Each with the number of its survey.
    """
    copies: dict[Digest, BlobCopy] = {}
    for source, root in roots:
        live = surveys[source].live
        if root.descriptor is not None:
            for digest in reach(surveys[source], root.descriptor):
                if digest in live and digest not in copies:
                    copies[digest] = BlobCopy(source, digest, live[digest], root)
    order = _children_first(surveys)
    parents = frozenset(order)
    return CopyPlan(
        tuple(copy for digest, copy in copies.items() if digest not in parents),
        tuple(copies[digest] for digest in order if digest in copies),
    )


def _children_first(surveys: Sequence[Survey]) -> list[Digest]:
    """Return all blobs that reference other blobs, each after the blobs that it references."""
    links = [pair for survey in surveys for pair in survey.links.items() if pair[1]]
    parents = {key[0] for key, _ in links}
    graph = TopologicalSorter[Digest]()
    for key, below in links:
        children = (link.descriptor.digest for link in below)
        graph.add(key[0], *(digest for digest in children if digest in parents))
    try:
        return list(graph.static_order())
    except CycleError:
        # Only a symlink in place of a blob can make a cycle. Its copy fails and ends the merge.
        return sorted(parents)


def copy_all(
    sources: Sequence[DirectoryStore], target: DirectoryStore, plan: CopyPlan, control: Control
) -> CopyCounts:
    """Copy all blobs and make their names durable, leaves before structure.

    The caller holds all locks and has opened the directories. Raises as copy_blob, and Cancelled:
    blobs that were copied by then are kept.
    """
    copied = _count(_copy_each(sources, target, plan, control))
    control.check()
    return copied


def _copy_each(
    sources: Sequence[DirectoryStore], target: DirectoryStore, plan: CopyPlan, control: Control
) -> Iterator[tuple[CopyMethod, int]]:
    meter = Meter("merge", sum(copy.size for copy in plan.blobs), control)
    for part in plan:
        for copy in part:
            method = _copy(sources[copy.source], target, copy, meter)
            yield method, copy.size
            meter.finish(0 if method == "copied" else copy.size)
        # A manifest must not be durable before all blobs that it references.
        sync_blobs(target, with_bytes=True)


def _copy(
    source: DirectoryStore, target: DirectoryStore, copy: BlobCopy, meter: Meter
) -> CopyMethod:
    try:
        return copy_blob(source, target, copy.digest, copy.size, on_copied=meter.advance)
    except (Damaged, Unreadable) as error:
        raise name_root(error, copy, source.roots_name) from None


def name_root(error: Damaged | Unreadable, copy: BlobCopy, roots_name: str) -> Damaged | Unreadable:
    """Return the error of a blob that could not be copied, with the root that reaches it."""
    chain = (roots_name, str(copy.digest))
    if isinstance(error, Damaged):
        return Damaged(
            error.path,
            f"{copy.root.label} is not complete: {error.problem}",
            kind=error.kind,
            tag=copy.root.ref_name,
            chain=chain,
            hints=(repair_command(error.path),),
        )
    error.problem = f"{copy.root.label} cannot be copied: {error.problem}"
    error.tag, error.chain = copy.root.ref_name, chain
    return error


def dry_run(
    sources: Sequence[DirectoryStore],
    target: DirectoryStore | None,
    target_path: str,
    plan: CopyPlan,
    control: Control,
) -> CopyCounts:
    """Return the counts that copy_all would return, judged by file systems and lengths."""
    can_link = [is_on_file_system_of(source, target_path) for source in sources]

    def method_of(copy: BlobCopy) -> CopyMethod:
        control.check()
        if target is not None and find_blob(target, copy.digest, copy.size) is not None:
            return "reused"
        return "linked" if can_link[copy.source] else "copied"

    return _count((method_of(copy), copy.size) for copy in plan.blobs)


def _count(copies: Iterable[tuple[CopyMethod, int]]) -> CopyCounts:
    blobs, sizes = Counter[CopyMethod](), Counter[CopyMethod]()
    for method, size in copies:
        blobs[method] += 1
        sizes[method] += size
    return CopyCounts(**{method: Tally(blobs[method], sizes[method]) for method in blobs})
