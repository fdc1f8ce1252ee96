"""Which roots of a cache get smaller, and to what: blobs are read, a choice is made, nothing moves.

What trim does to one tag, and prune to all that it keeps.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from kitcache.errors import Damaged, Unsafe
from kitcache.gc.reach import reach
from kitcache.gc.rewrite import NewRoot, make_root
from kitcache.gc.values import Root, Survey, Tally
from kitcache.oci.cacheconfig import ResultKey, read_cacheconfig
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import DocumentError
from kitcache.store.layout import Layout
from kitcache.store.notes import put_notes, read_layer_uses, read_notes
from kitcache.upkeep.answers import Trimmed
from kitcache.upkeep.trimming.branches import Tree, cut_trees, weigh_steps


class Cut(NamedTuple):
    """A root that gets smaller. positions: of the entries in index.json that have it and its tag.

    kept: the results that stay; all others go.
    """

    ref_name: str | None
    positions: tuple[int, ...]
    before: Descriptor
    tree: Tree
    kept: frozenset[ResultKey]
    new: NewRoot

    @property
    def after(self) -> Descriptor:
        """What the entries name then."""
        digest = Digest("sha256", hashlib.sha256(self.new.manifest).hexdigest())
        return self.before._replace(digest=digest, size=len(self.new.manifest))


class Cutting(NamedTuple):
    """The roots that get smaller, and how many bytes all that stay come to then.

    trees: by their positions, the roots that could be cut.
    """

    cuts: tuple[Cut, ...]
    bytes: int
    trees: Mapping[int, Tree]

    @property
    def moves(self) -> dict[int, NewRoot]:
        """The new root of each entry that moves, by its position in index.json."""
        return {position: cut.new for cut in self.cuts for position in cut.positions}


def cut_roots(
    layout: Layout,
    survey: Survey,
    roots: Sequence[Root],
    positions: Collection[int],
    limit_bytes: int,
    *,
    used: Mapping[Digest, int],
    now_ns: int,
) -> Cutting:
    """What to cut from the roots at these positions, so that all of the roots fit the limit.

    roots: all that stay. used: when imports last read which layers. A root that is no cache, or
    that cannot be read as one, is left as it is. The survey is of this layout, and has no damage.
    Where the limit cannot be reached, bytes is above it, and one step is left of every root that
    could be cut. Raises KitcacheError for I/O errors.
    """
    trees = _read_trees(layout, [root for root in roots if root.position in positions])
    others = _reached_beside(survey, roots, trees)
    chosen = [root for root in roots if root.position in trees]
    cuts = cut_trees(
        [trees[root.position] for root in chosen],
        used,
        {digest: size for digest, size in survey.live.items() if digest not in others},
        sum(survey.live.get(digest, 0) for digest in others),
        limit_bytes,
        now_ns=now_ns,
    )
    moving: dict[tuple[str | None, Descriptor], list[int]] = {}
    kept: dict[Descriptor, frozenset[ResultKey]] = {}
    for root, stays in zip(chosen, cuts.kept, strict=True):
        if stays is not None and root.descriptor is not None:
            kept[root.descriptor] = stays
            moving.setdefault((root.ref_name, root.descriptor), []).append(root.position)
    return Cutting(
        tuple(
            Cut(
                ref_name,
                tuple(at),
                before,
                trees[at[0]],
                kept[before],
                make_root(*trees[at[0]][1:], kept[before], survey.live),
            )
            for (ref_name, before), at in moving.items()
        ),
        cuts.bytes,
        trees,
    )


def _read_trees(layout: Layout, roots: Sequence[Root]) -> dict[int, Tree]:
    """By position the roots that are caches, each blob read once."""
    known: dict[Digest, Tree | None] = {}
    found = {}
    for root in roots:
        if root.descriptor is not None:
            digest = root.descriptor.digest
            if digest not in known:
                known[digest] = None
                with suppress(Damaged, DocumentError, Unsafe):
                    known[digest] = read_tree(layout, root.descriptor)
            if (tree := known[digest]) is not None:
                found[root.position] = tree
    return found


def read_tree(layout: Layout, descriptor: Descriptor) -> Tree | None:
    """The root of a cache that a descriptor names, None where that is something else.

    Raises Damaged, Unsafe, and DocumentError where BuildKit would not import it.
    """
    manifest = layout.read_blob(descriptor.digest, descriptor.size) or b""
    root = read_cache_manifest(manifest)
    if root is None:
        return None
    config = layout.read_blob(root.config.digest, root.config.size) or b""
    read_cacheconfig(config)
    return Tree("", manifest, config)


def _reached_beside(
    survey: Survey, roots: Sequence[Root], trees: Mapping[int, Tree]
) -> set[Digest]:
    """What these roots reach beside the manifests, cacheconfigs and layers of the trees."""
    beside: set[Digest] = set()
    for root in roots:
        if root.descriptor is not None:
            reached = reach(survey, root.descriptor).keys()
            tree = trees.get(root.position)
            beside |= reached - _own_blobs(survey, root.descriptor, tree) if tree else reached
    return beside


def _own_blobs(survey: Survey, descriptor: Descriptor, tree: Tree) -> set[Digest]:
    root = read_cache_manifest(tree.manifest)
    configs = [root.config.digest] if root else []
    below = reach(survey, descriptor, with_subjects=False)
    layers = [digest for digest, link in below.items() if link.role == "layer"]
    return {descriptor.digest, *configs, *layers}


def layer_uses(layout: Layout) -> dict[Digest, int]:
    """When an import last read each layer, where that is noted: ns since 1970."""
    uses = {}
    for text, used_ns in read_layer_uses(layout).items():
        with suppress(ValueError):
            uses[parse_digest(text)] = used_ns
    return uses


def describe_cut(
    cut: Cut,
    before: Survey,
    used: Mapping[Digest, int],
    *,
    path: str,
    outcome: Literal["done", "dry-run"],
    limit_bytes: int,
    now_ns: int,
) -> Trimmed:
    """What becomes of a tag. before: the survey by which it was decided."""
    kept, dropped = weigh_steps(cut.tree, cut.kept, used, before.live, now_ns)
    return Trimmed(
        path=path,
        outcome=outcome,
        ref_name=cut.ref_name,
        limit_bytes=limit_bytes,
        before=cut.before.digest,
        before_size=tally_below(before, cut.before),
        after=cut.after.digest,
        after_size=_tally_after(before, cut),
        kept=kept,
        dropped=dropped,
    )


def move_note(layout: Layout, cut: Cut) -> None:
    """Have the note of the tag's last export name what the tag is now."""
    note = None if cut.ref_name is None else read_notes(layout).get(cut.ref_name)
    if cut.ref_name is not None and note is not None and note.digest == str(cut.before.digest):
        put_notes(layout, {cut.ref_name: note._replace(digest=str(cut.after.digest))})


def tally_below(survey: Survey, descriptor: Descriptor) -> Tally:
    """All that a descriptor reaches and that is there."""
    there = [digest for digest in reach(survey, descriptor) if digest in survey.live]
    return Tally(len(there), sum(survey.live[digest] for digest in there))


def _tally_after(before: Survey, cut: Cut) -> Tally:
    """All that the new root reaches; where others publish meanwhile, a later survey may not."""
    beside = reach(before, cut.before).keys() - _own_blobs(before, cut.before, cut.tree)
    there = [digest for digest in beside | cut.new.layers if digest in before.live]
    documents = Tally(2, len(cut.new.manifest) + len(cut.new.config))
    return documents.plus(Tally(len(there), sum(before.live[digest] for digest in there)))
