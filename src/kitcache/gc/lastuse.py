"""When a tag was last used: by what is noted of it, and by when its results were made."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kitcache.gc.values import UsedFrom
from kitcache.oci.digest import Digest
from kitcache.store.protocol import CacheStore

if TYPE_CHECKING:
    from kitcache.store.state import TagUse

AHEAD_NS = 60 * 10**9
"""A time further ahead than this is none: some clock was wrong."""

Use = tuple[int, UsedFrom]


def recorded_uses(use: "TagUse") -> Iterator[Use]:
    """The exports and imports that are noted of a tag."""
    if use.exported_ns is not None:
        yield use.exported_ns, "export"
    if use.imported_ns is not None:
        yield use.imported_ns, "import"


def made_uses(store: CacheStore, root: Digest, made: Sequence[int], now_ns: int) -> Iterator[Use]:
    """When its newest result was made; where that is not to be believed, its manifest written."""
    sound = [time_ns for time_ns in made if not _is_ahead(time_ns, now_ns)]
    if made:
        yield max(sound or made), "cacheconfig"
    if not sound:
        written = store.stat_blob(root)
        if written is not None:
            yield written.mtime_ns, "manifest"


def last_use(uses: Sequence[Use], now_ns: int) -> Use:
    """The newest of these times; now, where each of them is more than a minute ahead, or none is.

    The first one counts where two are the same.
    """
    sound = [use for use in uses if not _is_ahead(use[0], now_ns)]
    if sound:
        return max(sound, key=lambda use: use[0])
    return now_ns, uses[0][1] if uses else "unknown"


def _is_ahead(time_ns: int, now_ns: int) -> bool:
    return time_ns > now_ns + AHEAD_NS
