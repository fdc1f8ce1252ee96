"""The survey of an edited index.json, computed from the survey before the edit. No I/O.

An edit only removes references, so the links in the earlier survey are still valid.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from kitcache.gc.reach import reach
from kitcache.gc.values import MissingBlob, NodeKey, Root, Survey, key_of
from kitcache.oci.cacheconfig import (
    IMPORT_LIMIT_BYTES,
    ResultKey,
    TrimmedConfig,
    trim_cacheconfig,
)
from kitcache.oci.cachemanifest import CacheManifest, read_cache_manifest, trim_manifest
from kitcache.oci.digest import Digest, sha256_of
from kitcache.oci.links import Link, kind_in_place, read_links


class CacheDocuments(NamedTuple):
    """The documents of a cache: verified bytes that can be parsed.

    Attributes:
        manifest: None in an object store, where the cacheconfig is the root itself.
    """

    manifest: bytes | None
    config: bytes

    @property
    def root(self) -> bytes:
        """The document that an entry names."""
        return self.config if self.manifest is None else self.manifest

    @property
    def in_order(self) -> tuple[bytes, ...]:
        """The documents, the root last."""
        return (self.config,) if self.manifest is None else (self.config, self.manifest)

    @property
    def size(self) -> int:
        """The sum of their bytes."""
        return sum(map(len, self.in_order))

    def read_manifest(self) -> CacheManifest | None:
        """Return the parsed manifest, None if there is none. Raises DocumentError."""
        return None if self.manifest is None else read_cache_manifest(self.manifest)

    @property
    def fits_import(self) -> bool:
        """True if no document is too large for an import. An object store has no limit."""
        return self.manifest is None or max(map(len, self.in_order)) <= IMPORT_LIMIT_BYTES

    def replace_config(self, trimmed: TrimmedConfig, digest: Digest) -> "CacheDocuments":
        """Return the documents with a smaller cacheconfig. digest: That of its bytes."""
        manifest = self.manifest
        if manifest is not None:
            manifest = trim_manifest(manifest, trimmed.layers, digest, len(trimmed.data))
        return CacheDocuments(manifest, trimmed.data)


class RewrittenRoot(NamedTuple):
    """A smaller root: the blobs to write, and the layers that it lists."""

    documents: CacheDocuments
    layers: frozenset[Digest] = frozenset()

    @property
    def digest(self) -> Digest:
        """The digest of the new root."""
        return sha256_of(self.documents.root)

    @property
    def size(self) -> int:
        """The length of the new root in bytes."""
        return len(self.documents.root)


def make_root(cache: CacheDocuments, kept: Collection[ResultKey]) -> RewrittenRoot:
    """Return the root of a cache that keeps only these results."""
    trimmed = trim_cacheconfig(cache.config, kept)
    documents = cache.replace_config(trimmed, sha256_of(trimmed.data))
    return RewrittenRoot(documents, trimmed.layers)


def project(
    survey: Survey,
    *,
    drop: Collection[int] = (),
    move: Mapping[int, RewrittenRoot] | None = None,
    young: Collection[Digest] = (),
    index_digest: Digest,
) -> Survey:
    """Return the survey after some entries are removed and others get new roots.

    Args:
        drop: The positions of the entries to remove.
        move: The new roots by position. They reach no blob that was not live before.
        young: The blobs that only removed entries reach and that are too young to delete. They and
            all blobs that they reach are kept.
        index_digest: Of the bytes of the edited index.json.
    """
    sizes, links = dict(survey.live), dict(survey.links)
    roots, dropped = [], sorted(drop)
    for root in survey.roots:
        if root.position not in drop:
            moved = (move or {}).get(root.position)
            kept = root if moved is None else _move(root, moved, sizes, links)
            before = bisect_left(dropped, root.position)
            roots.append(kept._replace(position=root.position - before))
    starts = [key_of(root.descriptor) for root in roots if root.descriptor is not None]
    live = {digest: sizes[digest] for digest in _reach_all(links, starts) if digest in sizes}
    all_young = {*survey.young, *young}
    nodes = [key for key in links if key[0] in all_young] if all_young else []
    kept_young = [d for d in {*young, *_reach_all(links, nodes)} if d in sizes and d not in live]
    projected = survey._replace(
        index_digest=index_digest,
        roots=tuple(roots),
        live=live,
        young={**survey.young, **{digest: sizes[digest] for digest in kept_young}},
        links=links,
    )
    return projected._replace(missing_blobs=tuple(_missing(projected, survey.missing_blobs)))


def _move(
    root: Root,
    moved: RewrittenRoot,
    sizes: dict[Digest, int],
    links: dict[NodeKey, tuple[Link, ...]],
) -> Root:
    """Return the root with its new document, and add its documents to sizes and links."""
    if root.descriptor is None:
        raise ValueError("a root that cannot be read cannot be moved")
    documents = moved.documents
    sizes |= {sha256_of(data): len(data) for data in documents.in_order}
    new = root.descriptor._replace(digest=moved.digest, size=moved.size)
    children = read_links(kind_in_place(Link(new, "manifest")), documents.root)
    links[key_of(new)] = children
    config_digest = sha256_of(documents.config)
    for link in children:
        if link.descriptor.digest == config_digest:
            links[key_of(link.descriptor)] = read_links("cacheconfig", documents.config)
    return root._replace(descriptor=new)


def _reach_all(links: Mapping[NodeKey, tuple[Link, ...]], starts: Iterable[NodeKey]) -> set[Digest]:
    """Return all digests at or below these nodes."""
    todo = list(starts)
    done = set(todo)
    while todo:
        for link in links.get(todo.pop(), ()):
            key = key_of(link.descriptor)
            if key not in done:
                done.add(key)
                todo.append(key)
    return {digest for digest, _, _ in done}


def _missing(survey: Survey, blobs: Collection[MissingBlob]) -> Iterable[MissingBlob]:
    """Yield the missing blobs that a root still reaches, each with the first such tag."""
    wanted = {blob.digest: blob for blob in blobs}
    for root in survey.roots if wanted else ():
        if root.descriptor is not None:
            for digest, link in reach(survey, root.descriptor).items():
                # A blob with a URL may be absent.
                if digest in wanted and not link.descriptor.elsewhere:
                    yield wanted.pop(digest)._replace(ref_name=root.ref_name)
