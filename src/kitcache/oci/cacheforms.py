"""The two forms of a build cache, and the conversion of one into the other.

In a directory or a registry a cache is a manifest that lists the layers with their annotations, and
a cacheconfig. In an object store it is one document: a cacheconfig whose layers have annotations.
Both conversions give the bytes that BuildKit's own exporters write for the same build.

Sources: BuildKit, cache/remotecache/export.go (the manifest), cache/remotecache/s3/s3.go (the
annotations of layers), util/compression (the media types of an image manifest).
"""

import re
from datetime import UTC, datetime
from typing import Any

from kitcache.oci.cacheconfig import read_cacheconfig
from kitcache.oci.cachemanifest import (
    CREATED_AT,
    UNCOMPRESSED,
    CachedLayer,
    read_cache_manifest,
)
from kitcache.oci.digest import Digest, parse_digest, sha256_of
from kitcache.oci.document import (
    DocumentError,
    JsonObject,
    drop_field,
    encode_like_go,
    expect_list,
    expect_object,
    read_document,
    read_plain,
)
from kitcache.oci.links import CACHECONFIG

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_ZERO_TIME = "0001-01-01T00:00:00Z"
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-]\d\d:\d\d))", re.ASCII
)
_OCI_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    **{
        f"application/vnd.docker.image.rootfs.diff.tar.{packed}": (
            f"application/vnd.oci.image.layer.v1.tar+{packed}"
        )
        for packed in ("gzip", "zstd")
    },
    "application/vnd.docker.image.rootfs.foreign.diff.tar": (
        "application/vnd.oci.image.layer.nondistributable.v1.tar"
    ),
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    ),
}
"""The media types of an image manifest for those of Docker."""


def to_object_form(manifest: bytes, config: bytes) -> bytes:
    """Return the document that an object store has for a cache of a directory.

    Args:
        manifest: An image manifest or an index (`image-manifest=false`).
        config: The cacheconfig that it names.

    Raises:
        DocumentError: A document is invalid, or the manifest lacks a fact of a layer.
    """
    root = read_cache_manifest(manifest)
    if root is None:
        raise DocumentError("malformed", "the manifest names no cacheconfig")
    layers = read_cacheconfig(config).layers
    listed = {layer.descriptor.digest: layer for layer in root.layers}
    document = read_plain(config)
    if layers:
        document["layers"] = [
            {
                **drop_field(item, "annotations"),
                "annotations": _facts_of(layer.digest, listed),
            }
            for item, layer in zip(document["layers"], layers, strict=True)
        ]
    return encode_like_go(document)


def _facts_of(digest: Digest, listed: dict[Digest, CachedLayer]) -> dict[str, Any]:
    layer = listed.get(digest)
    if layer is None:
        raise DocumentError("malformed", f"the manifest does not list the layer {digest}")
    if layer.diff_id is None:
        raise DocumentError("malformed", f"the layer {digest} has no annotation {UNCOMPRESSED}")
    time = layer.created_at
    facts = {
        "mediaType": layer.descriptor.media_type,
        "diffID": _checked_diff_id(layer.diff_id, digest),
        "size": layer.descriptor.size,
        "createdAt": _ZERO_TIME if time is None else _utc(time, digest),
    }
    # Go omits empty text and a size of 0.
    return {name: value for name, value in facts.items() if value}


def to_directory_form(root: bytes) -> tuple[bytes, bytes]:
    """Return the image manifest and the cacheconfig for a document of an object store.

    The manifest lists a layer once for each time that the cacheconfig does, as BuildKit's does.

    Raises:
        DocumentError: The document is invalid, or lacks a fact of a layer.
    """
    layers = read_cacheconfig(root).layers
    items = expect_list(
        expect_object(read_document(root), "the cacheconfig").get_only("layers"), "'layers'"
    )
    listed = [_descriptor_of(layer.digest, item) for layer, item in zip(layers, items, strict=True)]
    document = read_plain(root)
    if items:
        document["layers"] = [drop_field(item, "annotations") for item in document["layers"]]
    config = encode_like_go(document)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": CACHECONFIG,
            "digest": str(sha256_of(config)),
            "size": len(config),
        },
        "layers": listed,
    }
    return encode_like_go(manifest), config


def _descriptor_of(digest: Digest, item: JsonObject) -> dict[str, Any]:
    facts = expect_object(item.get_only("annotations") or JsonObject(), f"the facts of {digest}")
    media_type, diff_id = facts.get_only("mediaType"), facts.get_only("diffID")
    size, time = facts.get_only("size"), facts.get_only("createdAt")
    if not isinstance(media_type, str) or not media_type:
        raise DocumentError("malformed", f"the layer {digest} has no media type")
    if not isinstance(diff_id, str) or not diff_id:
        raise DocumentError("malformed", f"the layer {digest} has no diff ID")
    if type(size) is not int or size < 0:
        raise DocumentError("malformed", f"the layer {digest} has no size")
    annotations = {UNCOMPRESSED: _checked_diff_id(diff_id, digest)}
    created = _ZERO_TIME if time is None else _utc(time, digest)
    if created != _ZERO_TIME:
        annotations = {CREATED_AT: created, **annotations}
    return {
        "mediaType": _OCI_TYPES.get(media_type, media_type),
        "digest": str(digest),
        "size": size,
        "annotations": annotations,
    }


def _checked_diff_id(text: str, digest: Digest) -> str:
    try:
        return str(parse_digest(text))
    except ValueError as error:
        raise DocumentError("malformed", f"the diff ID of the layer {digest}: {error}") from None


def _utc(text: Any, digest: Digest) -> str:
    """Return an RFC 3339 time in UTC, with as few digits as Go writes."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise DocumentError("malformed", f"the time of the layer {digest} is malformed")
    seconds, digits, offset = match.groups()
    fraction = (digits or "").rstrip("0")
    try:
        moment = datetime.fromisoformat(f"{seconds}{offset or '+00:00'}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise DocumentError("malformed", f"the time of the layer {digest} is malformed") from None
    # isoformat pads the year with zeros; strftime does not.
    return f"{moment.replace(tzinfo=None).isoformat()}{'.' if fraction else ''}{fraction}Z"
