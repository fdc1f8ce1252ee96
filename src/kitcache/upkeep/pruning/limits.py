"""How much all that the tags reach may hold, by a policy and by what its disk has left."""

import os
from typing import NamedTuple

from kitcache.gc.collect import SurveyedPlan
from kitcache.gc.control import Control
from kitcache.oci.digest import Digest
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy
from kitcache.options.units import format_bytes
from kitcache.store.directory import DirectoryStore
from kitcache.store.ioerrors import io_error
from kitcache.store.scan import scan_blobs
from kitcache.upkeep.project import project


class Limit(NamedTuple):
    """For all that the tags reach, in bytes; below 0 where even an empty cache would not do.

    option: as it is written, with a percentage if it has one; wanted_bytes: what it asks for. held:
    what keeps its room whatever goes, and so counts as if it stayed.
    """

    bytes: int
    option: str
    wanted_bytes: int
    held: frozenset[Digest] = frozenset()

    @property
    def name(self) -> str:
        """The option with its value, for eyes."""
        return self.spell(format_bytes(self.wanted_bytes))

    def spell(self, size: str) -> str:
        """The option with its value, where that has been spelled."""
        return f"{self.option} ({size})" if self.option.endswith("%") else f"{self.option} {size}"


def find_limits(
    layout: DirectoryStore, judged: SurveyedPlan, policy: PrunePolicy, control: Control
) -> tuple[Limit, ...]:
    """Those that the policy names, the tighter one first. Raises Cancelled, KitcacheError."""
    allowed, wanted = policy.max_used, policy.min_free
    if allowed is None and wanted is None:
        return ()
    size, free = _disk(layout)
    limits = []
    if allowed is not None:
        option = _spell(policy, "max-used-space", allowed)
        limits.append(Limit(allowed.of(size), option, allowed.of(size)))
    if wanted is not None:
        free += _freed_by_sweep(layout, judged, control)
        room = free + judged.survey.live_tally.bytes - wanted.of(size)
        option = _spell(policy, "min-free-space", wanted)
        limits.append(Limit(room, option, wanted.of(size), _held(layout, judged)))
    return tuple(sorted(limits, key=lambda limit: limit.bytes))


def _spell(policy: PrunePolicy, key: str, amount: DiskSpace) -> str:
    return policy.spell(key, None if amount.percentage is None else f"{amount.percentage:g}%")


def _disk(layout: DirectoryStore) -> tuple[int, int]:
    """The size of the cache's file system, and what is free there for its user, in bytes."""
    try:
        found = os.fstatvfs(layout.root_fd)
    except OSError as error:
        raise io_error(layout.path, "cannot ask how full the disk is", error) from None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _freed_by_sweep(layout: DirectoryStore, judged: SurveyedPlan, control: Control) -> int:
    """What garbage and unfinished uploads give back, in bytes."""
    plan = judged.plan
    freed = sum(ingest.bytes for ingest in plan.drop_ingests)
    for algorithm in layout.blobs:
        for batch in scan_blobs(layout, algorithm):
            control.check()
            for name in batch.names:
                if name not in plan.keep[algorithm]:
                    found = layout.stat_blob(Digest(algorithm, name))
                    freed += found.size if found is not None and found.names == 1 else 0
    return freed


def _held(layout: DirectoryStore, judged: SurveyedPlan) -> frozenset[Digest]:
    """What keeps its room though all entries go: files with other names, and what is too young."""
    survey, plan = judged.survey, judged.plan
    found = {digest: layout.stat_blob(digest) for digest in survey.live}
    linked = {digest for digest, blob in found.items() if blob and blob.names > 1}
    young = [
        digest
        for digest, blob in found.items()
        if blob and plan.is_too_young(blob.mtime_ns, blob.ctime_ns)
    ]
    positions = {root.position for root in survey.roots}
    bare = project(survey, drop=positions, young=young, index_digest=survey.index_digest)
    return frozenset(linked | (bare.young.keys() & survey.live.keys()))
