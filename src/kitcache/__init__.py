"""kitcache: BuildKit from Python, with caches that do not grow.

`Client` builds. The verbs are functions, named as the commands are (reset, du, ls, why, …): each
takes a cache directory, and returns a plain value. Nothing here prints or exits; failures are
KitcacheErrors. Every name is loaded on first use, so that `import kitcache` costs nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kitcache.buildkit.client import Client, RunningBuild
    from kitcache.buildkit.daemon.address import Address, find_daemon
    from kitcache.buildkit.daemon.tlsconfig import TlsConfig
    from kitcache.buildkit.daemoninfo import DaemonInfo, Worker
    from kitcache.buildkit.publish import CacheResult
    from kitcache.buildkit.result import BuildResult
    from kitcache.buildkit.session.registry import Credentials, DockerConfig
    from kitcache.buildkit.status import BuildUpdate, BuildWarning, Transfer, Vertex, VertexLog
    from kitcache.buildkit.steps import Step, StepTracker
    from kitcache.buildkit.wishes import BuildOptions
    from kitcache.errors import (
        BuildFailed,
        Busy,
        Cancelled,
        Damaged,
        Incomplete,
        KitcacheError,
        LimitNotReached,
        NoDaemon,
        NotACache,
        NotExecutable,
        NotFound,
        NotInstalled,
        SourceLocation,
        Unreadable,
        Unsafe,
        UsageError,
    )
    from kitcache.gc.explain import du, why
    from kitcache.gc.ls import ls
    from kitcache.gc.reset import reset
    from kitcache.gc.results import (
        BlobReferences,
        DiskUsage,
        ReferencePath,
        TagInfo,
        TagList,
        TagUsage,
    )
    from kitcache.gc.values import DamagedPath, MissingBlob, Progress, ResetResult, Root, Tally
    from kitcache.oci.descriptor import Descriptor
    from kitcache.oci.digest import Digest
    from kitcache.oci.links import Link
    from kitcache.options.build import BuildRequest
    from kitcache.options.caches import CacheExport, CacheImport
    from kitcache.options.outputs import Output
    from kitcache.options.policyfile import read_policy
    from kitcache.options.prunepolicy import DiskSpace, PrunePolicy, PruneRule
    from kitcache.options.secrets import Secret
    from kitcache.options.sweep import SweepOptions
    from kitcache.store.locks import LockHolder, Waiting
    from kitcache.upkeep.contents import ls_tag
    from kitcache.upkeep.health.repair import repair
    from kitcache.upkeep.health.verify import verify
    from kitcache.upkeep.naming.merge import merge
    from kitcache.upkeep.naming.tag import tag
    from kitcache.upkeep.naming.untag import untag
    from kitcache.upkeep.pruning.prune import prune
    from kitcache.upkeep.results import (
        BadBlob,
        CachedStep,
        HeldBlob,
        MergedTag,
        MergeResult,
        PruneResult,
        RepairAction,
        RepairResult,
        TagContents,
        TagDecision,
        TagResult,
        TagStatus,
        TrimResult,
        UntagResult,
        UnusableStep,
        VerifyResult,
    )
    from kitcache.upkeep.trimming.trim import trim

_HOMES = {
    "kitcache.buildkit.client": ("Client", "RunningBuild"),
    "kitcache.buildkit.daemon.address": ("Address", "find_daemon"),
    "kitcache.buildkit.daemon.tlsconfig": ("TlsConfig",),
    "kitcache.buildkit.daemoninfo": ("DaemonInfo", "Worker"),
    "kitcache.buildkit.publish": ("CacheResult",),
    "kitcache.buildkit.result": ("BuildResult",),
    "kitcache.buildkit.session.registry": ("Credentials", "DockerConfig"),
    "kitcache.buildkit.status": ("BuildUpdate", "BuildWarning", "Transfer", "Vertex", "VertexLog"),
    "kitcache.buildkit.steps": ("Step", "StepTracker"),
    "kitcache.buildkit.wishes": ("BuildOptions",),
    "kitcache.errors": (
        "BuildFailed",
        "Busy",
        "Cancelled",
        "Damaged",
        "Incomplete",
        "KitcacheError",
        "LimitNotReached",
        "NoDaemon",
        "NotACache",
        "NotExecutable",
        "NotFound",
        "NotInstalled",
        "SourceLocation",
        "Unreadable",
        "Unsafe",
        "UsageError",
    ),
    "kitcache.gc.explain": ("du", "why"),
    "kitcache.gc.ls": ("ls",),
    "kitcache.gc.reset": ("reset",),
    "kitcache.gc.results": (
        "BlobReferences",
        "DiskUsage",
        "ReferencePath",
        "TagInfo",
        "TagList",
        "TagUsage",
    ),
    "kitcache.gc.values": (
        "DamagedPath",
        "MissingBlob",
        "Progress",
        "ResetResult",
        "Root",
        "Tally",
    ),
    "kitcache.oci.descriptor": ("Descriptor",),
    "kitcache.oci.digest": ("Digest",),
    "kitcache.oci.links": ("Link",),
    "kitcache.options.build": ("BuildRequest",),
    "kitcache.options.caches": ("CacheExport", "CacheImport"),
    "kitcache.options.outputs": ("Output",),
    "kitcache.options.policyfile": ("read_policy",),
    "kitcache.options.prunepolicy": ("DiskSpace", "PrunePolicy", "PruneRule"),
    "kitcache.options.secrets": ("Secret",),
    "kitcache.options.sweep": ("SweepOptions",),
    "kitcache.store.locks": ("LockHolder", "Waiting"),
    "kitcache.upkeep.contents": ("ls_tag",),
    "kitcache.upkeep.health.repair": ("repair",),
    "kitcache.upkeep.health.verify": ("verify",),
    "kitcache.upkeep.naming.merge": ("merge",),
    "kitcache.upkeep.naming.tag": ("tag",),
    "kitcache.upkeep.naming.untag": ("untag",),
    "kitcache.upkeep.pruning.prune": ("prune",),
    "kitcache.upkeep.results": (
        "BadBlob",
        "CachedStep",
        "HeldBlob",
        "MergedTag",
        "MergeResult",
        "PruneResult",
        "RepairAction",
        "RepairResult",
        "TagContents",
        "TagDecision",
        "TagResult",
        "TagStatus",
        "TrimResult",
        "UntagResult",
        "UnusableStep",
        "VerifyResult",
    ),
    "kitcache.upkeep.trimming.trim": ("trim",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Address",
    "BadBlob",
    "BlobReferences",
    "BuildFailed",
    "BuildOptions",
    "BuildRequest",
    "BuildResult",
    "BuildUpdate",
    "BuildWarning",
    "Busy",
    "CacheExport",
    "CacheImport",
    "CacheResult",
    "CachedStep",
    "Cancelled",
    "Client",
    "Credentials",
    "DaemonInfo",
    "Damaged",
    "DamagedPath",
    "Descriptor",
    "Digest",
    "DiskSpace",
    "DiskUsage",
    "DockerConfig",
    "HeldBlob",
    "Incomplete",
    "KitcacheError",
    "LimitNotReached",
    "Link",
    "LockHolder",
    "MergeResult",
    "MergedTag",
    "MissingBlob",
    "NoDaemon",
    "NotACache",
    "NotExecutable",
    "NotFound",
    "NotInstalled",
    "Output",
    "Progress",
    "PrunePolicy",
    "PruneResult",
    "PruneRule",
    "ReferencePath",
    "RepairAction",
    "RepairResult",
    "ResetResult",
    "Root",
    "RunningBuild",
    "Secret",
    "SourceLocation",
    "Step",
    "StepTracker",
    "SweepOptions",
    "TagContents",
    "TagDecision",
    "TagInfo",
    "TagList",
    "TagResult",
    "TagStatus",
    "TagUsage",
    "Tally",
    "TlsConfig",
    "Transfer",
    "TrimResult",
    "Unreadable",
    "Unsafe",
    "UntagResult",
    "UnusableStep",
    "UsageError",
    "VerifyResult",
    "Vertex",
    "VertexLog",
    "Waiting",
    "Worker",
    "__version__",
    "du",
    "find_daemon",
    "ls",
    "ls_tag",
    "merge",
    "prune",
    "read_policy",
    "repair",
    "reset",
    "tag",
    "trim",
    "untag",
    "verify",
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
