"""The local caches of one build: directories locked, stores offered, tags published, then reset.

The daemon never sees a path: each store goes by a token. Source of what is mirrored: BuildKit,
client/solve.go.
"""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple, Self

from kitcache.buildkit.places import LockedCache, LockedCaches, PublishedImage
from kitcache.buildkit.publish import CacheResult, Publication, publish
from kitcache.buildkit.resolve import SkippedError, resolve
from kitcache.buildkit.session.stores import ContentStore, WritableContentStore
from kitcache.buildkit.session.walk import LeftOut, identity
from kitcache.errors import Cancelled, KitcacheError, NotACache
from kitcache.gc.control import LockOptions
from kitcache.gc.reset import refused_result, reset_after_export
from kitcache.gc.values import ResetResult
from kitcache.options.attributes import Pairs
from kitcache.options.caches import CacheExport, CacheImport
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.store.ingest import Ingester
from kitcache.store.state import note_layers, record_use
from kitcache.upkeep.results import PruneResult

STORE_PREFIX = "local:"

SolveEntry = tuple[str, dict[str, str]]
"""Type and Attrs of a CacheOptionsEntry."""

_LOCAL = "local"


class _Export(NamedTuple):
    """What one local entry of the Solve stands for. tags: each with whether a reset was asked."""

    place: LockedCache
    sent: Pairs
    store: WritableContentStore
    tags: dict[str, bool]
    is_optional: bool


class Caches:
    """Every cache of one build, local or not; a context manager around its Solve.

    Entering makes and checks what is exported to, and raises what would stop the export at its end:
    NotACache, Unsafe, Damaged (index.json), Busy, Cancelled, KitcacheError (read-only, disk full).
    What is wrong with an import is a warning, as in BuildKit, and the import is left out. Leaving
    gives the locks back; what was not published stays as blobs that the next reset removes.

    terms: the caches tell each warning once. policy: which tags go after the export, from every
    directory that is exported to; it implies the reset. places: the build's, which closes them.
    """

    def __init__(
        self,
        exports: Sequence[CacheExport],
        imports: Sequence[CacheImport],
        terms: LockOptions,
        policy: PrunePolicy | None = None,
        places: LockedCaches | None = None,
    ) -> None:
        self._policy = policy
        self._wanted = tuple(exports), tuple(imports)
        self._told = terms.warn
        self._terms = terms._replace(warn=self._warn)
        self._stack = ExitStack()
        self._places = places or LockedCaches(self._terms, self._stack)
        self._used: list[LockedCache] = []
        self._exports: list[_Export] = []
        self._imports: list[tuple[LockedCache, ContentStore]] = []
        self._warnings: list[str] = []
        self._export_entries: list[SolveEntry] = []
        self._import_entries: list[SolveEntry] = []
        self._stores: dict[str, ContentStore] = {}

    @property
    def stores(self) -> Mapping[str, ContentStore]:
        """What the daemon may ask for, by store id."""
        return self._stores

    @property
    def export_entries(self) -> tuple[SolveEntry, ...]:
        """Cache.Exports of the Solve: one for each directory and its options, whatever its tags."""
        return tuple(self._export_entries)

    @property
    def import_entries(self) -> tuple[SolveEntry, ...]:
        """Cache.Imports of the Solve, and the frontend's `cache-imports`."""
        return tuple(self._import_entries)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that `warn` was told."""
        return tuple(self._warnings)

    @property
    def left_out(self) -> LeftOut:
        """The directories of the caches, which are not sent with a context.

        With them each export would change the context: no later build could use the cache.
        """
        layouts = [place.layout for place in self._used]
        return {identity(os.fstat(layout.root_fd)): layout.path for layout in layouts}

    @property
    def failure(self) -> KitcacheError | None:
        """The first fault of a disk while the daemon exported: why its Solve failed."""
        failures = (export.store.failure for export in self._exports)
        return next((failure for failure in failures if failure is not None), None)

    def __enter__(self) -> Self:
        exports, imports = self._wanted
        try:
            self._open_exports(exports)
            for wanted in imports:
                self._open_import(wanted)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._note_reads()
        self._stack.close()

    def tags_in(self, intake: Ingester) -> frozenset[str]:
        """The tags that are exported into that directory."""
        return frozenset(t for e in self._exports if e.place.intake is intake for t in e.tags)

    def publish(
        self, response: Mapping[str, str] | None = None, images: PublishedImage | None = None
    ) -> tuple[CacheResult, ...]:
        """Publish each export's root under its tags, then reset where that was asked for.

        To be called after a good Solve; response: its ExporterResponse. images: what this build has
        published beside, which no policy drops either. Each directory's shared lock is given back
        before its reset. A directory in which an export failed is not reset. Raises Cancelled, with
        nothing published in the directory that it was at.
        """
        self._note_reads()  # before a reset, which may go by it
        return tuple(
            result
            for place in self._places.all
            if place.intake is not None
            for result in self._publish_in(place, place.intake, response or {}, images)
        )

    def _publish_in(
        self,
        place: LockedCache,
        intake: Ingester,
        response: Mapping[str, str],
        images: PublishedImage | None,
    ) -> list[CacheResult]:
        exports = [export for export in self._exports if export.place is place]
        if not exports:
            return []  # an image layout, and no cache
        results = list(
            publish(
                intake,
                tuple(Publication(e.store, tuple(e.tags), e.is_optional) for e in exports),
                self._terms.control(place.layout),
                lock_timeout_s=self._terms.lock_timeout_s,
                response=response,
                warn=self._warn,
                had_index=place.had_index,
            )
        )
        published = {r.tag: r.digest for r in results if r.digest and r.outcome == "published"}
        if published:
            record_use(place.layout, published, "exported", time.time_ns(), digests=published)
        asked = {tag for export in exports for tag, is_reset in export.tags.items() if is_reset}
        has_failed = any(result.outcome == "failed" for result in results)
        is_due = published if self._policy is not None else asked.intersection(published)
        if is_due and not has_failed:
            last = max(n for n, result in enumerate(results) if result.tag in published)
            beside = images.tags if images and images.intake is intake else ()
            report, pruned = self._sweep(place, {*published, *beside})
            results = [_trimmed(result, pruned) for result in results]
            results[last] = results[last]._replace(reset=report, prune=pruned)
        self._say_if_moved(place)
        return results

    def _sweep(
        self, place: LockedCache, published: Collection[str]
    ) -> tuple[ResetResult, PruneResult | None]:
        if not place.had_index:
            why = "index.json was missing beside blobs, so nobody knows what other tags there were"
            return refused_result(place.layout.path, why), None
        terms = self._terms
        control = terms.control(place.layout)
        place.lock.close()
        if self._policy is None:
            return reset_after_export(
                place.layout, published, control, lock_timeout_s=terms.lock_timeout_s
            ), None
        from kitcache.upkeep.pruning.prune import prune_after_export  # noqa: PLC0415 - seldom needed

        pruned = prune_after_export(
            place.layout,
            published,
            self._policy,
            control,
            lock_timeout_s=terms.lock_timeout_s,
        )
        return pruned.reset, pruned

    def _note_reads(self) -> None:
        """Which blobs of each cache the daemon really read, as far as not noted yet."""
        for place, store in self._imports:
            read = tuple(store.read)
            note_layers(place.layout, map(str, read), time.time_ns())
            store.read.difference_update(read)

    def _say_if_moved(self, place: LockedCache) -> None:
        try:
            is_there = os.path.samestat(os.stat(place.real_path), os.fstat(place.layout.root_fd))
        except OSError:
            is_there = False
        if not is_there:
            self._warn(
                f"{place.layout.path}: the directory was moved or replaced while the build ran:"
                " the cache is where it is now, not at this path"
            )

    def _warn(self, sentence: str) -> None:
        if sentence not in self._warnings:
            self._warnings.append(sentence)
            self._told(sentence)

    def _open_exports(self, wanted: Sequence[CacheExport]) -> None:
        places = [self._places.to_write(w.dest) if w.kind == _LOCAL else None for w in wanted]
        self._used += filter(None, places)
        latest: dict[tuple[int, str], int] = {}
        for n, (export, place) in enumerate(zip(wanted, places, strict=True)):
            if place is not None and latest.setdefault((id(place), export.tag), n) != n:
                self._warn(
                    f"{export.dest}: the tag {export.tag!r} is exported to more than once:"
                    " the last one counts, the others are left out"
                )
                latest[id(place), export.tag] = n
        for n, (export, place) in enumerate(zip(wanted, places, strict=True)):
            if place is None:
                self._export_entries.append((export.kind, dict(export.attrs)))
            elif latest[id(place), export.tag] == n:
                self._add_export(export, place)

    def _add_export(self, export: CacheExport, place: LockedCache) -> None:
        mine = [other for other in self._exports if other.place is place]
        for other in mine:
            if dict(other.sent) == dict(export.attrs):
                other.tags[export.tag] = export.reset
                return
        if place.intake is None:
            raise ValueError("this directory was not opened to be written to")
        token = place.token("export", len(mine))
        store = WritableContentStore(place.intake)
        tags = {export.tag: export.reset}
        self._exports.append(_Export(place, export.attrs, store, tags, export.ignore_error))
        self._stores[STORE_PREFIX + token] = store
        self._export_entries.append((_LOCAL, dict(export.attrs) | {"dest": token}))

    def _open_import(self, wanted: CacheImport) -> None:
        if wanted.kind != _LOCAL:
            self._import_entries.append((wanted.kind, dict(wanted.attrs)))
            return
        what = f"local cache import at {wanted.src}"
        try:
            place = self._places.to_read(wanted.src)
            self._used.append(place)
            digest = resolve(place.layout, wanted, self._terms)
        except Cancelled:
            raise
        except SkippedError as error:
            self._warn(f"{what} skipped{error}")
            return
        except KitcacheError as error:
            word = "not found" if isinstance(error, NotACache) else "skipped"
            self._warn(f"{what} {word} due to err: {error.problem}")
            return
        token = place.token("import")
        store = ContentStore(place.layout)
        self._imports.append((place, store))
        self._stores[STORE_PREFIX + token] = store
        entry = (_LOCAL, dict(wanted.attrs) | {"src": token, "digest": str(digest)})
        if entry not in self._import_entries:
            self._import_entries.append(entry)
        if wanted.digest is None:
            record_use(place.layout, (wanted.tag,), "imported", time.time_ns())


def _trimmed(result: CacheResult, pruned: PruneResult | None) -> CacheResult:
    """The result with the digest that its tag has now: a policy may have made it smaller."""
    moved = {(t.ref_name, str(t.before)): str(t.after) for t in pruned.trimmed} if pruned else {}
    return result._replace(digest=moved.get((result.tag, result.digest or ""), result.digest))
