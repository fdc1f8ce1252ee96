"""The roots of a copy: their documents, in the form that the target has."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, Damaged, KitcacheError
from kitcache.gc.control import Control
from kitcache.gc.ls import kind_below
from kitcache.gc.reach import reach
from kitcache.gc.refusals import incomplete_error
from kitcache.gc.values import Root, Survey
from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES, ResultKey, read_cacheconfig
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

_MAX_LISTED = 6
_HELD_BYTES = 64 * 1024 * 1024
"""The documents of more roots are made again when they are written, so they need no memory."""
_KINDS = {"image": "an image", "artifact": "an artifact", "cache": "an index of build caches"}


class ConvertedRoot(NamedTuple):
    """A root in the form that the target has.

    Attributes:
        root: As its source has it.
        descriptor: Of the root in the target.
        kept: The results that are kept if the root is trimmed, None for all.
        documents: None if they are made again when they are written.
    """

    root: Root
    descriptor: Descriptor
    kept: frozenset[ResultKey] | None
    documents: CacheDocuments | None

    @property
    def entry(self) -> IndexEntry:
        """The entry that it has in the roots of the target, without a rename."""
        return IndexEntry(self.root.ref_name, self.descriptor)


class SourceCache(NamedTuple):
    """A cache to copy from, and its selected roots.

    Attributes:
        form: Of the target.
        layers: The layers of these roots, each with the first root that names it.
    """

    store: EditableStore
    survey: Survey
    form: Form
    roots: tuple[ConvertedRoot, ...]
    layers: Mapping[Digest, Root]
    skipped: tuple[SkippedTag, ...]
    trimmed: tuple[TrimmedTag, ...]

    def documents_of(self, converted: ConvertedRoot) -> CacheDocuments:
        """Return the documents of one of the roots. Raises Damaged, Unreadable."""
        if converted.documents is not None:
            return converted.documents
        documents = _convert(self.store, self.survey, converted.root, self.form)
        if converted.kept is None:
            return documents
        return make_root(documents, converted.kept).documents


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
    roots, skipped, trimmed, too_large = [], [], [], []
    layers: dict[Digest, Root] = {}
    held_bytes = 0
    for root in survey.roots:
        if root.position < 0 or not is_selected(tags, root.ref_name):
            continue
        control.check()
        problems = find_missing(survey, root)
        if problems or root.descriptor is None:
            raise incomplete_error(store.path, root, problems)
        try:
            documents = _convert(store, survey, root, form)
        except _SkipError as skip:
            digest = str(root.descriptor.digest)
            skipped.append(SkippedTag(store.path, root.ref_name, digest, str(skip)))
            if root.ref_name in tags:
                problem = f"{root.label} {skip}"
                raise KitcacheError(store.path, problem, effect=NOTHING_CHANGED) from None
            continue
        kept: frozenset[ResultKey] | None = None
        if not documents.fits_import:
            kept = _select_steps(store, documents) if trims else None
            if kept is None:
                too_large.append((root, max(map(len, documents.in_order))))
                continue
            steps = sum(1 for _ in read_cacheconfig(documents.config).results())
            trimmed.append(TrimmedTag(store.path, root.ref_name, steps, steps - len(kept)))
            documents = make_root(documents, kept).documents
        held_bytes += documents.size
        held = documents if held_bytes <= _HELD_BYTES else None
        roots.append(ConvertedRoot(root, _describe(documents), kept, held))
        for layer in read_cacheconfig(documents.config).layers:
            layers.setdefault(layer.digest, root)
    if too_large:
        raise _too_large_error(store, too_large, trims=trims)
    return SourceCache(store, survey, form, tuple(roots), layers, tuple(skipped), tuple(trimmed))


def _convert(store: EditableStore, survey: Survey, root: Root, form: Form) -> CacheDocuments:
    """Return the documents of a root in the form of the target. Raises _SkipError, Damaged."""
    if form == "object" and root.ref_name is None:
        raise _SkipError("has no name, which an object store needs")
    if root.descriptor is None:
        raise ValueError("a root that cannot be read cannot be converted")
    try:
        documents = read_cache(store, root.descriptor)
        if documents is None:
            reached = reach(survey, root.descriptor, with_subjects=False)
            kind = _KINDS.get(kind_below(survey, root.descriptor, reached), "not a build cache")
            raise _SkipError(f"is {kind}, which an object store cannot hold")
        if form == "directory" and not read_cacheconfig(documents.config).layers:
            raise _SkipError("names no layers, and BuildKit exports no such cache to a directory")
        return _to_form(documents, form)
    except DocumentError as error:
        raise Damaged(
            store.path,
            f"{root.label} cannot be copied: {error.reason}",
            kind=error.kind,
            tag=root.ref_name,
            chain=(store.roots_name, str(root.descriptor.digest)),
            effect=NOTHING_CHANGED,
            hints=("export it again with a current BuildKit", "name the other tags to copy"),
        ) from None


def _to_form(documents: CacheDocuments, form: Form) -> CacheDocuments:
    if form == "directory" and documents.manifest is None:
        return CacheDocuments(*to_directory_form(documents.config))
    if form == "object" and documents.manifest is not None:
        return CacheDocuments(None, to_object_form(documents.manifest, documents.config))
    return documents


def _describe(documents: CacheDocuments) -> Descriptor:
    media_type = CACHECONFIG if documents.manifest is None else MANIFEST_TYPE
    return Descriptor(media_type, sha256_of(documents.root), len(documents.root))


def _select_steps(store: EditableStore, documents: CacheDocuments) -> frozenset[ResultKey] | None:
    """Return the results to keep, so that a root is small enough; None if no step fits."""
    return keep_until_fits(
        documents,
        layer_uses(store),
        lambda trimmed: trimmed.fits_import,
        now_ns=store.now_ns(),
    )


def _too_large_error(
    store: EditableStore, roots: Sequence[tuple[Root, int]], *, trims: bool
) -> KitcacheError:
    limit = f"BuildKit imports at most {IMPORT_LIMIT_BYTES:,} from a directory"
    limit += "; its last step alone exceeds that" if trims else ""
    problems = [f"{root.label} would have a document of {n:,} bytes: {limit}" for root, n in roots]
    return KitcacheError(
        store.path,
        problems[0],
        details=tuple(f"also: {problem}" for problem in problems[1:_MAX_LISTED]),
        effect=NOTHING_CHANGED,
        hints=() if trims else ("copy such tags without their least recently used steps",),
    )


def list_layers(sources: Sequence[SourceCache]) -> tuple[BlobCopy, ...]:
    """Return the layers of all selected roots, each once, from the first source that names it.

    Raises:
        Damaged: A layer is missing, or has a digest that kitcache cannot verify.
    """
    copies: dict[Digest, BlobCopy] = {}
    for number, source in enumerate(sources):
        live = source.survey.live
        for digest, root in source.layers.items():
            if digest not in live or not digest.is_known:
                raise _lost_layer_error(source.store.path, root, digest)
            if digest not in copies:
                copies[digest] = BlobCopy(number, digest, live[digest], root)
    return tuple(copies.values())


def _lost_layer_error(path: str, root: Root, digest: Digest) -> Damaged:
    problem = "is missing" if digest.is_known else "cannot be verified by kitcache"
    return Damaged(
        path,
        f"{root.label} is not complete: blob {digest.short} {problem}",
        kind="missing" if digest.is_known else "unknown-algorithm",
        tag=root.ref_name,
        effect=NOTHING_CHANGED,
    )
