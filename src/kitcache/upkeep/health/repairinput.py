"""The input of a repair plan, read from the store and from the other copies of the cache.

The survey shows the store as it will be: without its bad blobs, and with the blobs that copies
offer. Only the offered blobs of a copy are hashed, and only hashed blobs are used.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from kitcache.errors import Damaged, Unsafe
from kitcache.gc.control import Control
from kitcache.gc.survey import survey_roots
from kitcache.gc.values import Survey
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.index import IndexEntry, read_entries
from kitcache.store.directory import DirectoryStore
from kitcache.store.files import INDEX
from kitcache.store.hashing import check_may_read
from kitcache.store.overlay import Overlay
from kitcache.store.values import Roots
from kitcache.upkeep.health.hash import hash_some
from kitcache.upkeep.health.indexrecovery import (
    Document,
    RecoveredEntry,
    choose_entries,
    correct_sizes,
    glean_entries,
    make_index,
    read_root,
)
from kitcache.upkeep.health.judge import Judge
from kitcache.upkeep.health.repairplan import RepairInput
from kitcache.upkeep.project import CacheDocuments
from kitcache.upkeep.results import BadBlob
from kitcache.upkeep.trimming.trimplan import layer_uses

Copies = Mapping[str, DirectoryStore]
"""Other copies of the cache, opened, by the path that the caller named."""


def read_repair_input(
    store: DirectoryStore, copies: Copies, bad_blobs: Collection[BadBlob], control: Control
) -> RepairInput:
    """Return the input of a repair plan. The store's directories have been opened.

    Args:
        bad_blobs: All bad blobs of the store, hashed just before this call.

    Raises:
        KitcacheError: A blob counts as bad only because the caller may not read it.
        Unreadable: A blob was intact when it was hashed and cannot be read now.
        Unsafe: index.json is a symlink or above its cap.
        Cancelled: The caller has cancelled the repair.
    """
    for blob in bad_blobs:
        check_may_read(store, blob.digest)
    overlay = Overlay(store, {blob.digest for blob in bad_blobs}, tuple(copies.values()))
    index, lost = _read_index(store, control)
    exported = dict(_recorded_exports(store))
    data, candidates = index.data, tuple[RecoveredEntry, ...]()
    if lost:
        old = index.data or b""
        others = tuple(_read_indexes(copies))
        documents = _read_documents(store, overlay, control)
        documents |= _read_named(overlay, old, exported.values())
        recorded = {tag: str(digest) for tag, digest in exported.items()}
        candidates = choose_entries(old, recorded, others, documents)
        data = make_index(candidates)
    corrected = frozenset[int]()
    if data is not None:
        data, corrected = correct_sizes(data, lambda digest: _size_of(overlay, digest))
    entries = () if data is None else read_entries(data)
    last_exports = dict(_last_exports(overlay, entries, exported))

    def survey() -> Survey:
        return _survey(overlay, control, index, entries, last_exports)

    projected, offers = _verify_offers(overlay, copies, survey, control)
    bad = {blob.digest: blob.problem for blob in bad_blobs}
    # A bad blob that a copy offers will be replaced, so it is not a fault.
    judge = Judge(overlay, projected, {d: bad[d] for d in bad if d not in projected.live})
    roots = [e.descriptor for e in entries if e.descriptor and not e.is_subject]
    roots = [root._replace(ref_name=None) for root in (*roots, *last_exports.values())]
    statuses = {root: judge.judge(root) for root in roots}
    return RepairInput(
        old_index=index.data,
        index_data=data,
        survey=projected,
        last_exports=last_exports,
        statuses=statuses,
        caches=dict(
            _read_caches(overlay, [root for root in roots if not statuses[root].is_intact])
        ),
        last_used_ns=layer_uses(store),
        bad=bad,
        problems=judge.problems,
        offers=offers,
        corrected=corrected,
        symlinks=frozenset(_find_symlinks(store, {*offers, *_faulty(projected)} - bad.keys())),
        lost=lost,
        candidates=candidates,
    )


def _read_index(store: DirectoryStore, control: Control) -> tuple[Roots, str]:
    """Return index.json, and the reason to rebuild it, "" if it is usable."""
    try:
        index = store.read_roots(control.pause)
    except Damaged as error:
        return store.read_raw_roots(), error.problem.removeprefix(f"{INDEX} is ")
    has_blobs = any(batch.names for batch in store.scan_blobs())
    is_lost = index.data is None and has_blobs
    return index, "missing although there are blobs" if is_lost else ""


def _recorded_exports(store: DirectoryStore) -> Iterator[tuple[str, Digest]]:
    for tag, use in store.read_tag_uses().items():
        with suppress(ValueError):
            yield tag, parse_digest(use.digest)


def _read_documents(
    store: DirectoryStore, overlay: Overlay, control: Control
) -> dict[Digest, Document]:
    """Return every manifest and index among the blobs."""
    documents = {}
    for batch in store.scan_blobs():
        for name in batch.names:
            control.check()
            digest = Digest(batch.algorithm, name)
            document = _read_document(overlay, digest)
            if document is not None:
                documents[digest] = document
    return documents


def _read_indexes(copies: Copies) -> Iterator[bytes]:
    """Yield index.json of every copy that has one; a symlink, or one above the cap, is skipped."""
    for copy in copies.values():
        with suppress(Unsafe):
            yield copy.read_raw_roots().data or b""


def _read_named(
    overlay: Overlay, old_index: bytes, exported: Iterable[Digest]
) -> Iterator[tuple[Digest, Document]]:
    """Yield the roots that the old index.json and the records name; a copy may have them."""
    for digest in (*(entry.digest for entry in glean_entries(old_index)), *exported):
        document = _read_document(overlay, digest)
        if document is not None:
            yield digest, document


def _read_document(overlay: Overlay, digest: Digest) -> Document | None:
    data = _read(overlay, digest)
    document = None if data is None else read_root(data)
    stat = overlay.stat_blob(digest) if document is not None else None
    return document._replace(written_ns=stat.mtime_ns) if document and stat else document


def _read(overlay: Overlay, digest: Digest) -> bytes | None:
    """Return a blob's bytes, None if it is missing or cannot be JSON. Raises Unreadable."""
    try:
        return overlay.read_blob(digest, None, unless_binary=True)
    except (Damaged, Unsafe):
        return None


def _size_of(overlay: Overlay, digest: Digest) -> int | None:
    stat = overlay.stat_blob(digest)
    return stat.size if stat is not None and stat.kind == "file" else None


def _last_exports(
    overlay: Overlay, entries: tuple[IndexEntry, ...], exported: Mapping[str, Digest]
) -> Iterator[tuple[str, Descriptor]]:
    """Yield the last export of each tag, if its root exists and the entry names another root."""
    for entry in entries:
        digest = exported.get(entry.ref_name) if entry.ref_name is not None else None
        if entry.ref_name is None or digest is None:
            continue
        if entry.descriptor is None or entry.descriptor.digest != digest:
            document = _read_document(overlay, digest)
            if document is not None:
                yield entry.ref_name, Descriptor(document.media_type, digest, document.size)


def _survey(
    overlay: Overlay,
    control: Control,
    index: Roots,
    entries: tuple[IndexEntry, ...],
    last_exports: Mapping[str, Descriptor],
) -> Survey:
    """Return a survey whose roots are the entries, and which reaches the last exports too."""

    def survey_of(entries: tuple[IndexEntry, ...]) -> Survey:
        roots = index._replace(entries=entries)
        return survey_roots(overlay, control, roots, began_ns=0, needs_all=True)

    survey = survey_of(entries)
    if not last_exports:
        return survey
    more = survey_of(tuple(IndexEntry(tag, root) for tag, root in last_exports.items()))
    return survey._replace(
        live={**survey.live, **more.live},
        links={**survey.links, **more.links},
        missing_blobs=survey.missing_blobs + more.missing_blobs,
        damage=survey.damage + more.damage,
    )


def _verify_offers(
    overlay: Overlay, copies: Copies, survey: Callable[[], Survey], control: Control
) -> tuple[Survey, dict[Digest, str]]:
    """Hash the offered blobs, and survey again without the wrong ones, until all are right.

    Returns:
        The survey with the offered blobs, and the path of the copy that offers each of them.
    """
    paths, verified = tuple(copies), set[tuple[int, Digest]]()
    while True:
        surveyed = survey()
        if not copies:
            return surveyed, {}
        numbers = {digest: overlay.offer_of(digest) for digest in surveyed.live}
        offers = {digest: number for digest, number in numbers.items() if number is not None}
        new = {(number, digest) for digest, number in offers.items()} - verified
        if not new:
            return surveyed, {digest: paths[number] for digest, number in offers.items()}
        verified |= new
        for number, copy in enumerate(copies.values()):
            offered = sorted(digest for n, digest in new if n == number)
            bad = hash_some(copy, offered, control).bad_blobs
            # Hash bad blobs once more: a single failed read is not enough to reject a blob.
            bad = hash_some(copy, [blob.digest for blob in bad], control).bad_blobs
            for blob in bad:
                check_may_read(copy, blob.digest)
                overlay.refute(number, blob.digest)


def _read_caches(
    overlay: Overlay, roots: Iterable[Descriptor]
) -> Iterator[tuple[Digest, CacheDocuments]]:
    """Yield the documents of the roots that are caches with a readable cacheconfig."""
    for digest in dict.fromkeys(root.digest for root in roots):
        manifest = _read(overlay, digest)
        cache = config = None
        with suppress(Damaged):
            cache = read_cache_manifest(manifest or b"{}")
        if cache is not None:
            config = _read(overlay, cache.config.digest)
        if manifest is not None and config is not None:
            yield digest, CacheDocuments(manifest, config)


def _find_symlinks(store: DirectoryStore, digests: Iterable[Digest]) -> Iterator[Digest]:
    for digest in digests:
        stat = store.stat_blob(digest)
        if stat is not None and stat.kind == "symlink":
            yield digest


def _faulty(survey: Survey) -> set[Digest]:
    """Return the blobs that are missing, damaged or of a wrong length."""
    faulty = {blob.digest for blob in survey.missing_blobs}
    return faulty | {damage.chain[-1].digest for damage in survey.damage if damage.chain}
