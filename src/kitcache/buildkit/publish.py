"""Publishes the exports of a successful Solve: each received root becomes an entry.

The root is not taken from the daemon's `cache.manifest`, which is one value for all exports.
Source: BuildKit, client/solve.go and client/ociindex.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from kitcache.buildkit.session.stores import WritableContentStore
from kitcache.errors import Cancelled, Damaged, KitcacheError, Unsafe
from kitcache.gc.control import Warn
from kitcache.gc.values import ResetResult, Tally
from kitcache.oci.descriptor import Descriptor, read_descriptor
from kitcache.oci.document import JsonObject, read_document
from kitcache.oci.index import INDEX_TYPE, NewEntry
from kitcache.oci.links import kind_of, read_links
from kitcache.options.units import format_bytes
from kitcache.store.directory import DirectoryStore
from kitcache.upkeep.jobcaches import LockedCache, LockOptions
from kitcache.upkeep.publish import Problem, find_faults, publish
from kitcache.upkeep.results import PruneResult

IMPORT_CAP_BYTES = 1024 * 1024
"""The size of the largest manifest or cacheconfig that BuildKit imports."""

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

Outcome = Literal["published", "empty", "failed"]


class CacheResult(NamedTuple):
    """The result of one tag of one cache export.

    Attributes:
        path: dest as the user wrote it, or the short form of an object store's address.
        tag: In an object store, the name of the root.
        outcome: published, empty (the daemon had nothing to export) or failed.
        digest: Of the cache's root. None for an object store: the daemon does not report it.
        written: Blobs that this export added, for all of its tags. 0 for an object store.
        reused: Blobs that existed. 0 for an object store.
        reset: On the last tag of a cache that was swept.
        problem: Why it failed.
        failure_code: The exit code of the problem.
        prune: On the last tag of a cache to which a prune policy applied.
    """

    path: str
    tag: str
    outcome: Outcome
    digest: str | None
    written: Tally
    reused: Tally
    reset: ResetResult | None
    problem: str = ""
    failure_code: int = 0
    prune: PruneResult | None = None

    @property
    def exit_code(self) -> int:
        """12 if a tag lacks a blob, 3 after an incomplete reset, the code of a failure, or 0."""
        return max(self.failure_code, self.reset.export_code if self.reset else 0)


class Publication(NamedTuple):
    """One export, and the tags of its root. is_optional: Its failure does not fail the build."""

    store: WritableContentStore
    tags: tuple[str, ...]
    is_optional: bool = False


class _Export(NamedTuple):
    """An export with its outcome so far. root: None if there is nothing to publish."""

    publication: Publication
    root: Descriptor | None
    outcome: Outcome = "published"
    problem: Problem = Problem()

    def failed(self, problem: Problem) -> "_Export":
        return self._replace(outcome="failed", problem=problem)

    def refused(self, error: KitcacheError) -> "_Export":
        problem = Problem(f"not published: {error.problem}", error.exit_code)
        return self._replace(root=None, outcome="failed", problem=problem)


def publish_exports(
    cache: LockedCache,
    publications: tuple[Publication, ...],
    options: LockOptions,
    response: Mapping[str, str],
) -> tuple[CacheResult, ...]:
    """Publish all tags of one cache in one step.

    A root below which a blob is missing is not published. If a root loses a blob while it is
    published, the result has the problem. Every other failure is in the result too.

    Args:
        response: The daemon's ExporterResponse. It has the media type of a root that lacks one.

    Raises:
        Cancelled: Nothing was published.
    """
    store, hint = cache.ingester.layout, _read_hint(response)
    exports = [_examine(store, p, hint, options) for p in publications]
    roots = [
        (each.root, [_entry(each.root, tag) for tag in each.publication.tags])
        for each in exports
        if each.root is not None
    ]
    if roots:
        control, wait_policy = options.control(store), options.wait_policy(store)
        # If index.json existed and is missing now, it named other tags: do not create it again.
        may_create = not cache.had_index
        try:
            problems = iter(
                publish(store, roots, control, wait_policy, may_create_index=may_create)
            )
        except Cancelled:
            raise
        except KitcacheError as error:
            exports = [each.refused(error) if each.root else each for each in exports]
        else:
            exports = [
                each.failed(problem) if each.root and (problem := next(problems)).clause else each
                for each in exports
            ]
    return tuple(
        _result(store.path, each, tag) for each in exports for tag in each.publication.tags
    )


def _examine(
    store: DirectoryStore, publication: Publication, hint: Descriptor | None, options: LockOptions
) -> _Export:
    """Check the root of an export, and all blobs below it."""
    root = publication.store.root
    export = _Export(publication, None)
    if root is None:
        return _empty(export)
    try:
        data = store.read_blob(root.digest, root.size) or b""
        document = read_document(data)
        media_type = media_type_of(document, hint if hint and hint.digest == root.digest else None)
        if kind_of(media_type) not in ("index", "manifest"):
            return _empty(export, "the export ended before its manifest")
        descriptor = Descriptor(media_type, root.digest, root.size)
        _warn_of_size(store.path, descriptor, data, options.warn)
        faults = find_faults(store, options.control(store), descriptor)
    except (Damaged, Unsafe) as error:
        faults = f"the root {root.digest.short} {error.problem}"
    except Cancelled:
        raise
    except KitcacheError as error:
        return export.refused(error)
    if faults:
        return export.failed(Problem(f"not published: {faults}", Damaged.exit_code))
    return export._replace(root=descriptor)


def _empty(export: _Export, clause: str = "") -> _Export:
    """Return an empty export, or a failed one: with ignore-error the disk may have been full."""
    failure = export.publication.store.failure
    if failure is not None:
        return export.refused(failure)
    return export._replace(outcome="empty", problem=Problem(clause))


def _entry(root: Descriptor, tag: str) -> NewEntry:
    return NewEntry(root.media_type, str(root.digest), root.size or 0, tag)


def media_type_of(document: object, hint: Descriptor | None) -> str:
    """Return the media type of a root: its field, else the daemon's, else judged by its fields."""
    fields = document if isinstance(document, JsonObject) else JsonObject()
    media_type = fields.get_only("mediaType")
    if isinstance(media_type, str) and media_type:
        return media_type
    if hint is not None and hint.media_type:
        return hint.media_type
    if not fields.all_values("schemaVersion"):
        return ""
    if fields.all_values("manifests"):
        return INDEX_TYPE
    return _MANIFEST_TYPE if fields.all_values("layers") else ""


def _warn_of_size(path: str, root: Descriptor, data: bytes, warn: Warn) -> None:
    for name, size in sizes_to_import(root, data):
        if size > IMPORT_CAP_BYTES:
            warn(
                f"{path}: its {name} has {format_bytes(size)} ({size:,} bytes), and BuildKit"
                f" imports none above {IMPORT_CAP_BYTES:,}: this cache cannot be imported;"
                " export less (mode=min), or fewer stages to one tag"
            )


def sizes_to_import(root: Descriptor, data: bytes) -> list[tuple[str, int]]:
    """Return the name and size in bytes of each document that BuildKit caps. Raises Damaged."""
    links = read_links(kind_of(root.media_type), data)
    configs = [d.size or 0 for d, _ in links if kind_of(d.media_type) == "cacheconfig"]
    return [("manifest", len(data)), *(("cacheconfig", size) for size in configs)]


def _result(path: str, export: _Export, tag: str) -> CacheResult:
    publication, root, outcome, problem = export
    return CacheResult(
        path=path,
        tag=tag,
        outcome=outcome,
        digest=str(root.digest) if root else None,
        written=publication.store.written,
        reused=publication.store.reused,
        reset=None,
        problem=problem.clause,
        failure_code=0 if publication.is_optional else problem.code,
    )


def _read_hint(response: Mapping[str, str]) -> Descriptor | None:
    """Return the descriptor in `cache.manifest`, None if it is missing or invalid."""
    try:
        return read_descriptor(read_document(response.get("cache.manifest", "").encode()))
    except Damaged:
        return None
