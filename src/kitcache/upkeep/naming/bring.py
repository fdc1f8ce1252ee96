"""The blobs of several caches into one: which, in which order, and how each came."""

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from kitcache.errors import Damaged
from kitcache.gc.control import Control
from kitcache.gc.reach import reach
from kitcache.gc.refusals import command_line
from kitcache.gc.values import Progress, Root, Survey, Tally
from kitcache.oci.digest import Digest
from kitcache.store.blobs import sync_blobs
from kitcache.store.index import sync_root
from kitcache.store.ingest import find_blob
from kitcache.store.layout import Layout
from kitcache.store.transfer import Brought, bring_blob


class Wanted(NamedTuple):
    """A blob that is to come.

    source: which of the caches has it. size: of its file, in bytes. root: who reaches it.
    """

    source: int
    digest: Digest
    size: int
    root: Root


class Wants(NamedTuple):
    """All that is to come, each blob once: first what names no other, then what does."""

    leaves: tuple[Wanted, ...]
    structure: tuple[Wanted, ...]


class Came(NamedTuple):
    """How blobs came: as the source's own file, as a copy, or not at all since they were there."""

    linked: Tally = Tally()
    copied: Tally = Tally()
    there: Tally = Tally()

    def plus(self, how: Brought, size: int) -> "Came":
        """One blob more."""
        return self._replace(**{how: getattr(self, how).plus(Tally(1, size))})


def list_wants(surveys: Sequence[Survey], roots: Sequence[tuple[int, Root]]) -> Wants:
    """All that these roots, each of one of the surveys, reach and that is there. Pure."""
    found: dict[Digest, Wanted] = {}
    for source, root in roots:
        live = surveys[source].live
        if root.descriptor is not None:
            for digest in reach(surveys[source], root.descriptor):
                if digest in live:
                    found.setdefault(digest, Wanted(source, digest, live[digest], root))
    parents = {key[0] for survey in surveys for key, links in survey.links.items() if links}
    return Wants(
        tuple(one for one in found.values() if one.digest not in parents),
        tuple(one for one in found.values() if one.digest in parents),
    )


def bring_all(sources: Sequence[Layout], target: Layout, wants: Wants, control: Control) -> Came:
    """Bring them, put their names on the disk, and say how they came.

    The locks are held and the directories open. Raises as bring_blob does, and Cancelled, between
    blobs and while one is copied: what had come by then stays.
    """
    count = _Count(wants, control)
    for part in wants:
        for one in part:
            count.end(_bring(sources[one.source], target, one, count), one.size)
        # No manifest has a name on the disk before all that it names.
        sync_blobs(target)
    sync_root(target)
    return count.came


def _bring(source: Layout, target: Layout, one: Wanted, count: "_Count") -> Brought:
    try:
        return bring_blob(source, target, one.digest, one.size, on_copied=count.advance)
    except Damaged as error:
        raise Damaged(
            error.path,
            f"{one.root.label} is not whole: {error.problem}",
            kind=error.kind,
            tag=one.root.ref_name,
            chain=("index.json", str(one.digest)),
            next_steps=(command_line("verify", error.path, "--repair"),),
        ) from None


def foresee(
    sources: Sequence[Layout], target: Layout | None, device: int, wants: Wants, control: Control
) -> Came:
    """What bring_all would say, as far as a look can tell. device: of the target's file system."""
    came = Came()
    for one in (*wants.leaves, *wants.structure):
        control.check()
        if target is not None and find_blob(target, one.digest, one.size) is not None:
            came = came.plus("there", one.size)
        else:
            is_near = os.fstat(sources[one.source].root_fd).st_dev == device
            came = came.plus("linked" if is_near else "copied", one.size)
    return came


class _Count:
    """How far it is, told as it goes."""

    def __init__(self, wants: Wants, control: Control) -> None:
        self.came = Came()
        self._control = control
        self._began_s = time.monotonic()
        self._total = sum(one.size for part in wants for one in part)
        self._blobs = self._whole = self._part = 0

    def advance(self, copied: int) -> None:
        """So many bytes of the blob at hand. Raises Cancelled."""
        self._part += copied
        self._tell()

    def end(self, how: Brought, size: int) -> None:
        """The blob at hand is there. Raises Cancelled."""
        self.came = self.came.plus(how, size)
        self._blobs, self._whole, self._part = self._blobs + 1, self._whole + size, 0
        self._tell()

    def _tell(self) -> None:
        self._control.check()
        seconds = time.monotonic() - self._began_s
        done = self._whole + self._part
        self._control.tell(Progress("merge", self._blobs, done, self._total, seconds))
