"""kitcache: BuildKit from Python, with caches that do not grow.

`Client` builds. The other functions are named as the commands are (reset, du, ls, why, …): each
takes a cache directory and returns a plain value. Nothing here prints or exits; failures are
KitcacheErrors. A name is loaded on first use, so `import kitcache` costs nothing.
"""

__version__ = "0.1.0"

# The public names by module. Type checkers read them in __init__.pyi, which `make golden` writes.
_NAMES = {
    "kitcache.buildkit.client": "Client RunningBuild",
    "kitcache.buildkit.daemon.address": "Address find_daemon",
    "kitcache.buildkit.daemon.tlsconfig": "TlsConfig",
    "kitcache.buildkit.daemoninfo": "DaemonInfo Worker",
    "kitcache.buildkit.publish": "CacheResult",
    "kitcache.buildkit.result": "BuildResult",
    "kitcache.buildkit.session.registry": "Credentials DockerConfig",
    "kitcache.buildkit.status": "BuildUpdate BuildWarning Transfer Vertex VertexLog",
    "kitcache.buildkit.steps": "Step StepTracker",
    "kitcache.buildkit.buildoptions": "BuildOptions",
    "kitcache.errors": (
        "BuildFailed Busy Cancelled Damaged Incomplete KitcacheError LimitNotReached NoDaemon"
        " NotACache NotConfirmed NotExecutable NotFound NotInstalled SourceLocation Unreadable"
        " Unsafe UsageError"
    ),
    "kitcache.gc.du": "du",
    "kitcache.gc.ls": "ls",
    "kitcache.gc.reset": "reset",
    "kitcache.gc.results": "BlobReferences DiskUsage ReferencePath TagInfo TagList TagUsage",
    "kitcache.gc.values": "DamagedPath MissingBlob Progress ResetResult Root Tally",
    "kitcache.gc.why": "why",
    "kitcache.oci.descriptor": "Descriptor",
    "kitcache.oci.digest": "Digest",
    "kitcache.oci.links": "Link",
    "kitcache.options.build": "BuildRequest",
    "kitcache.options.caches": "CacheExport CacheImport",
    "kitcache.options.outputs": "Output",
    "kitcache.options.policyfile": "read_policy",
    "kitcache.options.prunepolicy": "DiskSpace PrunePolicy PruneRule",
    "kitcache.options.secrets": "Secret",
    "kitcache.options.sweep": "SweepOptions",
    "kitcache.store.values": "LockHolder RequestCounts Waiting",
    "kitcache.upkeep.contents": "ls_tag",
    "kitcache.upkeep.copying.copy": "copy",
    "kitcache.upkeep.health.repair": "repair",
    "kitcache.upkeep.health.verify": "verify",
    "kitcache.upkeep.naming.merge": "merge",
    "kitcache.upkeep.naming.tag": "tag",
    "kitcache.upkeep.naming.untag": "untag",
    "kitcache.upkeep.pruning.prune": "prune",
    "kitcache.upkeep.results": (
        "BadBlob CachedStep CopyResult HeldBlob MergedTag MergeResult PruneResult RepairAction"
        " RepairResult SkippedTag TagContents TagDecision TagResult TagStatus TrimmedTag"
        " TrimResult UntagResult UnusableStep VerifyResult"
    ),
    "kitcache.upkeep.trimming.trim": "trim",
}
_HOME_OF = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'kitcache' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - `import kitcache` needs none

    value = getattr(import_module(home), name)
    if name.islower():  # a function
        from kitcache.options.argumenttypes import checked  # noqa: PLC0415 - as above

        value = checked(value)
        value.__module__ = __name__  # so that it can be pickled
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
