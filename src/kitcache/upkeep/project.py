"""A Survey as it would be found after an edit of index.json. Pure: the disk was read before.

What is given up by hand needs no second look at the disk: the links that were read still hold.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from kitcache.gc.reach import reach
from kitcache.gc.values import MissingBlob, NodeKey, Root, Survey, key_of
from kitcache.oci.cacheconfig import ResultKey, trim_cacheconfig
from kitcache.oci.cachemanifest import trim_manifest
from kitcache.oci.digest import Digest, sha256_of
from kitcache.oci.links import Link, kind_in_place, read_links


class CacheDocuments(NamedTuple):
    """The manifest and the cacheconfig of a cache: verified bytes, known to be readable."""

    manifest: bytes
    config: bytes


class RewrittenRoot(NamedTuple):
    """A smaller root: two blobs to write, and the layers that it lists."""

    manifest: bytes
    config: bytes
    layers: frozenset[Digest] = frozenset()

    @property
    def digest(self) -> Digest:
        """The digest of the new manifest."""
        return sha256_of(self.manifest)


def make_root(cache: CacheDocuments, kept: Collection[ResultKey]) -> RewrittenRoot:
    """Return the root of a cache that keeps only these results."""
    trimmed = trim_cacheconfig(cache.config, kept)
    config_digest = sha256_of(trimmed.data)
    manifest = trim_manifest(cache.manifest, trimmed.layers, config_digest, len(trimmed.data))
    return RewrittenRoot(manifest, trimmed.data, trimmed.layers)


def project(
    survey: Survey,
    *,
    drop: Collection[int] = (),
    move: Mapping[int, RewrittenRoot] | None = None,
    young: Collection[Digest] = (),
    index_digest: Digest,
) -> Survey:
    """The survey of an index.json without some entries, and with others moved to new blobs.

    Entries go by their position; what a new manifest names was live before. young: of what only
    dropped entries reach, the blobs that are too young to go: they shelter what they reach.
    index_digest: of the bytes of that index.json.
    """
    sizes, links = dict(survey.live), dict(survey.links)
    roots, gone = [], sorted(drop)
    for root in survey.roots:
        if root.position not in drop:
            moved = (move or {}).get(root.position)
            kept = root if moved is None else _move(root, moved, sizes, links)
            before = bisect_left(gone, root.position)
            roots.append(kept._replace(position=root.position - before))
    starts = [key_of(root.descriptor) for root in roots if root.descriptor is not None]
    live = {digest: sizes[digest] for digest in _reach_all(links, starts) if digest in sizes}
    sheltering = {*survey.young, *young}
    nodes = [key for key in links if key[0] in sheltering] if sheltering else []
    sheltered = [d for d in {*young, *_reach_all(links, nodes)} if d in sizes and d not in live]
    narrowed = survey._replace(
        index_digest=index_digest,
        roots=tuple(roots),
        live=live,
        young={**survey.young, **{digest: sizes[digest] for digest in sheltered}},
        links=links,
    )
    return narrowed._replace(missing_blobs=tuple(_missing(narrowed, survey.missing_blobs)))


def _move(
    root: Root,
    moved: RewrittenRoot,
    sizes: dict[Digest, int],
    links: dict[NodeKey, tuple[Link, ...]],
) -> Root:
    """The root with its new manifest; what that is, and points at, is noted."""
    if root.descriptor is None:
        raise ValueError("a root that cannot be read cannot be moved")
    documents = moved.manifest, moved.config
    digests = [sha256_of(data) for data in documents]
    sizes.update(zip(digests, map(len, documents), strict=True))
    new = root.descriptor._replace(digest=digests[0], size=len(moved.manifest))
    children = read_links(kind_in_place(Link(new, "manifest")), moved.manifest)
    links[key_of(new)] = children
    for link in children:
        if link.descriptor.digest == digests[1]:
            links[key_of(link.descriptor)] = read_links("cacheconfig", moved.config)
    return root._replace(descriptor=new)


def _reach_all(links: Mapping[NodeKey, tuple[Link, ...]], starts: Iterable[NodeKey]) -> set[Digest]:
    """Every digest at or below one of these nodes, each node looked at once."""
    todo = list(starts)
    done = set(todo)
    while todo:
        for link in links.get(todo.pop(), ()):
            key = key_of(link.descriptor)
            if key not in done:
                done.add(key)
                todo.append(key)
    return {digest for digest, _, _ in done}


def _missing(survey: Survey, leaves: Collection[MissingBlob]) -> Iterable[MissingBlob]:
    """Those leaves that a root still names, each with the first tag that does."""
    wanted = {leaf.digest: leaf for leaf in leaves}
    for root in survey.roots if wanted else ():
        if root.descriptor is not None:
            for digest, link in reach(survey, root.descriptor).items():
                # What is to be found at a URL may rightly be missing here.
                if digest in wanted and not link.descriptor.elsewhere:
                    yield wanted.pop(digest)._replace(ref_name=root.ref_name)
