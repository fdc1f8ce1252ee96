"""The last use of a tag: from kitcache's records, and from the times of its results."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kitcache.gc.values import UsedFrom
from kitcache.oci.digest import Digest
from kitcache.store.protocol import CacheStore

if TYPE_CHECKING:
    from kitcache.store.values import TagUse

AHEAD_NS = 60 * 10**9
"""A time that is further in the future is ignored, because a clock was wrong."""

Use = tuple[int, UsedFrom]


def recorded_uses(use: "TagUse") -> Iterator[Use]:
    """Yield the recorded exports and imports of a tag."""
    if use.exported_ns is not None:
        yield use.exported_ns, "export"
    if use.imported_ns is not None:
        yield use.imported_ns, "import"


def made_uses(store: CacheStore, root: Digest, times: Sequence[int], now_ns: int) -> Iterator[Use]:
    """Yield the newest result's time; if no time is usable, also that of the manifest's file."""
    usable = [time_ns for time_ns in times if not _is_ahead(time_ns, now_ns)]
    if times:
        yield max(usable or times), "cacheconfig"
    if not usable:
        stat = store.stat_blob(root)
        if stat is not None:
            yield stat.mtime_ns, "manifest"


def last_use(uses: Sequence[Use], now_ns: int) -> Use:
    """Return the newest use that is not in the future; the current time if there is none.

    Of equal uses the first counts.
    """
    usable = [use for use in uses if not _is_ahead(use[0], now_ns)]
    if usable:
        return max(usable, key=lambda use: use[0])
    return now_ns, uses[0][1] if uses else "unknown"


def _is_ahead(time_ns: int, now_ns: int) -> bool:
    return time_ns > now_ns + AHEAD_NS
