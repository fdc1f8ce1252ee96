"""Limits: the bytes that the tags may reach, by a policy and by the free space of the disk."""

from typing import NamedTuple

from kitcache.errors import UsageError
from kitcache.gc.collect import SurveyedPlan
from kitcache.gc.control import Control
from kitcache.oci.digest import Digest
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy
from kitcache.store.open import StoreAddress, find_object_cache
from kitcache.store.protocol import EditableStore
from kitcache.upkeep.project import project


class Limit(NamedTuple):
    """A limit in bytes for all blobs that the tags reach.

    Attributes:
        bytes: Below 0 if even an empty cache would exceed the limit.
        option: The option as the user writes it, with its percentage if it has one.
        wanted_bytes: The value of the option in bytes.
        held: Blobs that take space even if every tag is removed; they count as kept.
    """

    bytes: int
    option: str
    wanted_bytes: int
    held: frozenset[Digest] = frozenset()

    def spell(self, size: str) -> str:
        """Return the option with a size."""
        return f"{self.option} ({size})" if self.option.endswith("%") else f"{self.option} {size}"


def find_limits(
    store: EditableStore, planned: SurveyedPlan, policy: PrunePolicy, control: Control
) -> tuple[Limit, ...]:
    """Return the limits of the policy, smallest first. Raises Cancelled, KitcacheError."""
    max_used, min_free = policy.max_used, policy.min_free
    if max_used is None and min_free is None:
        return ()
    size, free = store.disk_size() if needs_disk(policy) else (0, 0)
    limits = []
    if max_used is not None:
        option = _spell(policy, "max-used-space", max_used)
        limits.append(Limit(max_used.of(size), option, max_used.of(size)))
    if min_free is not None:
        free += _freed_by_sweep(store, planned, control)
        allowed = free + planned.survey.live_tally.bytes - min_free.of(size)
        option = _spell(policy, "min-free-space", min_free)
        limits.append(Limit(allowed, option, min_free.of(size), _held(store, planned)))
    return tuple(sorted(limits, key=lambda limit: limit.bytes))


def needs_disk(policy: PrunePolicy) -> bool:
    """Return True if a limit depends on the size or the free space of a file system."""
    is_part = policy.max_used is not None and policy.max_used.percentage is not None
    return is_part or policy.min_free is not None


def check_disk(address: StoreAddress, policy: PrunePolicy) -> None:
    """Raise UsageError if a limit depends on a file system and the cache is in an object store."""
    cache = find_object_cache(address)
    if cache is None or not needs_disk(policy):
        return
    has_free = policy.min_free is not None
    key, size = (
        ("min-free-space", policy.min_free) if has_free else ("max-used-space", policy.max_used)
    )
    option = _spell(policy, key, size) if size else key
    raise UsageError(
        f"{option} needs a disk, and an object store has none",
        path=cache.address,
        hints=(f"write a size: {policy.spell('max-used-space', '500GB')}",),
    )


def _spell(policy: PrunePolicy, key: str, size: DiskSpace) -> str:
    return policy.spell(key, None if size.percentage is None else f"{size.percentage:g}%")


def _freed_by_sweep(store: EditableStore, planned: SurveyedPlan, control: Control) -> int:
    """Return the bytes that a sweep frees: unreachable blobs and abandoned uploads."""
    plan = planned.plan
    freed = sum(ingest.bytes for ingest in plan.drop_ingests)
    for batch in store.scan_blobs():
        control.check()
        for name in batch.names:
            if name not in plan.keep[batch.algorithm]:
                stat = store.stat_blob(Digest(batch.algorithm, name))
                freed += stat.size if stat is not None and stat.names == 1 else 0
    return freed


def _held(store: EditableStore, planned: SurveyedPlan) -> frozenset[Digest]:
    """Return the live blobs that no removal frees: files with other hard links, and young blobs."""
    survey, plan = planned.survey, planned.plan
    stats = {digest: store.stat_blob(digest) for digest in survey.live}
    linked = {digest for digest, stat in stats.items() if stat and stat.names > 1}
    young = [
        d for d, stat in stats.items() if stat and plan.is_too_young(stat.mtime_ns, stat.ctime_ns)
    ]
    positions = {root.position for root in survey.roots}
    empty = project(survey, drop=positions, young=young, index_digest=survey.index_digest)
    return frozenset(linked | (empty.young.keys() & survey.live.keys()))
