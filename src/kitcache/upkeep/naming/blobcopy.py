"""The blobs of several caches into one: which, in which order, how each came, whether it stays."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from kitcache.errors import Damaged, Unreadable
from kitcache.gc.control import Control
from kitcache.gc.reach import reach
from kitcache.gc.values import Progress, Root, Survey, Tally
from kitcache.oci.digest import Digest
from kitcache.store.directory import DirectoryStore
from kitcache.store.index import sync_root
from kitcache.store.ingest import find_blob
from kitcache.store.ioerrors import command_line
from kitcache.store.layout import look_at_open
from kitcache.store.transfer import CopyMethod, copy_blob
from kitcache.store.write import sync_blobs


class BlobCopy(NamedTuple):
    """A blob that is to come.

    source: which of the caches has it. size: of its file, in bytes. root: who reaches it.
    """

    source: int
    digest: Digest
    size: int
    root: Root


class CopyPlan(NamedTuple):
    """All that is to come, each blob once: first what names no other, then what does.

    Of the structure, nothing comes before what it names.
    """

    leaves: tuple[BlobCopy, ...]
    structure: tuple[BlobCopy, ...]


class CopyCounts(NamedTuple):
    """How blobs came: as the source's own file, as a copy, or not at all since they were there."""

    linked: Tally = Tally()
    copied: Tally = Tally()
    reused: Tally = Tally()


def list_wants(surveys: Sequence[Survey], roots: Sequence[tuple[int, Root]]) -> CopyPlan:
    """All that these roots, each of one of the surveys, reach and that is there. Pure."""
    found: dict[Digest, BlobCopy] = {}
    for source, root in roots:
        live = surveys[source].live
        if root.descriptor is not None:
            for digest in reach(surveys[source], root.descriptor):
                if digest in live and digest not in found:
                    found[digest] = BlobCopy(source, digest, live[digest], root)
    order = _children_first(surveys)
    parents = frozenset(order)
    return CopyPlan(
        tuple(one for digest, one in found.items() if digest not in parents),
        tuple(found[digest] for digest in order if digest in found),
    )


def _children_first(surveys: Sequence[Survey]) -> list[Digest]:
    """All that names other blobs, each after those of its children that do so too."""
    links = [pair for survey in surveys for pair in survey.links.items() if pair[1]]
    parents = {key[0] for key, _ in links}
    graph = TopologicalSorter[Digest]()
    for key, below in links:
        children = (link.descriptor.digest for link in below)
        graph.add(key[0], *(digest for digest in children if digest in parents))
    try:
        return list(graph.static_order())
    except CycleError:
        # A blob that is a link leads back to what names it: it does not come, and ends the merge.
        return sorted(parents)


def bring_all(
    sources: Sequence[DirectoryStore], target: DirectoryStore, wants: CopyPlan, control: Control
) -> CopyCounts:
    """Bring them, put their names on the disk, and say how they came.

    The locks are held and the directories open. Raises as bring_blob does, and Cancelled, between
    blobs, while one is copied and at the end: what had come by then stays.
    """
    came = _sum_up(_bring_each(sources, target, wants, _Meter(wants, control)))
    sync_root(target)
    control.check()
    return came


def _bring_each(
    sources: Sequence[DirectoryStore], target: DirectoryStore, wants: CopyPlan, meter: "_Meter"
) -> Iterator[tuple[CopyMethod, int]]:
    for part in wants:
        for one in part:
            yield _bring(sources[one.source], target, one, meter), one.size
            meter.end(one.size)
        # No manifest has a name on the disk before all that it names.
        sync_blobs(target, with_bytes=True)


def _bring(
    source: DirectoryStore, target: DirectoryStore, one: BlobCopy, meter: "_Meter"
) -> CopyMethod:
    try:
        return copy_blob(source, target, one.digest, one.size, on_copied=meter.advance)
    except Damaged as error:
        raise Damaged(
            error.path,
            f"{one.root.label} is not whole: {error.problem}",
            kind=error.kind,
            tag=one.root.ref_name,
            chain=("index.json", str(one.digest)),
            hints=(command_line("verify", error.path, "--repair"),),
        ) from None
    except Unreadable as error:
        error.problem = f"{one.root.label} cannot come: {error.problem}"
        error.tag, error.chain = one.root.ref_name, ("index.json", str(one.digest))
        raise


def dry_run(
    sources: Sequence[DirectoryStore],
    target: DirectoryStore | None,
    place: str,
    wants: CopyPlan,
    control: Control,
) -> CopyCounts:
    """What bring_all would say, as far as a look can tell. place: the path of the target."""
    device = _device_of(place)
    is_near = [
        look_at_open(source, source.root_fd, "the directory").st_dev == device for source in sources
    ]

    def how(one: BlobCopy) -> CopyMethod:
        control.check()
        if target is not None and find_blob(target, one.digest, one.size) is not None:
            return "reused"
        return "linked" if is_near[one.source] else "copied"

    return _sum_up((how(one), one.size) for part in wants for one in part)


def _device_of(path: str) -> int:
    """The file system that the path is on, or will be."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev


def _sum_up(came: Iterable[tuple[CopyMethod, int]]) -> CopyCounts:
    blobs, sizes = Counter[CopyMethod](), Counter[CopyMethod]()
    for how, size in came:
        blobs[how] += 1
        sizes[how] += size
    return CopyCounts(**{how: Tally(blobs[how], sizes[how]) for how in blobs})


def find_lost(
    target: DirectoryStore, wants: CopyPlan, control: Control
) -> tuple[BlobCopy, str] | None:
    """The first blob that came and is there no more, and what is wrong with it, a clause.

    What names other blobs is proven once more; of the rest the length is looked at, as in a survey.
    """
    for part in wants:
        for one in part:
            control.check()
            problem = _fault_of(target, one, proves=part is wants.structure)
            if problem:
                return one, problem
    return None


def _fault_of(target: DirectoryStore, one: BlobCopy, *, proves: bool) -> str:
    found = target.stat_blob(one.digest)
    if found is None:
        return "is missing"
    if found.size != one.size:
        return "is another one"
    try:
        if proves:
            target.read_blob(one.digest, one.size)
    except Damaged as error:
        return error.problem
    return ""


class _Meter:
    """How far it is, told as it goes."""

    def __init__(self, wants: CopyPlan, control: Control) -> None:
        self._control = control
        self._began_s = time.monotonic()
        self._total = sum(one.size for part in wants for one in part)
        self._blobs = self._whole = self._part = 0

    def advance(self, copied: int) -> None:
        """So many bytes of the blob at hand. Raises Cancelled."""
        self._part += copied
        self._tell()

    def end(self, size: int) -> None:
        """The blob at hand is there. Raises Cancelled."""
        self._blobs, self._whole, self._part = self._blobs + 1, self._whole + size, 0
        self._tell()

    def _tell(self) -> None:
        self._control.check()
        seconds = time.monotonic() - self._began_s
        done = self._whole + self._part
        self._control.report(Progress("merge", self._blobs, done, self._total, seconds))
