"""All that a repair decides by, read from the disk: what there is, and what there would be.

The store is surveyed as it will be: without its bad blobs, and with what other copies have of them.
Of another copy only what is needed is hashed, and nothing is believed that was not.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from kitcache.errors import Damaged, Unsafe
from kitcache.gc.control import Control
from kitcache.gc.reach import reach
from kitcache.gc.survey import survey_roots
from kitcache.gc.values import Survey
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.index import IndexEntry, read_entries
from kitcache.store.directory import DirectoryStore
from kitcache.store.files import INDEX
from kitcache.store.index import IndexFile, read_index
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import FILE_FLAGS
from kitcache.store.overlay import Overlay
from kitcache.store.protocol import Roots
from kitcache.store.state import read_tag_uses
from kitcache.upkeep.health.hash import rehash_some
from kitcache.upkeep.health.importrules import BlobHealth, judge_cache
from kitcache.upkeep.health.indexrecovery import (
    Document,
    RecoveredEntry,
    choose_entries,
    correct_sizes,
    glean_entries,
    make_index,
    read_root,
)
from kitcache.upkeep.health.repairplan import CacheRoot, RepairInput
from kitcache.upkeep.results import BadBlob
from kitcache.upkeep.trimming.trimplan import layer_uses

Copies = Mapping[str, DirectoryStore]
"""Other cache directories that blobs may come from, opened, by the path that the caller named."""


class Diagnosis(NamedTuple):
    """What was found, of the store whose index.json has these bytes; None: there is none."""

    found: RepairInput
    old_index: bytes | None


def diagnose(
    layout: DirectoryStore, copies: Copies, bad: Collection[BadBlob], control: Control
) -> Diagnosis:
    """Look at everything once. bad: all that is; the layout's directories have been opened.

    Raises KitcacheError where a blob is bad only because the caller may not read it, and Unreadable
    where one is not bad and cannot be read: it may be whole. Unsafe where index.json is a link or
    above its cap; Cancelled.
    """
    _check_may_read(layout, bad)
    overlay = Overlay(layout, {one.digest for one in bad}, tuple(copies.values()))
    index, lost = _read_index(layout, control)
    noted = {tag: note.digest for tag, note in read_tag_uses(layout).items() if note.digest}
    candidates: tuple[RecoveredEntry, ...] = ()
    data = index.data
    if lost:
        old, others = index.data or b"", tuple(_read_indexes(copies))
        documents = _read_documents(layout, overlay, control)
        documents |= _read_named(overlay, old, noted)
        candidates = choose_entries(old, noted, others, documents)
        data = make_index(candidates)
    corrected = frozenset[int]()
    if data is not None:
        data, corrected = correct_sizes(data, lambda digest: _size_of(overlay, digest))
    entries = () if data is None else read_entries(data)
    last = _last_exports(overlay, entries, noted)
    survey, offers = _ProjectedStore(overlay, control, index, entries, last).prove(copies)
    roots = [entry.descriptor for entry in entries if entry.descriptor and not entry.is_subject]
    return Diagnosis(
        RepairInput(
            index_data=data,
            survey=survey,
            noted=last,
            caches=dict(_read_caches(overlay, survey, [*roots, *last.values()])),
            used=layer_uses(layout),
            bad={one.digest: one.problem for one in bad},
            offers=offers,
            corrected=corrected,
            links=frozenset(_find_links(layout, survey, offers, bad)),
            lost=lost,
            candidates=candidates,
        ),
        index.data,
    )


def _check_may_read(layout: DirectoryStore, bad: Collection[BadBlob]) -> None:
    """What cannot be read for want of permission may be whole: somebody else has to look."""
    for one in bad:
        fd = layout.blobs[one.digest.algorithm]
        try:
            os.close(os.open(one.digest.hex, FILE_FLAGS, dir_fd=fd))
        except PermissionError as error:
            raise io_error(layout.path, f"cannot read blob {one.digest.short}", error) from None
        except OSError:
            continue


def _read_index(layout: DirectoryStore, control: Control) -> tuple[IndexFile, str]:
    """index.json, and what is wrong with it if it says nothing; "" where it does say something."""
    try:
        index = IndexFile(*layout.read_roots(control.pause)[:3])
    except Damaged as error:
        return read_index(layout), error.problem.removeprefix(f"{INDEX} is ")
    has_blobs = any(batch.names for batch in layout.scan_blobs())
    return index, "missing beside blobs" if index.data is None and has_blobs else ""


def _read_documents(
    layout: DirectoryStore, overlay: Overlay, control: Control
) -> dict[Digest, Document]:
    """Every manifest and index among the blobs."""
    found = {}
    for batch in layout.scan_blobs():
        for name in batch.names:
            control.check()
            digest = Digest(batch.algorithm, name)
            document = _read_document(overlay, digest)
            if document is not None:
                found[digest] = document
    return found


def _read_indexes(copies: Copies) -> Iterator[bytes]:
    """index.json of every copy that has one; a link to one, or one above the cap, is none."""
    for copy in copies.values():
        with suppress(Unsafe):
            yield read_index(copy).data or b""


def _read_named(
    overlay: Overlay, old_index: bytes, noted: Mapping[str, str]
) -> Iterator[tuple[Digest, Document]]:
    """What the old index.json and the notes name: another copy may have it."""
    digests = [gleaned.digest for gleaned in glean_entries(old_index)]
    digests += [parse_digest(text) for text in noted.values() if _is_digest(text)]
    for digest in digests:
        document = _read_document(overlay, digest)
        if document is not None:
            yield digest, document


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except ValueError:
        return False
    return True


def _read_document(overlay: Overlay, digest: Digest) -> Document | None:
    data = _read(overlay, digest)
    document = None if data is None else read_root(data)
    found = overlay.stat_blob(digest) if document is not None else None
    return document._replace(written_ns=found.mtime_ns) if document and found else document


def _read(overlay: Overlay, digest: Digest) -> bytes | None:
    """A blob's proven bytes; None where there are none, or where they can be no JSON.

    Raises Unreadable. What was bad when it was hashed counts as missing by now.
    """
    try:
        return overlay.read_blob(digest, None, unless_binary=True)
    except (Damaged, Unsafe):
        return None


def _find_links(
    layout: DirectoryStore, survey: Survey, offers: Collection[Digest], bad: Collection[BadBlob]
) -> Iterator[Digest]:
    """Links to a file, of what is at fault and of what a copy has."""
    for digest in {*offers, *_faults_of(survey)} - {one.digest for one in bad}:
        found = layout.stat_blob(digest)
        if found is not None and found.kind == "link":
            yield digest


def _faults_of(survey: Survey) -> set[Digest]:
    """What is missing, or damaged, or not whole."""
    faults = {leaf.digest for leaf in survey.missing_blobs}
    return faults | {damage.chain[-1].digest for damage in survey.damage if damage.chain}


def _size_of(overlay: Overlay, digest: Digest) -> int | None:
    found = overlay.stat_blob(digest)
    return found.size if found is not None and found.kind == "file" else None


def _last_exports(
    overlay: Overlay, entries: tuple[IndexEntry, ...], noted: Mapping[str, str]
) -> dict[str, Descriptor]:
    """By tag what was exported last under it, where that is there and the entry names another."""
    found = {}
    for entry in entries:
        text = noted.get(entry.ref_name) if entry.ref_name is not None else None
        if entry.ref_name is None or text is None or not _is_digest(text):
            continue
        digest = parse_digest(text)
        if entry.descriptor is None or entry.descriptor.digest != digest:
            document = _read_document(overlay, digest)
            if document is not None:
                descriptor = Descriptor(document.media_type, digest, document.size)
                found[entry.ref_name] = descriptor
    return found


class _ProjectedStore(NamedTuple):
    """The store as it would be. last: by tag, what was exported last, beside the entries."""

    overlay: Overlay
    control: Control
    index_file: IndexFile
    entries: tuple[IndexEntry, ...]
    last: Mapping[str, Descriptor]

    def survey(self) -> Survey:
        """Its roots are the entries; its links are those of `last` too."""
        survey = self._below(self.entries)
        if not self.last:
            return survey
        more = self._below(tuple(IndexEntry(tag, last) for tag, last in self.last.items()))
        return survey._replace(
            live={**survey.live, **more.live},
            links={**survey.links, **more.links},
            missing_blobs=survey.missing_blobs + more.missing_blobs,
            damage=survey.damage + more.damage,
        )

    def _below(self, entries: tuple[IndexEntry, ...]) -> Survey:
        return survey_roots(
            self.overlay,
            self.control,
            Roots(None, self.index_file.digest, self.index_file.changed_ns, entries),
            began_ns=0,
            needs_all=True,
        )

    def prove(self, copies: Copies) -> tuple[Survey, dict[Digest, str]]:
        """The survey once all that would come from a copy was hashed there, and where it is."""
        paths, proven = tuple(copies), set[tuple[int, Digest]]()
        while True:
            survey = self.survey()
            if not copies:
                return survey, {}
            given = {digest: self.overlay.offer_of(digest) for digest in survey.live}
            offers = {digest: number for digest, number in given.items() if number is not None}
            new = {(number, digest) for digest, number in offers.items()} - proven
            if not new:
                return survey, {digest: paths[number] for digest, number in offers.items()}
            proven |= new
            for number, copy in enumerate(copies.values()):
                wanted = sorted(digest for n, digest in new if n == number)
                bad = rehash_some(copy, wanted, self.control).bad
                # A second look, as at the cache's own: one failed read proves nothing.
                bad = rehash_some(copy, [one.digest for one in bad], self.control).bad
                _check_may_read(copy, bad)
                for one in bad:
                    self.overlay.refute(number, one.digest)


def _read_caches(
    overlay: Overlay, survey: Survey, roots: list[Descriptor]
) -> Iterator[tuple[Digest, CacheRoot]]:
    """The documents of every cache that does not import fully, each root once."""
    faults = _faults_of(survey)
    sound = BlobHealth(survey.live, {})
    for root in {root.digest: root for root in roots}.values():
        manifest = _read(overlay, root.digest)
        cache = None
        with suppress(Damaged):
            cache = read_cache_manifest(manifest) if manifest is not None else None
        if manifest is None or cache is None:
            continue
        config = _read(overlay, cache.config.digest)
        is_whole = faults.isdisjoint(reach(survey, root))
        if not is_whole or judge_cache(manifest, config, sound, cache).imports != "full":
            yield root.digest, CacheRoot(manifest, config)
