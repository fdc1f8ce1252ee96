"""index.json and the structural blobs, read once → Survey.

Every digest and size is checked before bytes are believed. Leaves are never opened, but for those
whose media type nobody knows: they are looked into.
"""

import time
from collections import deque
from typing import NamedTuple

from kitcache.errors import Damaged, Unreadable, Unsafe
from kitcache.gc.control import Control
from kitcache.gc.refusals import IS_LINK
from kitcache.gc.values import (
    NO_ROOT,
    DamagedPath,
    MissingBlob,
    NodeKey,
    Progress,
    Root,
    Survey,
    SurveyedIngest,
    key_of,
)
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.index import IndexEntry
from kitcache.oci.links import BlobKind, Link, Role, is_layer, kind_in_place, kind_of, read_links
from kitcache.store.index import INDEX, IndexFile, read_stable_index
from kitcache.store.ioerrors import repair_command
from kitcache.store.layout import STRUCTURAL_LIMIT_BYTES, BlobStat, Layout
from kitcache.store.scan import scan_blobs, scan_ingests, uploads_changed_ns

DEPTH_LIMIT = 32
"""How many levels of manifests may hang below each other; images have three."""


def take_survey(
    layout: Layout,
    control: Control,
    *,
    young_since_ns: int | None = None,
    began_ns: int | None = None,
) -> Survey:
    """Everything that decides what a reset may remove, of the directories as they are now.

    young_since_ns: also mark what unreferenced blobs written since then shelter. began_ns: now, by
    the clock of the file system; None for those who remove nothing. Raises Damaged where index.json
    is missing beside blobs or is no index; damage below it is in the Survey.
    """
    layout.open_directories()
    began_ns = time.time_ns() if began_ns is None else began_ns
    index, entries = _read_roots(layout, control)
    return survey_entries(
        layout, control, index, entries, began_ns=began_ns, young_since_ns=young_since_ns
    )


def survey_entries(
    layout: Layout,
    control: Control,
    index: IndexFile,
    entries: tuple[IndexEntry, ...],
    *,
    began_ns: int,
    young_since_ns: int | None = None,
    needs_all: bool = False,
) -> Survey:
    """take_survey with these entries for those of index.json. The directories have been opened.

    needs_all: raise Unreadable for a blob that cannot be read, where a survey has damage else.
    """
    marker = _Marker(layout, control, needs_all=needs_all)
    roots = tuple(
        Root(-1 if e.is_subject else n, e.ref_name, e.descriptor) for n, e in enumerate(entries)
    )
    for root, entry in zip(roots, entries, strict=True):
        if root.descriptor is None:
            marker.damage.append(DamagedPath(root, (), "malformed", entry.problem))
        else:
            marker.push_root(root, root.descriptor)
    marker.run()
    live = dict(marker.present)
    if young_since_ns is not None:
        marker.mark_young(young_since_ns)
    ingests = scan_ingests(layout)
    return Survey(
        index_digest=index.digest,
        roots=roots,
        live=live,
        young={d: size for d, size in marker.present.items() if d not in live},
        links=marker.links,
        missing_blobs=tuple(marker.missing.values()),
        damage=tuple(marker.damage),
        ingests=tuple(
            SurveyedIngest(i.name, i.writes_ns, i.bytes, i.is_marked)
            for i in ingests
            if not i.foreign
        ),
        other_writes_ns=tuple(ns for i in ingests if i.foreign for ns in i.writes_ns),
        began_ns=began_ns,
        index_changed_ns=index.changed_ns,
        # After the scan: what was gone by then has moved this time.
        ingest_changed_ns=uploads_changed_ns(layout),
    )


def check_reachable(
    layout: Layout, control: Control, root: Root
) -> tuple[tuple[DamagedPath, ...], tuple[MissingBlob, ...]]:
    """What is wrong with all that one descriptor reaches; both empty where every blob is there.

    It need not be in index.json. The layout's directories have been opened. Structural blobs are
    proven, of leaves the length is looked at, as a survey does. Raises Unreadable, and
    KitcacheError for other I/O errors.
    """
    marker = _Marker(layout, control, needs_all=True)
    if root.descriptor is not None:
        marker.push_root(root, root.descriptor)
    marker.run()
    return tuple(marker.damage), tuple(marker.missing.values())


def _read_roots(layout: Layout, control: Control) -> tuple[IndexFile, tuple[IndexEntry, ...]]:
    index, entries = read_stable_index(layout, control.pause)
    if index.data is None and _has_blobs(layout):
        raise Damaged(
            layout.path,
            f"{INDEX} is missing beside blobs, so kitcache cannot know which of them are in use",
            kind="missing",
            hints=(
                repair_command(layout.path),
                "restore index.json from a copy",
                "export again: then only what that export names is kept",
            ),
        )
    return index, entries


def _has_blobs(layout: Layout) -> bool:
    return any(batch.names for a in layout.blobs for batch in scan_blobs(layout, a))


class _Visit(NamedTuple):
    link: Link
    root: Root
    chain: tuple[Descriptor, ...]
    # A cacheconfig whose layers stand beside it in the manifest: nothing hides in it.
    is_redundant: bool


class _Marker:
    """Walks from roots to leaves, breadth first, each node once for each part that it plays.

    What only a blob of unknown kind names is a hint: it is kept where it is there, and no damage
    where it is not. So all that roots reach for certain is walked before the first hint.
    """

    def __init__(self, layout: Layout, control: Control, *, needs_all: bool = False) -> None:
        self._layout = layout
        self._control = control
        self._needs_all = needs_all
        self._certain: deque[_Visit] = deque()
        self._hints: deque[_Visit] = deque()
        self._seen: set[tuple[NodeKey, Role, bool, bool]] = set()
        self.present: dict[Digest, int] = {}
        self.missing: dict[Digest, MissingBlob] = {}
        self.links: dict[NodeKey, tuple[Link, ...]] = {}
        self._linked: set[Digest] = set()
        self._behind: dict[Digest, Link] = {}
        # A blob may be listed under many media types, and a layer by every manifest: what is
        # proven is read once for each kind, and equal links are one object.
        self._proven: dict[tuple[Digest, int | None, BlobKind | None], tuple[Link, ...]] = {}
        self._pushed: set[tuple[Digest, BlobKind | None, bool]] = set()
        self._equal: dict[Link, Link] = {}
        self.damage: list[DamagedPath] = []
        self._damaged: set[Digest] = set()

    def push_root(self, root: Root, descriptor: Descriptor) -> None:
        role: Role = "subject" if root.position < 0 else "manifest"
        self._certain.append(_Visit(Link(descriptor, role), root, (), is_redundant=False))

    def run(self) -> None:
        while self._certain:
            self._visit(self._certain.popleft(), is_hint=False)
        while self._hints:
            self._visit(self._hints.popleft(), is_hint=True)

    def mark_young(self, young_since_ns: int) -> None:
        """Mark unreferenced blobs written since then, and all that they reach."""
        nobody = Root(NO_ROOT, None, None)
        for algorithm in self._layout.blobs:
            for batch in scan_blobs(self._layout, algorithm):
                self._control.check()
                for name in batch.names:
                    digest = Digest(algorithm, name)
                    found = None if digest in self.present else self._layout.stat_blob(digest)
                    if found is not None and found.mtime_ns >= young_since_ns:
                        link = Link(Descriptor("", digest, None), "blob")
                        self._hints.append(_Visit(link, nobody, (), is_redundant=False))
                self.run()

    def _visit(self, visit: _Visit, *, is_hint: bool) -> None:
        descriptor = visit.link.descriptor
        key = key_of(descriptor)
        # The part it plays belongs to the identity: a subject may be absent, a manifest may not.
        seen = (key, visit.link.role, visit.is_redundant, descriptor.elsewhere)
        if seen in self._seen:
            return
        self._seen.add(seen)
        self._control.check()
        kind = kind_in_place(visit.link)
        self._note_presence(visit, is_hint=is_hint)
        if descriptor.digest in self._behind:
            self.links[key] = (self._behind[descriptor.digest],)
        if kind == "leaf":
            return
        try:
            links = self._read(visit, kind)
        except Unreadable as error:
            self._note_unreadable(visit, error)
            return
        except (Damaged, Unsafe) as error:
            if not is_hint:
                self._note_failure(visit, kind, error)
            return
        self.links[key] = links
        self._push_children(visit, kind, links, is_hint=is_hint or _is_doubtful(visit, kind))

    def _note_presence(self, visit: _Visit, *, is_hint: bool) -> None:
        descriptor = visit.link.descriptor
        digest = descriptor.digest
        if digest in self.present:
            return
        found = real = self._layout.stat_blob(digest)
        if found is not None and found.kind == "link":
            real = self._follow(visit)
        problem = _fault_of(real, descriptor.size) if real and not is_hint else ""
        if problem:
            self.missing[digest] = MissingBlob(digest, visit.root.ref_name, problem)
        if found is not None and real is not None:
            self.present[digest] = found.size
            if len(self.present) % 512 == 0:
                self._control.report(Progress("survey", len(self.present), 0))
        elif self._is_worth_telling(descriptor) and not is_hint:
            self.missing.setdefault(digest, MissingBlob(digest, visit.root.ref_name))

    def _follow(self, visit: _Visit) -> BlobStat | None:
        """What a link leads to. The blob that it seems to name is kept, as a hint is."""
        from kitcache.store.links import follow_link, named_by_link  # noqa: PLC0415 - mostly none

        digest = visit.link.descriptor.digest
        real, named = follow_link(self._layout, digest), named_by_link(self._layout, digest)
        if real is not None and real.kind != "other":
            self._linked.add(digest)
        # In another store it would have the very same name.
        if named is not None and named != digest:
            self._behind[digest] = Link(Descriptor("", named, None), "blob")
            self._hints.append(_Visit(self._behind[digest], visit.root, (), is_redundant=False))
        return real

    def _is_worth_telling(self, descriptor: Descriptor) -> bool:
        return (
            descriptor.digest.is_known
            and not descriptor.elsewhere
            and descriptor.digest not in self._damaged
        )

    def _read(self, visit: _Visit, kind: BlobKind | None) -> tuple[Link, ...]:
        descriptor = visit.link.descriptor
        proven = (descriptor.digest, descriptor.size, kind)
        if proven not in self._proven:
            data = self._layout.read_blob(
                descriptor.digest, descriptor.size, unless_binary=not self._must_prove(visit, kind)
            )
            if data is None:
                return ()
            links = read_links(kind, data)
            self._proven[proven] = tuple(map(self._equal.setdefault, links, links))
        return self._proven[proven]

    def _must_prove(self, visit: _Visit, kind: BlobKind | None) -> bool:
        # A torn manifest may begin with zeros: where manifests stand, "no JSON" has to be proven.
        size = self.present.get(visit.link.descriptor.digest, 0)
        return kind is not None or (
            visit.link.role == "manifest" and size <= STRUCTURAL_LIMIT_BYTES
        )

    def _push_children(
        self, visit: _Visit, kind: BlobKind | None, links: tuple[Link, ...], *, is_hint: bool
    ) -> None:
        chain = (*visit.chain, visit.link.descriptor)
        if len(chain) > DEPTH_LIMIT and links and not is_hint:
            detail = f"is nested more than {DEPTH_LIMIT} levels deep"
            self.damage.append(DamagedPath(visit.root, chain, "too-deep", detail))
            return
        pushed = (visit.link.descriptor.digest, kind, is_hint)
        if pushed in self._pushed:
            return
        self._pushed.add(pushed)
        lists_layers = any(is_layer(link.descriptor.media_type) for link in links)
        queue = self._hints if is_hint else self._certain
        for link in links:
            spare = lists_layers and kind_in_place(link) == "cacheconfig"
            queue.append(_Visit(link, visit.root, chain, spare))

    def _note_unreadable(self, visit: _Visit, error: Unreadable) -> None:
        """Nobody knows what it names. So it counts as damage where only a hint leads to it, too."""
        if self._needs_all:
            raise error
        digest = visit.link.descriptor.digest
        if visit.is_redundant:
            self.missing[digest] = MissingBlob(digest, visit.root.ref_name, error.clause)
        else:
            self._add_damage(visit, "unreadable", error.clause)

    def _add_damage(self, visit: _Visit, kind: str, detail: str) -> None:
        digest = visit.link.descriptor.digest
        self._damaged.add(digest)
        self.missing.pop(digest, None)
        chain = (*visit.chain, visit.link.descriptor)
        self.damage.append(DamagedPath(visit.root, chain, kind, detail))

    def _note_failure(self, visit: _Visit, kind: BlobKind | None, error: Damaged | Unsafe) -> None:
        digest = visit.link.descriptor.digest
        detail = IS_LINK if digest in self._linked else error.problem
        if not _is_harmless(visit, kind, error):
            word = "over-cap" if isinstance(error, Unsafe) else error.kind
            self._add_damage(visit, word, detail)
        elif visit.is_redundant:
            self.missing[digest] = MissingBlob(digest, visit.root.ref_name, detail)


def _fault_of(found: BlobStat, size: int | None) -> str:
    """What a look at a leaf's file tells against it, "" if nothing does."""
    if found.kind == "other":
        return "is no regular file"
    if found.kind == "link" or size is None or found.size == size:
        return ""
    verb = "is cut short" if found.size < size else "is too long"
    return f"{verb} ({found.size:,} of {size:,} bytes)"


def _is_harmless(visit: _Visit, kind: BlobKind | None, error: Damaged | Unsafe) -> bool:
    """Whether what cannot be read there can hide no reference.

    A layer or config of unknown kind is a leaf by the specification; a subject may be absent; a
    cacheconfig names no layer that is not listed beside it.
    """
    if _is_doubtful(visit, kind):
        return True
    if isinstance(error, Unsafe):
        # No manifest is above a cap: something that large is the leaf that it says it is.
        return kind_of(visit.link.descriptor.media_type) == "leaf"
    if visit.link.role == "subject":
        return isinstance(error, Damaged) and error.kind == "missing"
    return visit.is_redundant


def _is_doubtful(visit: _Visit, kind: BlobKind | None) -> bool:
    return kind is None and visit.link.role in ("layer", "config", "blob")
