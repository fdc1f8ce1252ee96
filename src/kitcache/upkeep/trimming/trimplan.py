"""The trim plan: selects the steps to remove from caches, and makes their new roots.

It reads blobs and changes nothing. trim uses it for one tag, prune for all tags that it keeps.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from kitcache.errors import Damaged, Unsafe
from kitcache.gc.reach import reach, reached_elsewhere
from kitcache.gc.values import Root, Survey, Tally
from kitcache.oci.cacheconfig import ResultKey, read_cacheconfig
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.protocol import CacheStore
from kitcache.upkeep.project import CacheDocuments, RewrittenRoot, make_root, project
from kitcache.upkeep.results import TrimResult
from kitcache.upkeep.trimming.steporder import describe_steps, select_steps


class TagTrim(NamedTuple):
    """A root that is trimmed.

    Attributes:
        positions: Of the entries of index.json that have this root and this tag.
        kept: The results that are kept.
    """

    ref_name: str | None
    positions: tuple[int, ...]
    before: Descriptor
    documents: CacheDocuments
    kept: frozenset[ResultKey]
    new: RewrittenRoot

    @property
    def after(self) -> Descriptor:
        """The descriptor that the entries name afterwards."""
        return self.before._replace(digest=self.new.digest, size=self.new.size)


class TrimPlan(NamedTuple):
    """The roots that are trimmed.

    Attributes:
        before: The survey before the trim.
        after: The survey of all kept roots after the trim.
        caches: The roots that are caches, by position.
        used: When imports last read a layer.
    """

    trims: tuple[TagTrim, ...]
    before: Survey
    after: Survey
    caches: Mapping[int, CacheDocuments]
    used: Mapping[Digest, int]
    now_ns: int

    @property
    def moves(self) -> dict[int, RewrittenRoot]:
        """The new root of each entry that moves, by its position in index.json."""
        return {position: trim.new for trim in self.trims for position in trim.positions}

    @property
    def moved_exports(self) -> dict[str, tuple[Digest, Digest]]:
        """The old and the new root of each tag that moves."""
        return {t.ref_name: (t.before.digest, t.after.digest) for t in self.trims if t.ref_name}

    def describe(
        self,
        trim: TagTrim,
        path: str,
        outcome: Literal["done", "dry-run"],
        limit_bytes: int,
        others: Survey,
    ) -> TrimResult:
        """Return the result for one tag. others: The survey that has the other entries."""
        kept, removed = describe_steps(
            trim.documents,
            trim.kept,
            self.used,
            self.before.live,
            elsewhere=reached_elsewhere(others, trim.positions),
            now_ns=self.now_ns,
        )
        return TrimResult(
            path=path,
            outcome=outcome,
            ref_name=trim.ref_name,
            limit_bytes=limit_bytes,
            before=trim.before.digest,
            before_size=tally_below(self.before, trim.before),
            after=trim.after.digest,
            after_size=tally_below(self.after, trim.after),
            kept_steps=kept,
            removed_steps=removed,
        )


def plan_trims(
    store: CacheStore,
    survey: Survey,
    roots: Sequence[Root],
    positions: Collection[int],
    limit_bytes: int,
    *,
    used: Mapping[Digest, int],
    now_ns: int,
    held: Collection[Digest] = (),
) -> TrimPlan:
    """Plan the trims that make all roots together fit the limit.

    A root is not changed if it is not a cache, is damaged as a cache, or has no layer whose removal
    would free space. If the limit cannot be reached, one step of every other root is kept.

    Args:
        survey: Of this store, without damage.
        roots: All roots that are kept.
        positions: Of the roots that may be trimmed.
        used: When imports last read a layer.
        held: Blobs that count even if no root reaches them.

    Raises:
        Unreadable: A blob cannot be read.
        KitcacheError: Another I/O error.
    """
    caches = _read_caches(store, [root for root in roots if root.position in positions])
    documents: dict[int, set[Digest]] = {}
    layers: dict[int, set[Digest]] = {}
    others = survey.live.keys() & set(held)
    for root in roots:
        if root.descriptor is None:
            continue
        own: set[Digest] = set()
        if root.position in caches:
            own = _own_layers(survey, root.descriptor, caches[root.position])
            layers[root.position] = set(own)
            manifest = caches[root.position].read_manifest()
            documents[root.position] = {root.descriptor.digest}
            if manifest is not None:
                documents[root.position].add(manifest.config.digest)
            own |= documents[root.position]
        others |= reach(survey, root.descriptor).keys() - own
    idle = [position for position in layers if layers[position] <= others]
    others.update(*(documents[position] for position in idle))
    chosen = [root for root in roots if root.position in layers and root.position not in idle]
    selection = select_steps(
        [caches[root.position] for root in chosen],
        used,
        {digest: size for digest, size in survey.live.items() if digest not in others},
        sum(survey.live.get(digest, 0) for digest in others),
        limit_bytes,
        now_ns=now_ns,
    )
    trims = _make_trims(caches, chosen, selection.kept)
    plan = TrimPlan(trims, survey, survey, caches, used, now_ns)
    alone = survey._replace(roots=tuple(roots))
    return plan._replace(after=project(alone, move=plan.moves, index_digest=survey.index_digest))


def _make_trims(
    caches: Mapping[int, CacheDocuments],
    roots: Sequence[Root],
    kept: Sequence[frozenset[ResultKey] | None],
) -> tuple[TagTrim, ...]:
    positions: dict[tuple[str | None, Descriptor], list[int]] = {}
    keys: dict[Descriptor, frozenset[ResultKey]] = {}
    for root, own in zip(roots, kept, strict=True):
        if own is not None and root.descriptor is not None:
            keys[root.descriptor] = own
            positions.setdefault((root.ref_name, root.descriptor), []).append(root.position)
    trims = []
    for (ref_name, before), at in positions.items():
        cache = caches[at[0]]
        new = make_root(cache, keys[before])
        trims.append(TagTrim(ref_name, tuple(at), before, cache, keys[before], new))
    return tuple(trims)


def _read_caches(store: CacheStore, roots: Sequence[Root]) -> dict[int, CacheDocuments]:
    """Return the roots that are caches, by position. Read each blob once."""
    known: dict[Digest, CacheDocuments | None] = {}
    caches = {}
    for root in roots:
        if root.descriptor is not None:
            digest = root.descriptor.digest
            if digest not in known:
                known[digest] = None
                with suppress(Damaged, Unsafe):
                    known[digest] = read_cache(store, root.descriptor)
            if (cache := known[digest]) is not None:
                caches[root.position] = cache
    return caches


def read_cache(store: CacheStore, descriptor: Descriptor) -> CacheDocuments | None:
    """Return the documents of the cache that a descriptor names, None if it is not a cache.

    Raises Damaged, also if BuildKit would not import it, and Unsafe.
    """
    manifest = store.read_blob(descriptor.digest, descriptor.size) or b""
    if store.blobs_are_leaves:
        read_cacheconfig(manifest)
        return CacheDocuments(None, manifest)
    root = read_cache_manifest(manifest)
    if root is None:
        return None
    config = store.read_blob(root.config.digest, root.config.size) or b""
    read_cacheconfig(config)
    return CacheDocuments(manifest, config)


def _own_layers(survey: Survey, descriptor: Descriptor, cache: CacheDocuments) -> set[Digest]:
    """Return all layers that the root of a cache lists."""
    below = reach(survey, descriptor, with_subjects=False)
    layers = {digest for digest, link in below.items() if link.role == "layer"}
    root = cache.read_manifest()
    # In an index a layer of unknown media type may be a manifest.
    return layers | {layer.descriptor.digest for layer in root.layers} if root else layers


def layer_uses(store: CacheStore) -> dict[Digest, int]:
    """Return when an import last read each layer, if recorded: ns since 1970."""
    uses = {}
    for text, used_ns in store.read_layer_uses().items():
        with suppress(ValueError):
            uses[parse_digest(text)] = used_ns
    return uses


def tally_below(survey: Survey, descriptor: Descriptor) -> Tally:
    """Return the tally of all existing blobs that a descriptor reaches."""
    sizes = [survey.live[d] for d in reach(survey, descriptor) if d in survey.live]
    return Tally(len(sizes), sum(sizes))
