"""A smaller root for a tag: the cacheconfig and the manifest that name only what is kept.

The blobs come first and the entry of index.json after them, so a crash leaves garbage, no hole.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

from kitcache.oci.cacheconfig import ResultKey, trim_cacheconfig
from kitcache.oci.cachemanifest import trim_manifest
from kitcache.oci.digest import Digest
from kitcache.store.directory import DirectoryStore
from kitcache.store.write import sync_blobs, write_blob


class RewrittenRoot(NamedTuple):
    """Two blobs that are to be written, and what the new root reaches: layers, bytes in all."""

    manifest: bytes
    config: bytes
    layers: frozenset[Digest]
    bytes: int


def make_root(
    manifest: bytes, config: bytes, kept: Collection[ResultKey], sizes: Mapping[Digest, int]
) -> RewrittenRoot:
    """The root of a cache that keeps these results only. sizes: of layers, in bytes.

    manifest, config: proven, and read by read_cache_manifest and read_cacheconfig without error.
    """
    cut = trim_cacheconfig(config, kept)
    digest = Digest("sha256", hashlib.sha256(cut.data).hexdigest())
    smaller = trim_manifest(manifest, cut.layers, digest, len(cut.data))
    layer_bytes = sum(sizes.get(layer, 0) for layer in cut.layers)
    return RewrittenRoot(smaller, cut.data, cut.layers, layer_bytes + len(cut.data) + len(smaller))


def write_root(layout: DirectoryStore, new: RewrittenRoot) -> tuple[Digest, int]:
    """Write both blobs, config first: the manifest's digest and size. Both are on the disk then.

    The caller holds kitcache.lock and moves the entry of index.json. Raises KitcacheError.
    """
    write_blob(layout, new.config)
    digest = write_blob(layout, new.manifest)
    sync_blobs(layout)
    return digest, len(new.manifest)
