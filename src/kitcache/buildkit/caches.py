"""The caches of one build: opens them, serves their stores, publishes the tags, then sweeps.

The daemon gets a token for each store, never a path.
Source: BuildKit, client/solve.go.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import NamedTuple

from kitcache.buildkit.publish import CacheResult, Publication, publish_exports
from kitcache.buildkit.request import CacheEntry
from kitcache.buildkit.resolve import SkippedError, resolve
from kitcache.buildkit.session.stores import ContentStore, WritableContentStore
from kitcache.buildkit.session.walk import ExcludedDirectories, identity
from kitcache.errors import Cancelled, KitcacheError, NotACache, UsageError
from kitcache.gc.values import Tally
from kitcache.options.caches import OBJECT_KINDS, CacheExport, CacheImport
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.store.state import record_layer_uses, record_use
from kitcache.upkeep.jobcaches import (
    LockedCache,
    LockedCaches,
    LockOptions,
    ObjectTarget,
    merge_targets,
    object_target,
    sweep_after_export,
    sweep_objects_after_export,
)
from kitcache.upkeep.results import PruneResult

STORE_PREFIX = "local:"

_LOCAL = "local"
_EXPORT_STEPS = {
    "s3": "exporting cache to Amazon S3",
    "azblob": "exporting cache to Azure Blob Storage",
}
"""The daemon's steps that export. Source: BuildKit cache/remotecache, exporter.Name."""


class _Export(NamedTuple):
    """A local export of the Solve.

    Attributes:
        tags: For each tag, True if a reset was requested.
    """

    cache: LockedCache
    attrs: Mapping[str, str]
    store: WritableContentStore
    tags: dict[str, bool]
    is_optional: bool


@contextmanager
def open_caches(
    exports: Sequence[CacheExport],
    imports: Sequence[CacheImport],
    options: LockOptions,
    policy: PrunePolicy | None = None,
    locked: LockedCaches | None = None,
) -> Iterator["Caches"]:
    """Open the caches of a build, for the time of its Solve.

    As in BuildKit, an import that fails is a warning and is skipped. Blobs that are not published
    remain in the cache as unreachable blobs.

    Args:
        policy: Selects the tags to remove after the export, from every cache that is exported to.
            It implies the reset.
        locked: The directories that the build has opened; its owner closes them.

    Raises:
        NotACache, Unsafe, Damaged, Busy, Cancelled, KitcacheError: A cache to export to cannot be
            used: locked, an invalid index.json, a read-only or full disk.
        UsageError: A reset was requested of a cache in an object store that is not named
            completely.
    """
    with ExitStack() as stack:
        locked = locked or LockedCaches(options, stack, "nothing was built")
        caches = Caches(locked, options, policy)
        caches.add_exports(exports)
        for source in imports:
            caches.add_import(source)
        try:
            yield caches
        finally:
            caches.record_reads()


class Caches:
    """The caches of one build, local or not.

    Attributes:
        stores: The stores that the daemon may use, by store id.
        export_entries: Cache.Exports of the Solve: one for each directory and its attributes.
        import_entries: Cache.Imports of the Solve, and the frontend's `cache-imports`.
    """

    def __init__(
        self, locked: LockedCaches, options: LockOptions, policy: PrunePolicy | None
    ) -> None:
        self._locked = locked
        self._options = options
        self._policy = policy
        self._opened: list[LockedCache] = []
        self._exports: list[_Export] = []
        self._imports: list[tuple[LockedCache, ContentStore]] = []
        self._objects: tuple[ObjectTarget, ...] = ()
        self.stores: dict[str, ContentStore] = {}
        self.export_entries: list[CacheEntry] = []
        self.import_entries: list[CacheEntry] = []

    @property
    def left_out(self) -> ExcludedDirectories:
        """The directories of the caches, which are not sent with a context.

        If they were sent, each export would change the context, and no later build would hit.
        """
        stores = [cache.store for cache in self._opened]
        return {identity(os.fstat(store.root_fd)): store.path for store in stores}

    @property
    def failure(self) -> KitcacheError | None:
        """The first I/O error during an export of the daemon; it made the Solve fail."""
        failures = (export.store.failure for export in self._exports)
        return next((failure for failure in failures if failure is not None), None)

    def tags_in(self, cache: LockedCache) -> frozenset[str]:
        """Return the tags that are exported to a directory."""
        return frozenset(tag for e in self._exports if e.cache is cache for tag in e.tags)

    def add_exports(self, exports: Sequence[CacheExport]) -> None:
        """Open and check the caches of exports. Of several exports to one tag, use the last."""
        caches = [
            self._locked.open_upload(export.directory) if export.kind == _LOCAL else None
            for export in exports
        ]
        self._opened += filter(None, caches)
        last: dict[tuple[LockedCache, str], int] = {}
        for n, (export, cache) in enumerate(zip(exports, caches, strict=True)):
            if cache is not None:
                if (cache, export.tag) in last:
                    self._options.warn(
                        f"{export.dest}: the tag {export.tag!r} is exported to more than once:"
                        " the last export counts, the others are skipped"
                    )
                last[cache, export.tag] = n
        for n, (export, cache) in enumerate(zip(exports, caches, strict=True)):
            if cache is None:
                self.export_entries.append((export.kind, dict(export.attrs)))
            elif last[cache, export.tag] == n:
                self._add_export(export, cache)
        self._objects = merge_targets(self._find_objects(exports))

    def _find_objects(self, exports: Iterable[CacheExport]) -> Iterator[ObjectTarget]:
        """Yield the caches in object stores to sweep. Raises UsageError; see open_caches."""
        for export in exports:
            if export.kind not in OBJECT_KINDS or not (export.reset or self._policy):
                continue
            try:
                yield object_target(export)
            except UsageError as error:
                if export.reset:
                    error.effect = "nothing was built"
                    raise
                # The daemon may have the missing attribute in its environment.
                self._options.warn(
                    f"the policy does not apply to type={export.kind}: {error.problem}"
                )

    def _add_export(self, export: CacheExport, cache: LockedCache) -> None:
        attrs = dict(export.attrs)
        same_cache = [other for other in self._exports if other.cache is cache]
        for other in same_cache:
            if other.attrs == attrs:
                other.tags[export.tag] = export.reset
                return
        store_id = _store_id("export", cache, len(same_cache))
        store = WritableContentStore(cache.ingester)
        tags = {export.tag: export.reset}
        self._exports.append(_Export(cache, attrs, store, tags, export.ignore_error))
        self.stores[STORE_PREFIX + store_id] = store
        self.export_entries.append((_LOCAL, attrs | {"dest": store_id}))

    def add_import(self, source: CacheImport) -> None:
        """Open a cache to import from. Raises Cancelled; any other error is a warning."""
        if source.kind != _LOCAL:
            self.import_entries.append((source.kind, dict(source.attrs)))
            return
        subject = f"local cache import at {source.src}"
        try:
            cache = self._locked.open_import(source.directory)
            cache.store.open_directories()
            self._opened.append(cache)
            digest = resolve(cache.store, source, self._options)
        except Cancelled:
            raise
        except SkippedError as error:
            self._options.warn(f"{subject} skipped{error}")
            return
        except KitcacheError as error:
            word = "not found" if isinstance(error, NotACache) else "skipped"
            self._options.warn(f"{subject} {word} due to err: {error.problem}")
            return
        store_id = _store_id("import", cache)
        store = ContentStore(cache.store)
        self._imports.append((cache, store))
        self.stores[STORE_PREFIX + store_id] = store
        entry = (_LOCAL, dict(source.attrs) | {"src": store_id, "digest": str(digest)})
        if entry not in self.import_entries:
            self.import_entries.append(entry)
        if source.digest is None:
            record_use(cache.store, (source.tag,), "imported", time.time_ns())

    def record_reads(self) -> None:
        """Record the blobs of each cache that the daemon has read since the last call."""
        for cache, store in self._imports:
            blobs = tuple(store.read)
            record_layer_uses(cache.store, map(str, blobs), time.time_ns())
            store.read.difference_update(blobs)

    def publish(
        self,
        response: Mapping[str, str] | None = None,
        failed_steps: Mapping[str, str] | None = None,
    ) -> tuple[CacheResult, ...]:
        """Publish the root of each export under its tags; then sweep the caches with a reset.

        A cache with a failed export is not swept.

        Args:
            response: The ExporterResponse of the successful Solve.
            failed_steps: The errors of the daemon's failed steps, by name: an export with
                ignore-error can have failed.

        Raises:
            Cancelled: Nothing was published in the current directory.
        """
        self.record_reads()  # A sweep by a policy uses these records.
        exports_to: dict[LockedCache, list[_Export]] = {}
        for export in self._exports:
            exports_to.setdefault(export.cache, []).append(export)
        local = [
            result
            for cache, exports in exports_to.items()
            for result in self._publish_to(cache, exports, response or {})
        ]
        objects = (self._sweep_objects(target, failed_steps or {}) for target in self._objects)
        return (*local, *chain.from_iterable(objects))

    def _sweep_objects(
        self, target: ObjectTarget, failed_steps: Mapping[str, str]
    ) -> list[CacheResult]:
        """Sweep a cache in an object store, unless an export to it has failed."""
        problem = failed_steps.get(_EXPORT_STEPS[target.cache.kind], "")
        result = CacheResult(
            path=target.path,
            tag="",
            outcome="failed" if problem else "published",
            digest=None,
            written=Tally(),
            reused=Tally(),
            reset=None,
            problem=problem,
        )
        results = [result._replace(tag=name) for name in target.names]
        if not problem:
            reset, prune = sweep_objects_after_export(target, self._policy, self._options)
            results[-1] = results[-1]._replace(reset=reset, prune=prune)
        return results

    def _publish_to(
        self, cache: LockedCache, exports: Sequence[_Export], response: Mapping[str, str]
    ) -> list[CacheResult]:
        results = list(
            publish_exports(
                cache,
                tuple(Publication(e.store, tuple(e.tags), e.is_optional) for e in exports),
                self._options,
                response,
            )
        )
        published = {r.tag: r.digest for r in results if r.digest and r.outcome == "published"}
        if published:
            record_use(cache.store, published, "exported", time.time_ns(), digests=published)
        cache.published.update(published)
        resets = {tag for export in exports for tag, is_reset in export.tags.items() if is_reset}
        is_due = published if self._policy is not None else resets.intersection(published)
        if is_due and not any(result.outcome == "failed" for result in results):
            reset, prune = sweep_after_export(cache, self._policy, self._options)
            results = [_after_trim(result, prune) for result in results]
            last = max(n for n, result in enumerate(results) if result.tag in published)
            results[last] = results[last]._replace(reset=reset, prune=prune)
        self._warn_if_moved(cache)
        return results

    def _warn_if_moved(self, cache: LockedCache) -> None:
        try:
            is_same = os.path.samestat(os.stat(cache.real_path), os.fstat(cache.store.root_fd))
        except OSError:
            is_same = False
        if not is_same:
            self._options.warn(
                f"{cache.store.path}: the directory was moved or replaced during the build:"
                " the cache is in the moved directory, not at this path"
            )


def _store_id(use: str, cache: LockedCache, number: int = 0) -> str:
    """Return the daemon's name of a store: the same for each build, and not the path."""
    text = f"{use}\0{number}\0{cache.real_path}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _after_trim(result: CacheResult, prune: PruneResult | None) -> CacheResult:
    """Return the result with the tag's new digest if a policy has trimmed the tag."""
    trimmed = {(t.ref_name, str(t.before)): str(t.after) for t in prune.trimmed} if prune else {}
    return result._replace(digest=trimmed.get((result.tag, result.digest or ""), result.digest))
