"""The survey: reads the roots and the structural blobs once and returns the reached blobs.

The digest and the size of a structural blob are checked before its bytes are used. A leaf is never
opened, unless its media type is unknown: then it is inspected.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from kitcache.errors import Damaged, Unreadable, Unsafe
from kitcache.gc.control import Control
from kitcache.gc.leaves import Leaves
from kitcache.gc.refusals import IS_SYMLINK, no_roots_error
from kitcache.gc.values import (
    NO_ROOT,
    DamagedPath,
    MissingBlob,
    NodeKey,
    Progress,
    Root,
    Survey,
    key_of,
)
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import BlobKind, Link, Role, is_layer, kind_in_place, kind_of, read_links
from kitcache.store.ioerrors import size_problem
from kitcache.store.protocol import CacheStore
from kitcache.store.values import STRUCTURAL_LIMIT_BYTES, BlobStat, Roots

DEPTH_LIMIT = 32
"""How many levels of manifests can be nested; images have three."""


def take_survey(
    store: CacheStore,
    control: Control,
    *,
    young_since_ns: int | None = None,
    began_ns: int | None = None,
) -> Survey:
    """Read the roots and the structural blobs of a store.

    Damage below the roots does not raise; it is part of the survey.

    Args:
        young_since_ns: Also mark unreferenced blobs that were written since then, and the blobs
            that they reach.
        began_ns: Now, by the clock that dates blobs. None if the caller deletes nothing.

    Raises:
        Damaged: The roots are invalid, or they are missing but there are blobs.

    """
    store.refresh()
    began_ns = store.now_ns() if began_ns is None else began_ns
    roots = store.read_roots(control.pause)
    if roots.data is None and any(batch.names for batch in store.scan_blobs()):
        raise no_roots_error(store)
    return survey_roots(store, control, roots, began_ns=began_ns, young_since_ns=young_since_ns)


def survey_roots(
    store: CacheStore,
    control: Control,
    roots: Roots,
    *,
    began_ns: int,
    young_since_ns: int | None = None,
    needs_all: bool = False,
) -> Survey:
    """Return a survey below these roots. The caller has called refresh().

    Args:
        needs_all: Raise Unreadable for a blob that cannot be read, instead of reporting damage.

    """
    marker = _Marker(store, control, needs_all=needs_all)
    named = store.roots_name
    surveyed = tuple(
        Root(-1 if entry.is_subject else position, entry.ref_name, entry.descriptor, named)
        for position, entry in enumerate(roots.entries)
    )
    for root, entry in zip(surveyed, roots.entries, strict=True):
        if root.descriptor is None:
            marker.damage.append(DamagedPath(root, (), "malformed", entry.problem))
        else:
            marker.push_root(root, root.descriptor)
    marker.run()
    live = marker.present
    if young_since_ns is not None:
        live = dict(live)
        marker.mark_young(young_since_ns)
    activity = store.writer_activity()
    return Survey(
        index_digest=roots.version,
        roots=surveyed,
        live=live,
        young={d: size for d, size in marker.present.items() if d not in live},
        links=marker.links,
        missing_blobs=tuple(marker.missing.values()),
        damage=tuple(marker.damage),
        ingests=activity.ingests,
        other_writes_ns=activity.other_writes_ns,
        began_ns=began_ns,
        index_changed_ns=roots.changed_ns,
        ingest_changed_ns=activity.changed_ns,
    )


def check_reachable(
    store: CacheStore, control: Control, roots: Iterable[Root]
) -> tuple[tuple[DamagedPath, ...], tuple[MissingBlob, ...]]:
    """Return the faults below some roots; both are empty if every blob exists.

    The roots need not be entries of index.json. Structural blobs are verified; of a leaf the
    length is compared. The caller has called refresh().

    Raises:
        Unreadable: A blob exists and cannot be read.

    """
    marker = _Marker(store, control, needs_all=True)
    for root in roots:
        if root.descriptor is not None:
            marker.push_root(root, root.descriptor)
    marker.run()
    return tuple(marker.damage), tuple(marker.missing.values())


class _Visit(NamedTuple):
    link: Link
    root: Root
    chain: tuple[Descriptor, ...]
    # True for a cacheconfig whose manifest lists the layers: it references no other blob.
    is_redundant: bool


class _Marker:
    """Walks from roots to leaves, breadth first; visits a node once for each of its roles.

    A reference that only a blob of unknown kind contains is a hint. Its blob is kept if it exists;
    if it is missing, that is not damage. All certain references are followed before the hints.
    """

    def __init__(self, store: CacheStore, control: Control, *, needs_all: bool = False) -> None:
        self._store = store
        self._control = control
        self._needs_all = needs_all
        self._certain: deque[_Visit] = deque()
        self._hints: deque[_Visit] = deque()
        self._seen: set[tuple[NodeKey, Role, bool, bool]] = set()
        self.present: dict[Digest, int] = {}
        self.missing: dict[Digest, MissingBlob] = {}
        self.links: dict[NodeKey, tuple[Link, ...]] = {}
        self._symlinks: set[Digest] = set()
        self._symlink_links: dict[Digest, Link] = {}
        # A blob can be listed under many media types, and is read once for each kind. A layer can
        # be listed by every manifest, so equal links are one object.
        self._verified: dict[tuple[Digest, int | None, BlobKind | None], tuple[Link, ...]] = {}
        self._pushed: set[tuple[Digest, BlobKind | None, bool]] = set()
        self._equal: dict[Link, Link] = {}
        self._leaves = Leaves(self.present)
        self.damage: list[DamagedPath] = []
        self._damaged: set[Digest] = set()

    def push_root(self, root: Root, descriptor: Descriptor) -> None:
        role: Role = "subject" if root.position < 0 else "manifest"
        self._certain.append(_Visit(Link(descriptor, role), root, (), is_redundant=False))

    def run(self) -> None:
        self._drain(self._certain, is_hint=False)
        self._drain(self._hints, is_hint=True)

    def mark_young(self, young_since_ns: int) -> None:
        """Mark unreferenced blobs that were written since then, and the blobs they reach."""
        no_root = Root(NO_ROOT, None, None)
        for batch in self._store.scan_blobs():
            self._control.check()
            digests = [Digest(batch.algorithm, name) for name in batch.names]
            unmarked = [digest for digest in digests if digest not in self.present]
            for digest, stat in self._store.stat_blobs(unmarked):
                if stat.mtime_ns >= young_since_ns:
                    link = Link(Descriptor("", digest, None), "blob")
                    self._hints.append(_Visit(link, no_root, (), is_redundant=False))
            self.run()

    def _drain(self, queue: deque[_Visit], *, is_hint: bool) -> None:
        while queue:
            while queue:
                visit = queue.popleft()
                self._control.check()
                kind = kind_in_place(visit.link)
                if kind == "leaf":
                    self._leaves.add(visit.link, visit.root)
                elif self._is_new(visit):
                    self._visit(visit, kind, is_hint=is_hint)
            self._mark_leaves(is_hint=is_hint)

    def _is_new(self, visit: _Visit) -> bool:
        """Return True at the first visit of a structural blob in this role."""
        # A role is part of the identity: a subject can be absent, a manifest cannot.
        descriptor = visit.link.descriptor
        seen = key_of(descriptor), visit.link.role, visit.is_redundant, descriptor.elsewhere
        count = len(self._seen)
        self._seen.add(seen)
        return len(self._seen) > count

    def _mark_leaves(self, *, is_hint: bool) -> None:
        """Mark the leaves that were added since the last call.

        One call of the store for all leaves, because an object store lists its blobs for it.
        """
        batch = self._leaves.take_batch()
        wanted = batch.unmarked(self._leaves.links, self.present)
        odd: dict[Digest, BlobStat] = {}
        for digest, stat in self._store.stat_blobs(wanted):
            self._control.check()
            descriptor = self._leaves.links[digest].descriptor
            is_same = is_hint or descriptor.size in (None, stat.size)
            if stat.kind == "file" and is_same:
                self._add_present(descriptor, stat)
            else:
                odd[digest] = stat
        for digest, root in batch.owned():
            if digest not in self.present:
                leaf = _Visit(self._leaves.links[digest], root, (), is_redundant=False)
                self._mark(leaf, odd.get(digest), is_hint=is_hint)
        for link, root in batch.others:
            self._mark(_Visit(link, root, (), is_redundant=False), None, is_hint=is_hint)

    def _visit(self, visit: _Visit, kind: BlobKind | None, *, is_hint: bool) -> None:
        digest = visit.link.descriptor.digest
        self._mark(visit, self._store.stat_blob(digest), is_hint=is_hint)
        try:
            links = self._read(visit, kind)
        except Unreadable as error:
            self._add_unreadable(visit, error)
            return
        except (Damaged, Unsafe) as error:
            if not is_hint:
                self._add_fault(visit, kind, error)
            return
        self.links[key_of(visit.link.descriptor)] = links
        self._push_children(visit, kind, links, is_hint=is_hint or _is_doubtful(visit, kind))

    def _mark(self, visit: _Visit, stat: BlobStat | None, *, is_hint: bool) -> None:
        """Mark a blob as present, or else as missing."""
        descriptor = visit.link.descriptor
        digest = descriptor.digest
        if digest not in self.present:
            target = stat
            if stat is not None and stat.kind == "symlink":
                target = self._follow(visit)
            problem = _problem_of(target, descriptor.size) if target and not is_hint else ""
            if problem:
                self.missing[digest] = MissingBlob(digest, visit.root.ref_name, problem)
            if stat is not None and target is not None:
                self._add_present(descriptor, stat)
            elif not is_hint and self._is_reported(descriptor):
                self.missing.setdefault(digest, MissingBlob(digest, visit.root.ref_name))
        if digest in self._symlink_links:
            self.links[key_of(descriptor)] = (self._symlink_links[digest],)

    def _add_present(self, descriptor: Descriptor, stat: BlobStat) -> None:
        size = descriptor.size
        # Of two equal numbers one is kept: a hundred thousand take 3 MiB.
        self.present[descriptor.digest] = size if size == stat.size else stat.size
        if len(self.present) % 512 == 0:
            self._control.report(Progress("survey", len(self.present), 0))

    def _follow(self, visit: _Visit) -> BlobStat | None:
        """Return the stat of a symlink's target. Add the blob that the target names as a hint."""
        digest = visit.link.descriptor.digest
        target, named = self._store.follow_symlink(digest)
        if target is not None and target.kind != "other":
            self._symlinks.add(digest)
        # A target with the same digest is the same blob in another cache.
        if named is not None and named != digest:
            self._symlink_links[digest] = Link(Descriptor("", named, None), "blob")
            self._hints.append(
                _Visit(self._symlink_links[digest], visit.root, (), is_redundant=False)
            )
        return target

    def _is_reported(self, descriptor: Descriptor) -> bool:
        return (
            descriptor.digest.is_known
            and not descriptor.elsewhere
            and descriptor.digest not in self._damaged
        )

    def _read(self, visit: _Visit, kind: BlobKind | None) -> tuple[Link, ...]:
        descriptor = visit.link.descriptor
        verified = (descriptor.digest, descriptor.size, kind)
        if verified not in self._verified:
            # A truncated manifest can begin with zero bytes. So a blob that is referenced as a
            # manifest has to match its digest even if its bytes cannot be JSON.
            size = self.present.get(descriptor.digest, 0)
            is_manifest = visit.link.role == "manifest" and size <= STRUCTURAL_LIMIT_BYTES
            data = self._store.read_blob(
                descriptor.digest, descriptor.size, unless_binary=kind is None and not is_manifest
            )
            if data is None:
                return ()
            links = read_links(kind, data)
            self._verified[verified] = tuple(map(self._intern, links))
        return self._verified[verified]

    def _intern(self, link: Link) -> Link:
        known = self._leaves.links.get(link.descriptor.digest)
        return known if known == link else self._equal.setdefault(link, link)

    def _push_children(
        self, visit: _Visit, kind: BlobKind | None, links: tuple[Link, ...], *, is_hint: bool
    ) -> None:
        chain = (*visit.chain, visit.link.descriptor)
        if len(chain) > DEPTH_LIMIT and links and not is_hint:
            problem = f"is nested more than {DEPTH_LIMIT} levels deep"
            self.damage.append(DamagedPath(visit.root, chain, "too-deep", problem))
            return
        pushed = (visit.link.descriptor.digest, kind, is_hint)
        if pushed in self._pushed:
            return
        self._pushed.add(pushed)
        lists_layers = any(is_layer(link.descriptor.media_type) for link in links)
        queue = self._hints if is_hint else self._certain
        for link in links:
            kind = kind_in_place(link)
            if kind == "leaf" and not is_hint:
                if self._leaves.add(link, visit.root):
                    self._equal.pop(link, None)
            else:
                is_redundant = lists_layers and kind == "cacheconfig"
                queue.append(_Visit(link, visit.root, chain, is_redundant))

    def _add_unreadable(self, visit: _Visit, error: Unreadable) -> None:
        """Report an unreadable blob as damage, even if only a hint leads to it."""
        if self._needs_all:
            raise error
        if visit.is_redundant:
            self._add_missing(visit, error.clause)
        else:
            self._add_damage(visit, "unreadable", error.clause)

    def _add_fault(self, visit: _Visit, kind: BlobKind | None, error: Damaged | Unsafe) -> None:
        is_symlink = visit.link.descriptor.digest in self._symlinks
        problem = IS_SYMLINK if is_symlink else error.problem
        if not _is_harmless(visit, kind, error):
            fault = "over-cap" if isinstance(error, Unsafe) else error.kind
            self._add_damage(visit, fault, problem)
        elif visit.is_redundant:
            self._add_missing(visit, problem)

    def _add_missing(self, visit: _Visit, problem: str) -> None:
        digest = visit.link.descriptor.digest
        self.missing[digest] = MissingBlob(digest, visit.root.ref_name, problem)

    def _add_damage(self, visit: _Visit, kind: str, problem: str) -> None:
        digest = visit.link.descriptor.digest
        self._damaged.add(digest)
        self.missing.pop(digest, None)
        chain = (*visit.chain, visit.link.descriptor)
        self.damage.append(DamagedPath(visit.root, chain, kind, problem))


def _problem_of(stat: BlobStat, size: int | None) -> str:
    """Return the problem that the stat of a leaf shows, "" if there is none."""
    if stat.kind == "other":
        return "is not a regular file"
    if stat.kind == "symlink" or size is None or stat.size == size:
        return ""
    return size_problem(stat.size, size)


def _is_harmless(visit: _Visit, kind: BlobKind | None, error: Damaged | Unsafe) -> bool:
    """Return True if an unusable blob in that place cannot hide a reference.

    By the specification, a layer or config of unknown kind is a leaf, and a subject can be absent.
    The manifest of a redundant cacheconfig lists the same layers.
    """
    if _is_doubtful(visit, kind):
        return True
    if isinstance(error, Unsafe):
        # A manifest cannot exceed a cap: a blob this large is a leaf if its media type is a leaf's.
        return kind_of(visit.link.descriptor.media_type) == "leaf"
    if visit.link.role == "subject":
        return isinstance(error, Damaged) and error.kind == "missing"
    return visit.is_redundant


def _is_doubtful(visit: _Visit, kind: BlobKind | None) -> bool:
    return kind is None and visit.link.role in ("layer", "config", "blob")
