"""The root of a cache: its layers and its cacheconfig.

It has two forms: an image manifest whose config is the cacheconfig, and an index whose entries are
the layers and the cacheconfig (`image-manifest=false`).
Source: BuildKit, cache/remotecache/export.go and import.go.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from kitcache.oci.descriptor import Descriptor, read_descriptor, retarget
from kitcache.oci.digest import Digest
from kitcache.oci.document import (
    JsonObject,
    encode_plain,
    expect_list,
    expect_object,
    read_document,
    read_plain,
)
from kitcache.oci.links import CACHECONFIG

UNCOMPRESSED = "containerd.io/uncompressed"
"""The annotation with a layer's diff ID. BuildKit does not load a layer without it."""
CREATED_AT = "buildkit/createdat"
"""The annotation with the time at which a layer was created."""


class CachedLayer(NamedTuple):
    """A layer of a cache, as the root lists it.

    Attributes:
        diff_id: The digest of its uncompressed bytes as text, None if absent.
        created_at: A time in RFC 3339 as text, None if absent.
    """

    descriptor: Descriptor
    diff_id: str | None
    created_at: str | None = None


class CacheManifest(NamedTuple):
    """The root of a cache: its cacheconfig, its layers, and the complete document."""

    config: Descriptor
    layers: tuple[CachedLayer, ...]
    document: JsonObject


def read_cache_manifest(data: bytes) -> CacheManifest | None:
    """Return the root of a cache, None if the bytes are another manifest or index.

    If an index lists several cacheconfigs, the last one counts, as in BuildKit. Raises
    DocumentError (not-json, too-nested, malformed, ambiguous).
    """
    document = expect_object(read_document(data), "the manifest")
    document.check_spelling(("config", "layers", "manifests"))
    config = document.get_only("config")
    if _is_config(config):
        layers = expect_list(document.get_only("layers"), "'layers'")
        return CacheManifest(read_descriptor(config, "the config"), _layers(layers), document)
    items = expect_list(document.get_only("manifests"), "'manifests'")
    configs = [item for item in items if _is_config(item)]
    if not configs:
        return None
    layers = [item for item in items if not _is_config(item)]
    descriptor = read_descriptor(configs[-1], "the cacheconfig")
    return CacheManifest(descriptor, _layers(layers), document)


def _is_config(item: Any) -> bool:
    if not isinstance(item, JsonObject):
        return False
    item.check_spelling(("mediaType", "digest", "size"))
    return bool(item.get_only("mediaType") == CACHECONFIG)


def _layers(items: list[Any]) -> tuple[CachedLayer, ...]:
    return tuple(
        CachedLayer(
            read_descriptor(item, f"layer {n}"),
            _annotation(item, UNCOMPRESSED),
            _annotation(item, CREATED_AT),
        )
        for n, item in enumerate(items)
    )


def _annotation(item: JsonObject, name: str) -> str | None:
    annotations = item.get_only("annotations")
    value = annotations.get_exact(name) if isinstance(annotations, JsonObject) else None
    return value if isinstance(value, str) else None


def trim_manifest(
    data: bytes, layers: Collection[Digest], config_digest: Digest, config_size: int
) -> bytes:
    """Return the root of a cache with these layers only, and with another cacheconfig.

    Unknown fields are kept. `data` must be valid for read_cache_manifest.
    """
    document, keep = read_plain(data), frozenset(map(str, layers))
    is_index = (document.get("config") or {}).get("mediaType") != CACHECONFIG
    field = "manifests" if is_index else "layers"
    items = document.get(field) or []
    configs = [item for item in items if is_index and item.get("mediaType") == CACHECONFIG]
    document[field] = [
        retarget(item, config_digest, config_size) if item in configs[-1:] else item
        for item in items
        if item in configs[-1:] or item.get("digest") in keep
    ]
    if not is_index:
        document["config"] = retarget(document["config"], config_digest, config_size)
    return encode_plain(document)
