"""kitcache: BuildKit caches that do not grow.

The verbs are functions: reset, du, ls, why, untag. Each takes a cache directory and returns a
plain value; none prints or exits; failures are KitcacheErrors. Every name is loaded on first use,
so that `import kitcache` costs nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kitcache.errors import (
        Busy,
        Cancelled,
        Damaged,
        Incomplete,
        KitcacheError,
        NotACache,
        NotFound,
        Unsafe,
        UsageError,
    )
    from kitcache.gc.answers import BlobPath, Listing, Tag, TagUsage, Untagged, Usage, Why
    from kitcache.gc.explain import du, why
    from kitcache.gc.reset import reset
    from kitcache.gc.tags import ls
    from kitcache.gc.untag import untag
    from kitcache.gc.values import Damage, MissingLeaf, Progress, Report, Root, Tally
    from kitcache.oci.descriptor import Descriptor
    from kitcache.oci.digest import Digest
    from kitcache.oci.links import Link
    from kitcache.options.policy import Policy
    from kitcache.store.locks import Holder, Waiting

_HOMES = {
    "kitcache.errors": (
        "Busy",
        "Cancelled",
        "Damaged",
        "Incomplete",
        "KitcacheError",
        "NotACache",
        "NotFound",
        "Unsafe",
        "UsageError",
    ),
    "kitcache.gc.answers": (
        "BlobPath",
        "Listing",
        "Tag",
        "TagUsage",
        "Untagged",
        "Usage",
        "Why",
    ),
    "kitcache.gc.explain": ("du", "why"),
    "kitcache.gc.reset": ("reset",),
    "kitcache.gc.tags": ("ls",),
    "kitcache.gc.untag": ("untag",),
    "kitcache.gc.values": ("Damage", "MissingLeaf", "Progress", "Report", "Root", "Tally"),
    "kitcache.oci.descriptor": ("Descriptor",),
    "kitcache.oci.digest": ("Digest",),
    "kitcache.oci.links": ("Link",),
    "kitcache.options.policy": ("Policy",),
    "kitcache.store.locks": ("Holder", "Waiting"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BlobPath",
    "Busy",
    "Cancelled",
    "Damage",
    "Damaged",
    "Descriptor",
    "Digest",
    "Holder",
    "Incomplete",
    "KitcacheError",
    "Link",
    "Listing",
    "MissingLeaf",
    "NotACache",
    "NotFound",
    "Policy",
    "Progress",
    "Report",
    "Root",
    "Tag",
    "TagUsage",
    "Tally",
    "Unsafe",
    "Untagged",
    "Usage",
    "UsageError",
    "Waiting",
    "Why",
    "__version__",
    "du",
    "ls",
    "reset",
    "untag",
    "why",
]


if not TYPE_CHECKING:  # a checker that sees it takes every name for one of ours

    def __getattr__(name: str) -> Any:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'kitcache' has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 - the cheapest import is none

        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
