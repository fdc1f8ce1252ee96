"""Which roots of a cache get smaller, and to what: blobs are read, a choice is made, nothing moves.

What trim does to one tag, and prune to all that it keeps.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from kitcache.errors import Damaged, KitcacheError, Unsafe
from kitcache.gc.reach import reach
from kitcache.gc.values import Root, Survey, Tally
from kitcache.oci.cacheconfig import ResultKey, read_cacheconfig
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.directory import DirectoryStore
from kitcache.store.protocol import CacheStore
from kitcache.store.state import read_tag_uses, write_tag_uses
from kitcache.upkeep.project import NewContent, project
from kitcache.upkeep.results import TrimResult
from kitcache.upkeep.rewrite import RewrittenRoot, make_root
from kitcache.upkeep.trimming.steporder import CacheDocuments, cut_trees, weigh_steps


class TagTrim(NamedTuple):
    """A root that gets smaller. positions: of the entries in index.json that have it and its tag.

    kept: the results that stay; all others go.
    """

    ref_name: str | None
    positions: tuple[int, ...]
    before: Descriptor
    tree: CacheDocuments
    kept: frozenset[ResultKey]
    new: RewrittenRoot

    @property
    def after(self) -> Descriptor:
        """What the entries name then."""
        digest = Digest("sha256", hashlib.sha256(self.new.manifest).hexdigest())
        return self.before._replace(digest=digest, size=len(self.new.manifest))


class TrimPlan(NamedTuple):
    """The roots that get smaller. after: what a survey of all that stay finds then.

    trees: by their positions, the roots that are caches.
    """

    cuts: tuple[TagTrim, ...]
    after: Survey
    trees: Mapping[int, CacheDocuments]

    @property
    def moves(self) -> dict[int, RewrittenRoot]:
        """The new root of each entry that moves, by its position in index.json."""
        return {position: cut.new for cut in self.cuts for position in cut.positions}


def cut_roots(
    layout: DirectoryStore,
    survey: Survey,
    roots: Sequence[Root],
    positions: Collection[int],
    limit_bytes: int,
    *,
    used: Mapping[Digest, int],
    now_ns: int,
    held: Collection[Digest] = (),
) -> TrimPlan:
    """What to cut from the roots at these positions, so that all of the roots fit the limit.

    roots: all that stay. used: when imports last read which layers. held: what counts though no
    root reaches it any more. A root is left as it is where it is no cache, is damaged as one, or
    has no layer whose room a cut could free. The survey is of this layout, and has no damage. Where
    the limit cannot be reached, one step is left of every other root. Raises Unreadable, and
    KitcacheError for other I/O errors.
    """
    trees = _read_trees(layout, [root for root in roots if root.position in positions])
    own = {
        root.position: _own_blobs(survey, root.descriptor, trees[root.position])
        for root in roots
        if root.position in trees and root.descriptor is not None
    }
    others = _reached_beside(survey, roots, own) | (survey.live.keys() & set(held))
    idle = [position for position, (_, layers) in own.items() if layers <= others]
    others.update(*(own[position].documents for position in idle))
    chosen = [root for root in roots if root.position in own and root.position not in idle]
    stay = cut_trees(
        [trees[root.position] for root in chosen],
        used,
        {digest: size for digest, size in survey.live.items() if digest not in others},
        sum(survey.live.get(digest, 0) for digest in others),
        limit_bytes,
        now_ns=now_ns,
    )
    cuts = _make_cuts(survey, trees, chosen, stay.kept)
    return TrimPlan(cuts, _look_ahead(survey, roots, cuts), trees)


def _make_cuts(
    survey: Survey,
    trees: Mapping[int, CacheDocuments],
    roots: Sequence[Root],
    stay: Sequence[frozenset[ResultKey] | None],
) -> tuple[TagTrim, ...]:
    """Of these roots those of which not all stays."""
    moving: dict[tuple[str | None, Descriptor], list[int]] = {}
    kept: dict[Descriptor, frozenset[ResultKey]] = {}
    for root, keys in zip(roots, stay, strict=True):
        if keys is not None and root.descriptor is not None:
            kept[root.descriptor] = keys
            moving.setdefault((root.ref_name, root.descriptor), []).append(root.position)
    return tuple(
        TagTrim(
            ref_name,
            tuple(at),
            before,
            trees[at[0]],
            kept[before],
            make_root(*trees[at[0]][1:], kept[before], survey.live),
        )
        for (ref_name, before), at in moving.items()
    )


def _look_ahead(survey: Survey, roots: Sequence[Root], cuts: Sequence[TagTrim]) -> Survey:
    """What a survey of these roots alone finds after the cuts."""
    move = {
        position: NewContent(cut.new.manifest, cut.new.config)
        for cut in cuts
        for position in cut.positions
    }
    alone = survey._replace(roots=tuple(roots))
    return project(alone, move=move, index_digest=survey.index_digest)


def _read_trees(layout: DirectoryStore, roots: Sequence[Root]) -> dict[int, CacheDocuments]:
    """By position the roots that are caches, each blob read once."""
    known: dict[Digest, CacheDocuments | None] = {}
    found = {}
    for root in roots:
        if root.descriptor is not None:
            digest = root.descriptor.digest
            if digest not in known:
                known[digest] = None
                with suppress(Damaged, Unsafe):
                    known[digest] = read_tree(layout, root.descriptor)
            if (tree := known[digest]) is not None:
                found[root.position] = tree
    return found


def read_tree(layout: CacheStore, descriptor: Descriptor) -> CacheDocuments | None:
    """The root of a cache that a descriptor names, None where that is something else.

    Raises Damaged, also where BuildKit would not import it, and Unsafe.
    """
    manifest = layout.read_blob(descriptor.digest, descriptor.size) or b""
    root = read_cache_manifest(manifest)
    if root is None:
        return None
    config = layout.read_blob(root.config.digest, root.config.size) or b""
    read_cacheconfig(config)
    return CacheDocuments("", manifest, config)


class _Own(NamedTuple):
    """What the root of a cache consists of: manifest and cacheconfig, and all layers it lists."""

    documents: frozenset[Digest]
    layers: frozenset[Digest]


_NOTHING = _Own(frozenset(), frozenset())


def _own_blobs(survey: Survey, descriptor: Descriptor, tree: CacheDocuments) -> _Own:
    below = reach(survey, descriptor, with_subjects=False)
    layers = {digest for digest, link in below.items() if link.role == "layer"}
    documents = {descriptor.digest}
    if root := read_cache_manifest(tree.manifest):
        # In an index a layer of a type that nobody knows may be a manifest, too.
        layers |= {layer.descriptor.digest for layer in root.layers}
        documents.add(root.config.digest)
    return _Own(frozenset(documents), frozenset(layers))


def _reached_beside(survey: Survey, roots: Sequence[Root], own: Mapping[int, _Own]) -> set[Digest]:
    """What these roots reach beside what is their own."""
    beside: set[Digest] = set()
    for root in roots:
        if root.descriptor is not None:
            mine = own.get(root.position, _NOTHING)
            reached = reach(survey, root.descriptor).keys()
            beside |= reached - mine.documents - mine.layers
    return beside


def layer_uses(layout: CacheStore) -> dict[Digest, int]:
    """When an import last read each layer, where that is noted: ns since 1970.

    Raises as read_layer_uses.
    """
    uses = {}
    for text, used_ns in layout.read_layer_uses().items():
        with suppress(ValueError):
            uses[parse_digest(text)] = used_ns
    return uses


def describe_cut(
    cut: TagTrim,
    before: Survey,
    after: Survey,
    used: Mapping[Digest, int],
    *,
    path: str,
    outcome: Literal["done", "dry-run"],
    limit_bytes: int,
    now_ns: int,
) -> TrimResult:
    """What becomes of a tag. before: the survey by which it was decided; after: as in Cutting."""
    kept, dropped = weigh_steps(cut.tree, cut.kept, used, before.live, now_ns)
    return TrimResult(
        path=path,
        outcome=outcome,
        ref_name=cut.ref_name,
        limit_bytes=limit_bytes,
        before=cut.before.digest,
        before_size=tally_below(before, cut.before),
        after=cut.after.digest,
        after_size=tally_below(after, cut.after),
        kept_steps=kept,
        removed_steps=dropped,
    )


def move_note(layout: DirectoryStore, cut: TagTrim) -> None:
    """Have the note of the tag's last export name what the tag is now, if it can be read."""
    with suppress(KitcacheError):
        note = None if cut.ref_name is None else read_tag_uses(layout).get(cut.ref_name)
        if cut.ref_name is not None and note is not None and note.digest == str(cut.before.digest):
            write_tag_uses(layout, {cut.ref_name: note._replace(digest=str(cut.after.digest))})


def tally_below(survey: Survey, descriptor: Descriptor) -> Tally:
    """All that a descriptor reaches and that is there."""
    there = [digest for digest in reach(survey, descriptor) if digest in survey.live]
    return Tally(len(there), sum(survey.live[digest] for digest in there))
