"""The roots of a copy: their documents, in the form that the target has."""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, Damaged, KitcacheError
from kitcache.gc.control import Control
from kitcache.gc.ls import kind_below
from kitcache.gc.reach import reach
from kitcache.gc.refusals import incomplete_error
from kitcache.gc.values import Root, Survey
from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES, read_cacheconfig
from kitcache.oci.cacheforms import MANIFEST_TYPE, to_directory_form, to_object_form
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, sha256_of
from kitcache.oci.document import DocumentError
from kitcache.oci.index import IndexEntry
from kitcache.oci.links import CACHECONFIG
from kitcache.store.protocol import EditableStore
from kitcache.upkeep.naming.blobcopy import BlobCopy
from kitcache.upkeep.naming.mergeplan import is_selected
from kitcache.upkeep.naming.missing import find_missing
from kitcache.upkeep.project import CacheDocuments, make_root
from kitcache.upkeep.results import SkippedTag, TrimmedTag
from kitcache.upkeep.trimming.steporder import keep_until_fits
from kitcache.upkeep.trimming.trimplan import layer_uses, read_cache

Form = Literal["directory", "object"]

_KINDS = {"image": "an image", "artifact": "an artifact", "cache": "an index of build caches"}


class ConvertedRoot(NamedTuple):
    """A root in the form that the target has.

    Attributes:
        root: As its source has it.
        trimmed: What was removed so that BuildKit imports it; None if nothing was.
    """

    root: Root
    documents: CacheDocuments
    descriptor: Descriptor
    layers: frozenset[Digest]
    trimmed: TrimmedTag | None = None

    @property
    def entry(self) -> IndexEntry:
        """The entry that it has in the roots of the target, without a rename."""
        return IndexEntry(self.root.ref_name, self.descriptor)


class SourceCache(NamedTuple):
    """A cache to copy from, and its selected roots."""

    store: EditableStore
    survey: Survey
    roots: tuple[ConvertedRoot, ...]
    skipped: tuple[SkippedTag, ...]


class _SkipError(Exception):
    """A root that the target cannot hold. The message is a clause."""


def convert_source(
    store: EditableStore,
    survey: Survey,
    tags: tuple[str, ...],
    form: Form,
    control: Control,
    *,
    trims: bool,
) -> SourceCache:
    """Return the selected roots of a source in the form of the target.

    Args:
        tags: Patterns of tags, () for all.
        trims: Remove steps of a root that is too large for a directory.

    Raises:
        Damaged: A root is not complete, or lacks a fact that the other form needs.
        KitcacheError: A root that is named exactly cannot be copied, or is too large.
    """
    roots, skipped = [], []
    for root in survey.roots:
        if root.position < 0 or not is_selected(tags, root.ref_name):
            continue
        control.check()
        problems = find_missing(survey, root)
        if problems or root.descriptor is None:
            raise incomplete_error(store.path, root, problems)
        try:
            converted = _convert(store, survey, root, root.descriptor, form)
        except _SkipError as skip:
            digest = str(root.descriptor.digest)
            skipped.append(SkippedTag(store.path, root.ref_name, digest, str(skip)))
            if root.ref_name in tags:
                problem = f"{root.label} {skip}"
                raise KitcacheError(store.path, problem, effect=NOTHING_CHANGED) from None
        else:
            roots.append(converted)
    if form == "directory":
        roots = _fit_all(store, roots, trims=trims)
    return SourceCache(store, survey, tuple(roots), tuple(skipped))


def _convert(
    store: EditableStore, survey: Survey, root: Root, descriptor: Descriptor, form: Form
) -> ConvertedRoot:
    """Return a root in the form of the target. Raises _SkipError, Damaged."""
    if form == "object" and root.ref_name is None:
        raise _SkipError("has no name, which an object store needs")
    try:
        documents = read_cache(store, descriptor)
        if documents is None:
            reached = reach(survey, descriptor, with_subjects=False)
            kind = _KINDS.get(kind_below(survey, descriptor, reached), "not a build cache")
            raise _SkipError(f"is {kind}, which an object store cannot hold")
        if form == "directory" and not read_cacheconfig(documents.config).layers:
            raise _SkipError("names no layers, and BuildKit exports no such cache to a directory")
        return _made(root, _to_form(documents, form))
    except DocumentError as error:
        raise Damaged(
            store.path,
            f"{root.label} cannot be copied: {error.reason}",
            kind=error.kind,
            tag=root.ref_name,
            chain=(store.roots_name, str(descriptor.digest)),
            effect=NOTHING_CHANGED,
            hints=("export it again with a current BuildKit", "name the other tags to copy"),
        ) from None


def _to_form(documents: CacheDocuments, form: Form) -> CacheDocuments:
    if form == "directory" and documents.manifest is None:
        return CacheDocuments(*to_directory_form(documents.config))
    if form == "object" and documents.manifest is not None:
        return CacheDocuments(None, to_object_form(documents.manifest, documents.config))
    return documents


def _made(root: Root, documents: CacheDocuments) -> ConvertedRoot:
    media_type = CACHECONFIG if documents.manifest is None else MANIFEST_TYPE
    descriptor = Descriptor(media_type, sha256_of(documents.root), len(documents.root))
    layers = frozenset(layer.digest for layer in read_cacheconfig(documents.config).layers)
    return ConvertedRoot(root, documents, descriptor, layers)


def _fit_all(
    store: EditableStore, roots: Sequence[ConvertedRoot], *, trims: bool
) -> list[ConvertedRoot]:
    """Return the roots, each small enough to be imported. Raises KitcacheError for the others."""
    fitting: list[ConvertedRoot] = []
    problems = []
    limit = f"BuildKit imports at most {IMPORT_LIMIT_BYTES:,} from a directory"
    limit += "; its last step alone exceeds that" if trims else ""
    for root in roots:
        fitted = root if root.documents.fits_import else trims and _trim(store, root)
        if fitted:
            fitting.append(fitted)
        else:
            largest = max(map(len, root.documents.in_order))
            problems.append(
                f"{root.root.label} would have a document of {largest:,} bytes: {limit}"
            )
    if problems:
        raise KitcacheError(
            store.path,
            problems[0],
            details=tuple(f"also: {problem}" for problem in problems[1:]),
            effect=NOTHING_CHANGED,
            hints=() if trims else ("copy such tags without their least recently used steps",),
        )
    return fitting


def _trim(store: EditableStore, root: ConvertedRoot) -> ConvertedRoot | None:
    """Return the root without the least recently used steps, None if no step fits."""
    kept = keep_until_fits(
        root.documents,
        layer_uses(store),
        lambda documents: documents.fits_import,
        now_ns=store.now_ns(),
    )
    if kept is None:
        return None
    steps = sum(1 for _ in read_cacheconfig(root.documents.config).results())
    trimmed = TrimmedTag(store.path, root.root.ref_name, steps, steps - len(kept))
    made = _made(root.root, make_root(root.documents, kept).documents)
    return made._replace(trimmed=trimmed)


def list_layers(
    sources: Sequence[SourceCache], selected: Collection[tuple[int, int]]
) -> tuple[BlobCopy, ...]:
    """Return the layers of some roots, each once.

    Args:
        selected: The number of a source, and of a root in it.

    Raises:
        Damaged: A layer has a digest that kitcache cannot verify.
    """
    copies: dict[Digest, BlobCopy] = {}
    for number, position in selected:
        source = sources[number]
        converted = source.roots[position]
        for digest in sorted(converted.layers - copies.keys()):
            problem = "" if digest.is_known else "cannot be verified by kitcache"
            if digest not in source.survey.live:
                problem = "is missing"
            if problem:
                raise Damaged(
                    source.store.path,
                    f"{converted.root.label} is not complete: blob {digest.short} {problem}",
                    kind="missing" if digest.is_known else "unknown-algorithm",
                    tag=converted.root.ref_name,
                    effect=NOTHING_CHANGED,
                )
            size = source.survey.live[digest]
            copies[digest] = BlobCopy(number, digest, size, converted.root)
    return tuple(copies.values())
