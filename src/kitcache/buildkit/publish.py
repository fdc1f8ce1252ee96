"""After a good Solve: what a store was really given becomes an entry of index.json.

Never the daemon's `cache.manifest`, which is one answer for all exports. Source of what is
mirrored: BuildKit, client/solve.go and client/ociindex.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from kitcache.buildkit.session.stores import WritableContentStore
from kitcache.errors import Cancelled, Damaged, KitcacheError, Unsafe
from kitcache.gc.control import Control, Warn
from kitcache.gc.refusals import describe_damage
from kitcache.gc.survey import check_reachable
from kitcache.gc.values import ResetResult, Root, Tally
from kitcache.oci.descriptor import Descriptor, read_descriptor
from kitcache.oci.document import JsonObject, read_document
from kitcache.oci.index import INDEX_TYPE, NewEntry, add_entries
from kitcache.oci.links import kind_of, read_links
from kitcache.options.units import format_bytes
from kitcache.store.index import INDEX, publish_index
from kitcache.store.ingest import Ingester
from kitcache.store.locks import lock_index
from kitcache.store.state import open_state_dir
from kitcache.upkeep.results import PruneResult

IMPORT_CAP_BYTES = 1024 * 1024
"""BuildKit imports no manifest and no cacheconfig above it."""

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_NAMED = 3


Outcome = Literal["published", "empty", "failed"]


class CacheResult(NamedTuple):
    """What became of one tag of one cache export.

    path: dest as the user wrote it. outcome: published; nothing, where the daemon had nothing to
    export; failed, and problem says why. digest: of the cache's root. written, reused: blobs that
    came, and that were there, for this export, whatever its tags. report: of the reset, on the last
    tag of a directory where one was asked for; pruned: with it, where a policy was named. code:
    what a failure means for the exit code.
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
        """0, 12 where a tag has a hole, 3 where a reset left something, or a failure's own code."""
        return max(self.failure_code, self.reset.exit_code if self.reset else 0)


class Publication(NamedTuple):
    """One export, and the tags that its root is to get. is_optional: its failure is no failure."""

    store: WritableContentStore
    tags: tuple[str, ...]
    is_optional: bool = False


class _Candidate(NamedTuple):
    """root: None where there is nothing to publish, or where it must not be: problem says why."""

    publication: Publication
    root: Descriptor | None
    outcome: Outcome = "published"
    problem: str = ""
    code: int = 0


def publish(
    intake: Ingester,
    publications: tuple[Publication, ...],
    control: Control,
    *,
    lock_timeout_s: float,
    response: Mapping[str, str],
    warn: Warn,
    had_index: bool = True,
) -> tuple[CacheResult, ...]:
    """Put all tags of one directory into its index.json, in one step; the caller holds its lock.

    A root below which a blob is missing is not published; one that loses a blob while it is being
    published is told. response: the daemon's, for a media type that the root's bytes do not tell.
    had_index: an index.json that was there and is gone is not made anew, for it named other tags.
    Raises Cancelled; what else goes wrong is in the results.
    """
    hint = _read_hint(response)
    candidates = [_examine(intake, p, control, hint, warn) for p in publications]
    whole = [c for c in candidates if c.root is not None]
    if whole:
        try:
            intake.sync()
            _put(intake, whole, control, lock_timeout_s, had_index=had_index)
        except Cancelled:
            raise
        except KitcacheError as error:
            candidates = [_failed(c, error) if c.root else c for c in candidates]
        else:
            # A reset of a stranger may have met us: it knows no lock of ours.
            candidates = [_look_again(intake, c, control) for c in candidates]
    return tuple(_result(intake, c, tag) for c in candidates for tag in c.publication.tags)


def _examine(
    intake: Ingester,
    publication: Publication,
    control: Control,
    hint: Descriptor | None,
    warn: Warn,
) -> _Candidate:
    root = publication.store.root
    if root is None:
        return _nothing(publication)
    layout = intake.layout
    try:
        data = layout.read_blob(root.digest, root.size) or b""
        document = read_document(data)
        media_type = media_type_of(document, hint if hint and hint.digest == root.digest else None)
        if kind_of(media_type) not in ("index", "manifest"):
            return _nothing(publication, "the export ended before its manifest")
        descriptor = Descriptor(media_type, root.digest, root.size)
        _warn_of_size(layout.path, descriptor, data, warn)
        hole = _hole_below(intake, descriptor, control)
    except (Damaged, Unsafe) as error:
        problem = f"not published: the root {root.digest.short} {error.problem}"
        return _Candidate(publication, None, "failed", problem, Damaged.exit_code)
    except Cancelled:
        raise
    except KitcacheError as error:
        return _failed(_Candidate(publication, None), error)
    if hole:
        problem = f"not published: {hole}"
        return _Candidate(publication, None, "failed", problem, Damaged.exit_code)
    return _Candidate(publication, descriptor)


def _nothing(publication: Publication, problem: str = "") -> _Candidate:
    """With ignore-error a Solve is good although its export broke off, on a full disk maybe."""
    candidate = _Candidate(publication, None, "empty", problem)
    failure = publication.store.failure
    return candidate if failure is None else _failed(candidate, failure)


def media_type_of(document: object, hint: Descriptor | None) -> str:
    """What a root says it is; what the daemon said of it; or what its fields show."""
    fields = document if isinstance(document, JsonObject) else JsonObject()
    told = fields.get_only("mediaType")
    if isinstance(told, str) and told:
        return told
    if hint is not None and hint.media_type:
        return hint.media_type
    if not fields.all_values("schemaVersion"):
        return ""
    if fields.all_values("manifests"):
        return INDEX_TYPE
    return _MANIFEST_TYPE if fields.all_values("layers") else ""


def _warn_of_size(path: str, root: Descriptor, data: bytes, warn: Warn) -> None:
    for what, size in sizes_to_import(root, data):
        if size > IMPORT_CAP_BYTES:
            warn(
                f"{path}: its {what} has {format_bytes(size)} ({size:,} bytes), and BuildKit"
                f" imports none above {IMPORT_CAP_BYTES:,}: this cache cannot be imported;"
                " export less (mode=min), or fewer stages to one tag"
            )


def sizes_to_import(root: Descriptor, data: bytes) -> list[tuple[str, int]]:
    """What BuildKit reads whole of a cache, with its size. Raises Damaged."""
    links = read_links(kind_of(root.media_type), data)
    configs = [d.size or 0 for d, _ in links if kind_of(d.media_type) == "cacheconfig"]
    return [("manifest", len(data)), *(("cacheconfig", size) for size in configs)]


def _hole_below(intake: Ingester, root: Descriptor, control: Control) -> str:
    """What is missing or not whole of all that a root reaches, in a clause; "" if nothing is."""
    damage, missing = check_reachable(intake.layout, control, Root(0, None, root))
    holes = [describe_damage(one) for one in damage]
    holes += [f"blob {leaf.digest.short} {leaf.problem}" for leaf in missing]
    more = len(holes) - _NAMED
    return ", ".join(holes[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _put(
    intake: Ingester,
    candidates: list[_Candidate],
    control: Control,
    lock_timeout_s: float,
    *,
    had_index: bool,
) -> None:
    entries = tuple(
        NewEntry(root.media_type, str(root.digest), root.size or 0, tag)
        for publication, root, *_ in candidates
        if root is not None
        for tag in publication.tags
    )
    layout = intake.layout

    def put(data: bytes | None) -> tuple[bytes, None]:
        if data is None and had_index:
            raise Damaged(layout.path, f"{INDEX} was removed while the build ran", kind="missing")
        return add_entries(data, entries), None

    lock = lock_index(layout, control.wait_policy(lock_timeout_s))
    with open_state_dir(layout) as room_fd:
        publish_index(layout, room_fd, lock, put)


def _look_again(intake: Ingester, candidate: _Candidate, control: Control) -> _Candidate:
    if candidate.root is None:
        return candidate
    try:
        hole = _hole_below(intake, candidate.root, control)
    except Cancelled:
        raise
    except KitcacheError as error:
        problem = f"published, but not looked at once more: {error.problem}"
        return candidate._replace(outcome="failed", problem=problem, code=error.exit_code)
    if not hole:
        return candidate
    problem = f"published, but others removed from it meanwhile: {hole}"
    return candidate._replace(outcome="failed", problem=problem, code=Damaged.exit_code)


def _failed(candidate: _Candidate, error: KitcacheError) -> _Candidate:
    return candidate._replace(
        root=None,
        outcome="failed",
        problem=f"not published: {error.problem}",
        code=error.exit_code,
    )


def _result(intake: Ingester, candidate: _Candidate, tag: str) -> CacheResult:
    publication, root, outcome, problem, code = candidate
    return CacheResult(
        path=intake.layout.path,
        tag=tag,
        outcome=outcome,
        digest=str(root.digest) if root else None,
        written=publication.store.written,
        reused=publication.store.reused,
        reset=None,
        problem=problem,
        failure_code=0 if publication.is_optional else code,
    )


def _read_hint(response: Mapping[str, str]) -> Descriptor | None:
    """The descriptor in `cache.manifest`; None where there is none that can be read."""
    try:
        return read_descriptor(read_document(response.get("cache.manifest", "").encode()))
    except Damaged:
        return None
