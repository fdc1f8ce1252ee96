"""What was found broken → the least that makes every tag importable or gone. Pure.

A tag that imports fully is never touched. Of a cache that has lost layers the steps go that need
them; of one without its manifest or its cacheconfig nothing is left; an image is what it is, or it
goes.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from kitcache.errors import Damaged
from kitcache.gc.reach import links_below, reach
from kitcache.gc.values import NodeKey, Root, Survey, key_of
from kitcache.oci.cacheconfig import (
    IMPORT_LIMIT_BYTES,
    ResultKey,
    read_cacheconfig,
    trim_cacheconfig,
)
from kitcache.oci.cachemanifest import read_cache_manifest, trim_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.document import read_plain
from kitcache.oci.index import edit_entries
from kitcache.oci.links import BARE_LAYER, Link, kind_in_place
from kitcache.options.units import format_bytes
from kitcache.upkeep.health.faults import Fault, Faults, describe_faults
from kitcache.upkeep.health.importrules import BlobHealth, check_form, layer_faults
from kitcache.upkeep.health.indexrecovery import RecoveredEntry
from kitcache.upkeep.project import NewContent
from kitcache.upkeep.results import RepairAction
from kitcache.upkeep.trimming.steporder import CacheDocuments, cut_until


class CacheRoot(NamedTuple):
    """A cache's manifest and cacheconfig: proven bytes; config None where it is gone."""

    manifest: bytes
    config: bytes | None


class RepairInput(NamedTuple):
    """All that a repair decides by.

    index_data: what an edit of index.json begins with; None where there is none, and no need for
    one. survey: of the store as it would be without its bad blobs, and with what other copies
    have; its roots are the entries of index_data. noted: by tag, what was exported last under it,
    where that is there and another root than the entry's; the survey reaches it as well. caches:
    of both those that do not import fully, by the digest of their root. used: when layers were
    last read, ns since 1970.

    bad: blobs here that are not what their names say, and why: a clause. offers: blobs that are
    missing or bad here, and the path of the copy that has them, proven. corrected: positions of
    entries whose size was wrong, and is right in index_data. links: of what is at fault or
    offered, what is a link to a file here. lost: what is wrong with index.json so that it has to be
    made anew, "" if it has not. candidates: what it was made of, an entry each.
    """

    index_data: bytes | None
    survey: Survey
    noted: Mapping[str, Descriptor]
    caches: Mapping[Digest, CacheRoot]
    used: Mapping[Digest, int]
    bad: Mapping[Digest, str]
    offers: Mapping[Digest, str]
    corrected: frozenset[int]
    links: frozenset[Digest]
    lost: str
    candidates: Sequence[RecoveredEntry]


class RepairPlan(NamedTuple):
    """What is to be done, in this order, and each step in words; no steps: nothing is.

    takes: blobs to come from the copy at that path. new_blobs: to be written in this order.
    new_index: the bytes of index.json then, None where it stays. became: by tag, the root that was
    exported, and the one that the tag names for it then. bad: blobs to be put aside.
    """

    actions: tuple[RepairAction, ...]
    takes: Mapping[Digest, str]
    new_blobs: Mapping[Digest, bytes]
    new_index: bytes | None
    became: Mapping[str, tuple[Digest, Digest]]
    bad: tuple[Digest, ...]

    @property
    def comes(self) -> frozenset[Digest]:
        """Every blob that will be there and is not, or is bad."""
        return frozenset(self.takes) | frozenset(self.new_blobs)


class _RootOutcome(NamedTuple):
    """What becomes of a root. to: what its entry names then, None where it goes.

    why: a clause, or several. content: the new root, where one has to be written.
    """

    kind: Literal["healthy", "rewrite-cache", "move-tag", "remove-tag"]
    to: Descriptor | None
    why: str = ""
    content: NewContent | None = None


def make_repair_plan(found: RepairInput, *, now_ns: int, is_dry: bool) -> RepairPlan:
    """The least that makes every tag importable or gone. is_dry: words say what would be done."""
    judge = _Judge(found, now_ns)
    fates = {root: judge.of_root(root) for root in found.survey.roots if root.position >= 0}
    if found.lost:
        fates = dict(_told(found, fates))
    kept = [fate for fate in fates.values() if fate.to is not None]
    needed = dict.fromkeys(digest for fate in kept for digest in judge.needs(fate))
    takes = {digest: found.offers[digest] for digest in needed if digest in found.offers}
    bad = {**found.bad, **{d: problem for d, problem in judge.odd_links() if d not in needed}}
    contents = [fate.content for fate in kept if fate.content is not None]
    was = "would be" if is_dry else "was"
    return RepairPlan(
        actions=(
            *_take_steps(found, takes, was),
            *_index_steps(found, fates, was),
            *_tag_steps(fates, was),
            *_quarantine_steps(bad, was),
        ),
        takes=takes,
        new_blobs={
            _digest_of(data): data
            for content in contents
            for data in (content.config, content.manifest)
        },
        new_index=_edit(found, fates),
        became=dict(_became(found, fates)),
        bad=tuple(bad),
    )


def _told(
    found: RepairInput, fates: Mapping[Root, _RootOutcome]
) -> Iterator[tuple[Root, _RootOutcome]]:
    """What a new index.json has, or misses: a root without a name has to be whole.

    One that a named root comes to was written by a repair that was killed before it had an entry.
    """
    taken = set()
    for root, fate in fates.items():
        named_by = found.candidates[root.position].named_by
        is_new = fate.to is not None and fate.to.digest not in taken
        if named_by == "nobody" and not (fate.kind == "healthy" and is_new):
            continue
        if fate.to is not None:
            taken.add(fate.to.digest)
        if fate.to is not None or named_by == "index":
            yield root, fate


class _Judge:
    """Says of a root what it comes to, each digest once."""

    def __init__(self, found: RepairInput, now_ns: int) -> None:
        self._found = found
        self._now_ns = now_ns
        survey = found.survey
        # A bad blob that a copy has will be there.
        bad = {d: problem for d, problem in found.bad.items() if d not in survey.live}
        self._faults = Faults(survey, bad)
        self._links = found.links - found.offers.keys()
        self._malformed = {d.root: d.problem for d in survey.damage if not d.chain}
        self._known: dict[NodeKey, _RootOutcome] = {}

    def of_root(self, root: Root) -> _RootOutcome:
        if root.descriptor is None:
            fate = _gone(self._malformed.get(root, "its entry cannot be read"))
        else:
            fate = self._of(root.descriptor)
        noted = self._found.noted.get(root.ref_name) if root.ref_name is not None else None
        if fate.to is not None or noted is None:
            return fate
        last = self._of(noted)
        return fate if last.to is None else last._replace(kind="move-tag", why=fate.why)

    def needs(self, fate: _RootOutcome) -> Collection[Digest]:
        """What has to be there for what an entry will name, but for what will be written."""
        if fate.content is not None:
            config = read_cacheconfig(fate.content.config)
            return {layer.digest for layer in config.layers}
        if fate.to is None:
            return ()
        return self._needed(fate.to)

    def odd_links(self) -> Iterator[tuple[Digest, str]]:
        """Links to something else than a tag names: an export would be told that it is there."""
        for digest in sorted(self._links):
            if digest in self._faults.flat:
                yield digest, f"is a link, and {self._faults.flat[digest]}"

    def _of(self, descriptor: Descriptor) -> _RootOutcome:
        key = key_of(descriptor)
        if key not in self._known:
            faults = self._faults_of(descriptor)
            cache = self._found.caches.get(descriptor.digest)
            doubts = {d for d, fault in faults.items() if self._is_doubtful(fault.link)}
            if doubts and (cache is not None or doubts == faults.keys()):
                fate = _RootOutcome("healthy", descriptor)
            elif cache is not None:
                fate = self._of_cache(descriptor, cache, faults)
            elif faults:
                fate = _gone(describe_faults(faults.values()))
            else:
                fate = _RootOutcome("healthy", descriptor)
            self._known[key] = fate
        return self._known[key]

    def _is_doubtful(self, link: Link) -> bool:
        """Whether it may be whole: BuildKit follows links, and nobody here has read it."""
        return kind_in_place(link) != "leaf" and link.descriptor.digest in self._links

    def _needed(self, descriptor: Descriptor) -> dict[Digest, Link]:
        return reach(self._found.survey, descriptor, with_subjects=False, with_hints=False)

    def _faults_of(self, descriptor: Descriptor) -> dict[Digest, Fault]:
        """What is missing, bad or damaged below it. A subject may be absent, but not be damaged."""
        found: dict[Digest, Fault] = {}
        for link in links_below(self._found.survey, descriptor):
            problem = self._faults.nodes.get(key_of(link.descriptor))
            is_absent = link.descriptor.digest not in self._found.survey.live
            if problem and not (link.role == "subject" and is_absent):
                found.setdefault(link.descriptor.digest, Fault(link, problem))
        for digest, link in self._needed(descriptor).items():
            if digest in self._faults.flat:
                found.setdefault(digest, Fault(link, self._faults.flat[digest]))
        return found

    def _of_cache(
        self, descriptor: Descriptor, cache: CacheRoot, faults: Mapping[Digest, Fault]
    ) -> _RootOutcome:
        try:
            root = read_cache_manifest(cache.manifest)
            if root is None or cache.config is None:
                return _gone(describe_faults(faults.values()) or "its cacheconfig cannot be read")
            check_form(root.document)
            config = read_cacheconfig(cache.config)
        except Damaged as error:
            return _gone(f"BuildKit would import none of it: it {error.problem}")
        every = [key for key, _ in config.results()]
        problems = {digest: fault.problem for digest, fault in faults.items()}
        marks = layer_faults(root, config, BlobHealth(self._found.survey.live, problems))
        usable = {
            key for key, result in config.results() if not any(marks[n] for n in result.chain)
        }
        before = NewContent(cache.manifest, cache.config)
        if not faults and len(usable) == len(every) and _is_small(before):
            return _RootOutcome("healthy", descriptor)
        content = _cut(before, usable)
        if not _is_small(content):
            warm = cut_until(
                CacheDocuments("", *content), self._found.used, _fits, now_ns=self._now_ns
            )
            content = _cut(content, warm or ())
            usable = set(warm or ())
        unusable = {
            layer.digest: Fault(_layer(layer.digest), mark)
            for layer, mark in zip(config.layers, marks, strict=True)
            if mark
        }
        why = describe_faults({**faults, **unusable}.values()) or _tell_size(before)
        if not usable:
            return _gone(f"none of its steps is left: {why}")
        size = len(content.manifest)
        to = descriptor._replace(digest=_digest_of(content.manifest), size=size)
        if to.digest == descriptor.digest:
            return _gone(why)
        return _RootOutcome(
            "rewrite-cache", to, f"{_tell_steps(len(usable), len(every))}: {why}", content
        )


def _gone(why: str) -> _RootOutcome:
    return _RootOutcome("remove-tag", None, why)


def _fits(manifest_bytes: int, config_bytes: int) -> bool:
    return max(manifest_bytes, config_bytes) <= IMPORT_LIMIT_BYTES


def _is_small(content: NewContent) -> bool:
    return _fits(len(content.manifest), len(content.config))


def _cut(before: NewContent, kept: Collection[ResultKey]) -> NewContent:
    cut = trim_cacheconfig(before.config, kept)
    digest = _digest_of(cut.data)
    return NewContent(trim_manifest(before.manifest, cut.layers, digest, len(cut.data)), cut.data)


def _digest_of(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def _became(
    found: RepairInput, fates: Mapping[Root, _RootOutcome]
) -> Iterator[tuple[str, tuple[Digest, Digest]]]:
    for root, fate in fates.items():
        old = (
            root.descriptor
            if fate.kind == "rewrite-cache"
            else found.noted.get(root.ref_name or "")
        )
        if fate.content is not None and fate.to is not None and root.ref_name and old is not None:
            yield root.ref_name, (old.digest, fate.to.digest)


def _edit(found: RepairInput, fates: Mapping[Root, _RootOutcome]) -> bytes | None:
    """The new bytes of index.json, None where what is there is right."""
    if found.index_data is None:
        return None
    drop, move, types = [], {}, {}
    for root in found.survey.roots:
        fate = fates.get(root)
        if root.position < 0 or (fate is not None and fate.kind == "healthy"):
            continue
        to = fate.to if fate is not None else None
        if to is None:
            drop.append(root.position)
        else:
            move[root.position] = (to.digest, to.size or 0)
            types[root.position] = to.media_type
    if not (drop or move or found.corrected or found.lost):
        return None
    return edit_entries(_retype(found.index_data, types), remove=drop, move=move)


def _retype(data: bytes, types: Mapping[int, str]) -> bytes:
    """index.json where entries say what their new root is: it may be a cache of the other form."""
    document = read_plain(data)
    for position, media_type in types.items():
        document["manifests"][position]["mediaType"] = media_type
    return json.dumps(document).encode()


def _take_steps(
    found: RepairInput, takes: Mapping[Digest, str], was: str
) -> Iterator[RepairAction]:
    for digest, path in takes.items():
        size = format_bytes(found.survey.live[digest])
        problem = found.bad.get(digest, "is a link" if digest in found.links else "is missing")
        what = f"blob {digest.short} ({size}) {was} taken from {path}: here it {problem}"
        yield RepairAction("copy-blob", None, digest, what)


def _index_steps(
    found: RepairInput, fates: Mapping[Root, _RootOutcome], was: str
) -> Iterator[RepairAction]:
    if found.lost:
        count = sum(fate.to is not None for fate in fates.values())
        entries = "entry" if count == 1 else "entries"
        what = f"index.json ({found.lost}) {was} rebuilt, with {count:,} {entries}"
        yield RepairAction("rebuild-index", None, None, what)
    known_by = [c.named_by for c in found.candidates]
    # Those without a known name come newest first.
    unnamed = [r for r, f in fates.items() if f.to and known_by[r.position :][:1] == ["nobody"]]
    for root, fate in fates.items():
        if found.lost and fate.to is not None:
            newest = "; it is the newest of them" if root in unnamed[:1] and unnamed[1:] else ""
            what = f"{root.label} {was} found again: {_KNEW[known_by[root.position]]}{newest}"
            yield RepairAction("rebuild-index", root.ref_name, fate.to.digest, what)
        elif root.position in found.corrected and fate.to is not None:
            what = f"{root.label} {was} given the right size of its manifest in index.json"
            yield RepairAction("move-tag", root.ref_name, fate.to.digest, what)


_KNEW = {
    "index": "the old index.json still names it",
    "notes": "it is the last export that kitcache noted",
    "copy": "the index.json of another copy names it",
    "nobody": "its blobs are whole, but its name is not known",
}


def _tag_steps(fates: Mapping[Root, _RootOutcome], was: str) -> Iterator[RepairAction]:
    for root, fate in fates.items():
        digest = root.descriptor.digest if root.descriptor else None
        match fate.kind, fate.to:
            case "rewrite-cache", Descriptor() as to:
                what = f"{root.label} {was} rewritten{fate.why}"
                yield RepairAction("rewrite-cache", root.ref_name, to.digest, what)
            case "move-tag", Descriptor() as to:
                last = f"{to.digest.short}, the last export that kitcache noted"
                what = f"{root.label} {was} moved to {last}: {fate.why}"
                yield RepairAction("move-tag", root.ref_name, to.digest, what)
            case "remove-tag", _:
                what = f"{root.label} {was} taken out of index.json: {fate.why}"
                yield RepairAction("remove-tag", root.ref_name, digest, what)


def _quarantine_steps(bad: Mapping[Digest, str], was: str) -> Iterator[RepairAction]:
    for digest, problem in bad.items():
        what = f"blob {digest.short} {was} put into the quarantine: it {problem}"
        yield RepairAction("quarantine-blob", None, digest, what)


def _layer(digest: Digest) -> Link:
    return Link(Descriptor(BARE_LAYER, digest, None), "layer")


def _tell_size(content: NewContent) -> str:
    size, limit = max(map(len, content)), IMPORT_LIMIT_BYTES
    return f"its manifest or cacheconfig has {size:,} bytes, and BuildKit imports {limit:,} at most"


def _tell_steps(kept: int, before: int) -> str:
    if kept == before:
        return ", with all its steps"
    return f" without {before - kept:,} of its {before:,} steps"
