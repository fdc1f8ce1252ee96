"""The repair plan: the fewest changes that make every tag importable or remove it. No I/O.

An importable tag is not changed. A cache that lacks layers is rewritten without the steps that need
them. The entry of a cache without its manifest or its cacheconfig is removed. An image or artifact
cannot be rewritten: its entry is kept if it is complete, else removed.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Literal, NamedTuple

from kitcache.errors import Damaged
from kitcache.gc.reach import reach
from kitcache.gc.values import Root, Survey
from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES, ResultKey, read_cacheconfig
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, sha256_of
from kitcache.oci.document import read_plain
from kitcache.oci.index import edit_entries
from kitcache.oci.links import BARE_LAYER, Link, kind_in_place
from kitcache.options.units import format_bytes
from kitcache.upkeep.health.faults import Fault, RootStatus, describe_faults, malformed_entry
from kitcache.upkeep.health.importrules import (
    BlobHealth,
    check_form,
    layer_faults,
    undescribed_layers,
)
from kitcache.upkeep.health.indexrecovery import RecoveredEntry
from kitcache.upkeep.project import CacheDocuments, RewrittenRoot, make_root
from kitcache.upkeep.results import RepairAction
from kitcache.upkeep.trimming.steporder import keep_until_fits


class RepairInput(NamedTuple):
    """The input of a repair plan.

    Attributes:
        old_index: The bytes of index.json; None if it is missing.
        index_data: The bytes that an edit of index.json starts from; None if there is no
            index.json and none is needed.
        survey: Of the store without its bad blobs and with the blobs that other copies offer. Its
            roots are the entries of index_data; it also reaches the last exports.
        last_exports: By tag, the root of its last export, if it exists and the entry names another
            root.
        statuses: Of all these roots, by their descriptor without a name.
        caches: By the digest of the root, the documents of the caches that are not intact, if they
            can be read.
        last_used_ns: When imports last read a layer.
        bad: Blobs that do not match their names, each with a clause.
        problems: The problem of each faulty blob, whichever root reaches it.
        offers: Missing and bad blobs, each with the path of a copy whose blob was verified.
        corrected: Positions of the entries whose size was wrong; in index_data it is right.
        symlinks: The faulty and offered blobs that are symlinks to files.
        lost: Why index.json must be rebuilt, else "".
        candidates: The entries of a rebuilt index.json.
    """

    old_index: bytes | None
    index_data: bytes | None
    survey: Survey
    last_exports: Mapping[str, Descriptor]
    statuses: Mapping[Descriptor, RootStatus]
    caches: Mapping[Digest, CacheDocuments]
    last_used_ns: Mapping[Digest, int]
    bad: Mapping[Digest, str]
    problems: Mapping[Digest, str]
    offers: Mapping[Digest, str]
    corrected: frozenset[int]
    symlinks: frozenset[Digest]
    lost: str
    candidates: Sequence[RecoveredEntry]


class RepairPlan(NamedTuple):
    """The changes of a repair, in this order. Without actions there is nothing to repair.

    Attributes:
        actions: The descriptions of all changes.
        copies: Blobs to copy, with the path of the copy that has them.
        new_blobs: Blobs to write, in this order.
        new_index: The new bytes of index.json; None if it is not changed.
        moved_exports: By tag, the root that was exported and the root that replaces it.
        bad: Blobs to quarantine.
    """

    actions: tuple[RepairAction, ...]
    copies: Mapping[Digest, str]
    new_blobs: Mapping[Digest, bytes]
    new_index: bytes | None
    moved_exports: Mapping[str, tuple[Digest, Digest]]
    bad: tuple[Digest, ...]

    @property
    def arriving(self) -> frozenset[Digest]:
        """All blobs that will be copied or written."""
        return frozenset(self.copies) | frozenset(self.new_blobs)


class _RootOutcome(NamedTuple):
    """The planned change of an entry.

    Attributes:
        target: The root that the entry names afterwards; None if the entry is removed.
        reason: One or several clauses.
        content: The new root, if one has to be written.
    """

    kind: Literal["unchanged", "rewrite-cache", "move-tag", "remove-tag"]
    target: Descriptor | None
    reason: str = ""
    content: RewrittenRoot | None = None


def make_repair_plan(source: RepairInput, *, now_ns: int, is_dry: bool) -> RepairPlan:
    """Return the fewest changes that make every tag importable or remove it.

    Args:
        is_dry: Describe the actions with "would be" instead of "was".
    """
    planner = _Planner(source, now_ns)
    outcomes = {
        root: planner.plan_entry(root) for root in source.survey.roots if root.position >= 0
    }
    if source.lost:
        outcomes = dict(_rebuilt_entries(source, outcomes))
    kept = [outcome for outcome in outcomes.values() if outcome.target is not None]
    needed = dict.fromkeys(digest for outcome in kept for digest in planner.needed_by(outcome))
    copies = {digest: source.offers[digest] for digest in needed if digest in source.offers}
    bad = {**source.bad, **{d: problem for d, problem in _bad_symlinks(source) if d not in needed}}
    contents = [outcome.content for outcome in kept if outcome.content is not None]
    was = "would be" if is_dry else "was"
    return RepairPlan(
        actions=(
            *_copy_actions(source, copies, was),
            *_index_actions(source, outcomes, was),
            *_tag_actions(outcomes, was),
            *_quarantine_actions(bad, was),
        ),
        copies=copies,
        new_blobs={
            sha256_of(data): data for content in contents for data in content.documents.in_order
        },
        new_index=_edit_index(source, outcomes),
        moved_exports=dict(_moved_exports(source, outcomes)),
        bad=tuple(bad),
    )


class _Planner:
    """Plans the change of each entry, once for each descriptor."""

    def __init__(self, source: RepairInput, now_ns: int) -> None:
        self._source = source
        self._now_ns = now_ns
        # A symlink that a blob of a copy replaces is not doubtful.
        self._symlinks = source.symlinks - source.offers.keys()
        self._known: dict[Descriptor, _RootOutcome] = {}

    def plan_entry(self, root: Root) -> _RootOutcome:
        if root.descriptor is None:
            outcome = _removed(malformed_entry(self._source.survey, root))
        else:
            outcome = self._plan(root.descriptor)
        last = self._source.last_exports.get(root.ref_name) if root.ref_name is not None else None
        if outcome.target is not None or last is None:
            return outcome
        previous = self._plan(last)
        if previous.target is None:
            return outcome
        return previous._replace(kind="move-tag", reason=outcome.reason)

    def needed_by(self, outcome: _RootOutcome) -> Collection[Digest]:
        """Return the blobs that the entry will need, except those that will be written."""
        if outcome.content is not None:
            return outcome.content.layers
        if outcome.target is None:
            return ()
        survey = self._source.survey
        return reach(survey, outcome.target, with_subjects=False, with_hints=False)

    def _plan(self, descriptor: Descriptor) -> _RootOutcome:
        descriptor = descriptor._replace(ref_name=None)
        if descriptor not in self._known:
            self._known[descriptor] = self._plan_root(descriptor)
        return self._known[descriptor]

    def _plan_root(self, descriptor: Descriptor) -> _RootOutcome:
        status = self._source.statuses[descriptor]
        faults = {**status.faults, **status.side_faults}
        documents = self._source.caches.get(descriptor.digest)
        doubtful = {digest for digest, fault in faults.items() if self._is_doubtful(fault.link)}
        if doubtful and (status.kind == "cache" or doubtful == faults.keys()):
            return _RootOutcome("unchanged", descriptor)
        if documents is not None:
            return self._plan_cache(descriptor, documents, faults)
        if faults:
            return _removed(describe_faults(faults.values()))
        return _RootOutcome("unchanged", descriptor)

    def _is_doubtful(self, link: Link) -> bool:
        """Return True if the blob is a symlink to a document, which BuildKit would follow."""
        return kind_in_place(link) != "leaf" and link.descriptor.digest in self._symlinks

    def _plan_cache(
        self, descriptor: Descriptor, documents: CacheDocuments, faults: Mapping[Digest, Fault]
    ) -> _RootOutcome:
        survey = self._source.survey
        try:
            root = documents.read_manifest()
            if root is not None:
                check_form(root.document)
            elif documents.manifest is not None:
                return _removed(describe_faults(faults.values()))
            config = read_cacheconfig(documents.config)
        except Damaged as error:
            return _removed(f"BuildKit would import none of it: it {error.problem}")
        every = [key for key, _ in config.results()]
        problems = {digest: fault.problem for digest, fault in faults.items()}
        marks = layer_faults(root, config, BlobHealth(survey.live, problems))
        kept: Collection[ResultKey] = {
            key for key, result in config.results() if not any(marks[n] for n in result.chain)
        }
        is_accepted = documents.fits_import and not (root is None and undescribed_layers(config))
        if not faults and len(kept) == len(every) and is_accepted:
            return _RootOutcome("unchanged", descriptor)
        content = make_root(documents, kept)
        if not content.documents.fits_import:
            kept = self._keep_until_importable(content.documents)
            content = make_root(content.documents, kept)
        unusable = {
            layer.digest: Fault(Link(Descriptor(BARE_LAYER, layer.digest, None), "layer"), mark)
            for layer, mark in zip(config.layers, marks, strict=True)
            if mark
        }
        reason = describe_faults({**faults, **unusable}.values()) or _describe_size(documents)
        if not kept:
            return _removed(f"no usable step is left: {reason}")
        target = descriptor._replace(digest=content.digest, size=content.size)
        if target.digest == descriptor.digest:
            return _removed(reason)
        clause = _describe_removed_steps(len(kept), len(every))
        return _RootOutcome("rewrite-cache", target, f"{clause}: {reason}", content)

    def _keep_until_importable(self, documents: CacheDocuments) -> Collection[ResultKey]:
        used = self._source.last_used_ns
        fits = attrgetter("fits_import")
        return keep_until_fits(documents, used, fits, now_ns=self._now_ns) or ()


def _removed(reason: str) -> _RootOutcome:
    return _RootOutcome("remove-tag", None, reason)


def _rebuilt_entries(
    source: RepairInput, outcomes: Mapping[Root, _RootOutcome]
) -> Iterator[tuple[Root, _RootOutcome]]:
    """Yield the entries of a rebuilt index.json, and the old entries that are removed.

    A root without a name is listed only if it is complete. It is skipped if a named entry moves to
    it: then a repair that was killed before it replaced index.json wrote this root.
    """
    taken = set()
    for root, outcome in outcomes.items():
        named_by = source.candidates[root.position].named_by
        is_new = outcome.target is not None and outcome.target.digest not in taken
        if named_by == "unknown" and not (outcome.kind == "unchanged" and is_new):
            continue
        if outcome.target is not None:
            taken.add(outcome.target.digest)
        if outcome.target is not None or named_by == "index":
            yield root, outcome


def _bad_symlinks(source: RepairInput) -> Iterator[tuple[Digest, str]]:
    """Yield symlinks to a wrong file. An exporter would skip such a blob, because it exists."""
    for digest in sorted(source.symlinks - source.offers.keys()):
        if digest in source.problems:
            yield digest, f"is a symlink, and {source.problems[digest]}"


def _moved_exports(
    source: RepairInput, outcomes: Mapping[Root, _RootOutcome]
) -> Iterator[tuple[str, tuple[Digest, Digest]]]:
    for root, outcome in outcomes.items():
        is_own = outcome.kind == "rewrite-cache"
        before = root.descriptor if is_own else source.last_exports.get(root.ref_name or "")
        if outcome.content and outcome.target and root.ref_name and before is not None:
            yield root.ref_name, (before.digest, outcome.target.digest)


def _edit_index(source: RepairInput, outcomes: Mapping[Root, _RootOutcome]) -> bytes | None:
    """Return the new bytes of index.json, None if it is not changed."""
    if source.index_data is None:
        return None
    drop, move, media_types = [], {}, {}
    for root in source.survey.roots:
        outcome = outcomes.get(root)
        if root.position < 0 or (outcome is not None and outcome.kind == "unchanged"):
            continue
        target = outcome.target if outcome is not None else None
        if target is None:
            drop.append(root.position)
        else:
            move[root.position] = (target.digest, target.size or 0)
            media_types[root.position] = target.media_type
    if not (drop or move or source.corrected or source.lost):
        return None
    document = read_plain(source.index_data)
    # The last export can have the other form of a cache: image manifest or index.
    for position, media_type in media_types.items():
        document["manifests"][position]["mediaType"] = media_type
    return edit_entries(json.dumps(document).encode(), remove=drop, move=move)


def _copy_actions(
    source: RepairInput, copies: Mapping[Digest, str], was: str
) -> Iterator[RepairAction]:
    for digest, path in copies.items():
        size = format_bytes(source.survey.live[digest])
        problem = "is a symlink" if digest in source.symlinks else "is missing"
        problem = source.bad.get(digest, problem)
        sentence = f"blob {digest.short} ({size}) {was} copied from {path}: here it {problem}"
        yield RepairAction("copy-blob", None, digest, sentence)


_NAME_SOURCES = {
    "index": "the old index.json still names it",
    "records": "it is the last export that kitcache recorded",
    "copy": "the index.json of another copy names it",
    "unknown": "its blobs are intact, but its name is not known",
}


def _index_actions(
    source: RepairInput, outcomes: Mapping[Root, _RootOutcome], was: str
) -> Iterator[RepairAction]:
    if source.lost:
        count = sum(outcome.target is not None for outcome in outcomes.values())
        entries = "entry" if count == 1 else "entries"
        sentence = f"index.json ({source.lost}) {was} rebuilt, with {count:,} {entries}"
        yield RepairAction("rebuild-index", None, None, sentence)
    named_by = [candidate.named_by for candidate in source.candidates]
    # Entries without a known name are listed newest first.
    unnamed = [
        root
        for root, outcome in outcomes.items()
        if outcome.target and named_by[root.position :][:1] == ["unknown"]
    ]
    for root, outcome in outcomes.items():
        if outcome.target is None:
            continue
        if source.lost:
            newest = "; it is the newest of them" if root in unnamed[:1] and unnamed[1:] else ""
            why = _NAME_SOURCES[named_by[root.position]]
            sentence = f"{root.label} {was} recovered: {why}{newest}"
            yield RepairAction("rebuild-index", root.ref_name, outcome.target.digest, sentence)
        elif root.position in source.corrected:
            sentence = f"{root.label} {was} given the right size of its manifest in index.json"
            yield RepairAction("move-tag", root.ref_name, outcome.target.digest, sentence)


def _tag_actions(outcomes: Mapping[Root, _RootOutcome], was: str) -> Iterator[RepairAction]:
    for root, outcome in outcomes.items():
        if outcome.kind == "unchanged":
            continue
        target, digest = outcome.target, root.descriptor.digest if root.descriptor else None
        if target is None:
            sentence = f"{root.label} {was} removed from {root.roots_name}: {outcome.reason}"
        elif outcome.kind == "rewrite-cache":
            sentence = f"{root.label} {was} rewritten{outcome.reason}"
        else:
            last = f"{target.digest.short}, the last export that kitcache recorded"
            sentence = f"{root.label} {was} moved to {last}: {outcome.reason}"
        named = digest if target is None else target.digest
        yield RepairAction(outcome.kind, root.ref_name, named, sentence)


def _quarantine_actions(bad: Mapping[Digest, str], was: str) -> Iterator[RepairAction]:
    for digest, problem in bad.items():
        sentence = f"blob {digest.short} {was} quarantined: it {problem}"
        yield RepairAction("quarantine-blob", None, digest, sentence)


def _describe_size(documents: CacheDocuments) -> str:
    size, limit = max(map(len, documents.in_order)), IMPORT_LIMIT_BYTES
    return f"its manifest or cacheconfig has {size:,} bytes, and BuildKit imports at most {limit:,}"


def _describe_removed_steps(kept: int, before: int) -> str:
    if kept == before:
        return ", with all its steps"
    return f" without {before - kept:,} of its {before:,} steps"
