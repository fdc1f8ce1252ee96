"""kitcache: BuildKit from Python, with caches that do not grow.

`Client` builds. The verbs are functions: reset, du, ls, why, untag; each takes a cache directory
and returns a plain value. Nothing here prints or exits; failures are KitcacheErrors. Every name is
loaded on first use, so that `import kitcache` costs nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kitcache.buildkit.build import Wishes
    from kitcache.buildkit.client import Build, Client
    from kitcache.buildkit.daemon.address import Address, find_daemon
    from kitcache.buildkit.daemon.tls import Tls
    from kitcache.buildkit.facts import Info, Worker
    from kitcache.buildkit.publish import CacheResult
    from kitcache.buildkit.result import BuildResult
    from kitcache.buildkit.session.registry import Credentials, DockerConfig
    from kitcache.buildkit.status import BuildWarning, Log, Transfer, Update, Vertex
    from kitcache.buildkit.steps import Step, Steps
    from kitcache.errors import (
        BuildFailed,
        Busy,
        Cancelled,
        Damaged,
        Incomplete,
        KitcacheError,
        NoDaemon,
        NotACache,
        NotFound,
        NotInstalled,
        Source,
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
    from kitcache.options.build import BuildRequest
    from kitcache.options.caches import CacheExport, CacheImport
    from kitcache.options.outputs import Output
    from kitcache.options.policy import Policy
    from kitcache.options.secrets import Secret
    from kitcache.store.locks import Holder, Waiting

_HOMES = {
    "kitcache.buildkit.build": ("Wishes",),
    "kitcache.buildkit.client": ("Build", "Client"),
    "kitcache.buildkit.daemon.address": ("Address", "find_daemon"),
    "kitcache.buildkit.daemon.tls": ("Tls",),
    "kitcache.buildkit.facts": ("Info", "Worker"),
    "kitcache.buildkit.publish": ("CacheResult",),
    "kitcache.buildkit.result": ("BuildResult",),
    "kitcache.buildkit.session.registry": ("Credentials", "DockerConfig"),
    "kitcache.buildkit.status": ("BuildWarning", "Log", "Transfer", "Update", "Vertex"),
    "kitcache.buildkit.steps": ("Step", "Steps"),
    "kitcache.errors": (
        "BuildFailed",
        "Busy",
        "Cancelled",
        "Damaged",
        "Incomplete",
        "KitcacheError",
        "NoDaemon",
        "NotACache",
        "NotFound",
        "NotInstalled",
        "Source",
        "Unsafe",
        "UsageError",
    ),
    "kitcache.gc.answers": ("BlobPath", "Listing", "Tag", "TagUsage", "Untagged", "Usage", "Why"),
    "kitcache.gc.explain": ("du", "why"),
    "kitcache.gc.reset": ("reset",),
    "kitcache.gc.tags": ("ls",),
    "kitcache.gc.untag": ("untag",),
    "kitcache.gc.values": ("Damage", "MissingLeaf", "Progress", "Report", "Root", "Tally"),
    "kitcache.oci.descriptor": ("Descriptor",),
    "kitcache.oci.digest": ("Digest",),
    "kitcache.oci.links": ("Link",),
    "kitcache.options.build": ("BuildRequest",),
    "kitcache.options.caches": ("CacheExport", "CacheImport"),
    "kitcache.options.outputs": ("Output",),
    "kitcache.options.policy": ("Policy",),
    "kitcache.options.secrets": ("Secret",),
    "kitcache.store.locks": ("Holder", "Waiting"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Address",
    "BlobPath",
    "Build",
    "BuildFailed",
    "BuildRequest",
    "BuildResult",
    "BuildWarning",
    "Busy",
    "CacheExport",
    "CacheImport",
    "CacheResult",
    "Cancelled",
    "Client",
    "Credentials",
    "Damage",
    "Damaged",
    "Descriptor",
    "Digest",
    "DockerConfig",
    "Holder",
    "Incomplete",
    "Info",
    "KitcacheError",
    "Link",
    "Listing",
    "Log",
    "MissingLeaf",
    "NoDaemon",
    "NotACache",
    "NotFound",
    "NotInstalled",
    "Output",
    "Policy",
    "Progress",
    "Report",
    "Root",
    "Secret",
    "Source",
    "Step",
    "Steps",
    "Tag",
    "TagUsage",
    "Tally",
    "Tls",
    "Transfer",
    "Unsafe",
    "Untagged",
    "Update",
    "Usage",
    "UsageError",
    "Vertex",
    "Waiting",
    "Why",
    "Wishes",
    "Worker",
    "__version__",
    "du",
    "find_daemon",
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
