"""The only switch over media types: the kind of a blob, and the blobs that it references.

No other module knows which field of a document holds a reference. If in doubt, keep the blob: all
container fields of a structural document count, whatever its kind is. A document of unknown kind
is inspected before it counts as a leaf.
Sources: OCI image-spec (manifest.md, image-index.md), Docker's distribution spec (schema 1 and 2),
BuildKit's cache/remotecache/v1 for the cacheconfig, containerd's images.Children.
"""

import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from kitcache.oci.descriptor import (
    Descriptor,
    find_descriptors,
    find_digests,
    read_descriptor,
)
from kitcache.oci.digest import parse_digest
from kitcache.oci.document import (
    DocumentError,
    JsonObject,
    expect_list,
    expect_object,
    read_document,
)

BlobKind = Literal["index", "manifest", "cacheconfig", "leaf"]
Role = Literal["manifest", "config", "layer", "blob", "subject"]

CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"

_KINDS: dict[str, BlobKind] = {
    "application/vnd.oci.image.index.v1+json": "index",
    "application/vnd.docker.distribution.manifest.list.v2+json": "index",
    "application/vnd.oci.image.manifest.v1+json": "manifest",
    "application/vnd.oci.artifact.manifest.v1+json": "manifest",
    "application/vnd.docker.distribution.manifest.v2+json": "manifest",
    "application/vnd.docker.distribution.manifest.v1+json": "manifest",
    "application/vnd.docker.distribution.manifest.v1+prettyjws": "manifest",
    CACHECONFIG: "cacheconfig",
    "application/vnd.oci.image.config.v1+json": "leaf",
    "application/vnd.docker.container.image.v1+json": "leaf",
    "application/vnd.oci.empty.v1+json": "leaf",
}
_LEAF_PREFIXES = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")

_LISTS: tuple[tuple[str, Role], ...] = (
    ("manifests", "manifest"),
    ("layers", "layer"),
    ("blobs", "blob"),
)
_SINGLES: tuple[tuple[str, Role], ...] = (("config", "config"), ("subject", "subject"))
_CACHECONFIG_FIELDS = {"layers", "records"}


class Link(NamedTuple):
    """A reference from one blob to another: its descriptor, and its role in the document."""

    descriptor: Descriptor
    role: Role


def kind_in_place(link: Link) -> BlobKind | None:
    """Return the kind of a referenced blob, None if it must be inspected.

    BuildKit ignores the media type of an entry of `manifests` and infers the kind from the bytes.
    So the media type of a leaf is not reliable there.
    Source: BuildKit, util/imageutil/config.go (DetectManifestBlobMediaType).
    """
    kind = kind_of(link.descriptor.media_type)
    return None if kind == "leaf" and link.role == "manifest" else kind


def kind_of(media_type: str) -> BlobKind | None:
    """Return the kind that a media type names, None if it is unknown."""
    plain = media_type.partition(";")[0].strip().lower()
    return "leaf" if is_layer(plain) else _KINDS.get(plain)


def is_layer(media_type: str) -> bool:
    """Return True if a media type of OCI or Docker names the layer of an image."""
    return media_type.startswith(_LEAF_PREFIXES)


def can_be_json(head: bytes) -> bool:
    """Return True if a blob with these first bytes can be a JSON object; blanks can."""
    return head.lstrip(b" \t\r\n")[:1] in (b"{", b"")


def read_links(kind: BlobKind | None, data: bytes) -> tuple[Link, ...]:
    """Return the references of a blob. Raises DocumentError for a malformed structural blob.

    Args:
        kind: None to search the bytes for references; bytes that are not JSON have none, and JSON
            that is nested too deeply raises DocumentError.
        data: The verified bytes.
    """
    match kind:
        case "leaf":
            return ()
        case "cacheconfig":
            return _cached(expect_object(read_document(data), "the cacheconfig"))
        case "index" | "manifest":
            return _container_links(expect_object(read_document(data), f"the {kind}"))
        case None:
            return _search_links(data)


def _container_links(document: JsonObject) -> tuple[Link, ...]:
    links: list[Link] = []
    for field, role in _LISTS:
        for value in document.all_values(field):
            items = enumerate(expect_list(value, field))
            links += _with_role(role, [read_descriptor(i, f"{field}[{n}]") for n, i in items])
    links += [
        Link(read_descriptor(value, field), role)
        for field, role in _SINGLES
        for value in document.all_values(field)
        if value is not None
    ]
    return tuple(links + _schema1_layers(document))


def _with_role(role: Role, listed: Sequence[Descriptor]) -> list[Link]:
    """Return the links of one list, each in its role.

    With `image-manifest=false` BuildKit lists the layers in `manifests`, with the cacheconfig. In
    an index without a cacheconfig, an import inspects each entry. BuildKit compares the exact
    text: with capitals or a parameter, the type does not make the other entries layers.
    Source: BuildKit, cache/remotecache/import.go.
    """
    if role != "manifest":
        return [Link(descriptor, role) for descriptor in listed]
    roles: dict[BlobKind | None, Role] = {"cacheconfig": "config"}
    if any(descriptor.media_type == CACHECONFIG for descriptor in listed):
        roles["leaf"] = "layer"
    return [Link(each, roles.get(kind_of(each.media_type), role)) for each in listed]


def _schema1_layers(document: JsonObject) -> list[Link]:
    sums = [
        expect_object(item, "an fsLayers entry").all_values("blobSum")
        for value in document.all_values("fsLayers")
        for item in expect_list(value, "fsLayers")
    ]
    return [_bare_layer(digest) for digests in sums for digest in digests]


def _cached(document: JsonObject) -> tuple[Link, ...]:
    layers = [
        expect_object(item, "a layer of the cacheconfig")
        for value in document.all_values("layers")
        for item in expect_list(value, "layers")
    ]
    blobs = [_annotated(layer, digest) for layer in layers for digest in layer.all_values("blob")]
    if len(blobs) == len(layers) and document.keys() <= _CACHECONFIG_FIELDS:
        return tuple(blobs)
    # The document is not a cacheconfig, in spite of its media type.
    return (*blobs, *_links_of_any(document))


def _annotated(layer: JsonObject, digest: Any) -> Link:
    """Return the link of a layer. In an object store, its annotations have its type and size.

    The media type counts only if it is that of a layer: a cacheconfig references nothing else.
    """
    link = _bare_layer(digest)
    if "annotations" not in layer:
        return link
    found = [value for value in layer.all_values("annotations") if isinstance(value, JsonObject)]
    types = [value for each in found for value in each.all_values("mediaType")]
    sizes = [n for each in found for n in each.all_values("size") if type(n) is int and n > 0]
    plain = types[-1] if types and isinstance(types[-1], str) else ""
    return link._replace(
        descriptor=Descriptor(
            # A hundred thousand layers have few types, and the parser makes a string for each.
            sys.intern(plain) if is_layer(plain) else BARE_LAYER,
            link.descriptor.digest,
            sizes[-1] if sizes else None,
        )
    )


def _bare_layer(digest: Any) -> Link:
    try:
        return Link(Descriptor(BARE_LAYER, parse_digest(digest), None), "layer")
    except ValueError as error:
        raise DocumentError("malformed", f"a layer's digest: {error}") from None


BARE_LAYER = "application/vnd.oci.image.layer."
"""The media type of layers that are referenced by their digest alone."""


def _search_links(data: bytes) -> tuple[Link, ...]:
    try:
        # Some readers, such as umoci's, ignore bytes after the first object.
        document = read_document(data, allow_trailing=True)
    except DocumentError as error:
        if error.kind == "too-nested":
            raise
        return ()
    return _links_of_any(document) if isinstance(document, JsonObject) else ()


def _links_of_any(document: JsonObject) -> tuple[Link, ...]:
    links: list[Link] = []
    for field, role in _LISTS:
        for value in document.all_values(field):
            items = value if isinstance(value, list) else []
            links += _with_role(role, [d for item in items for d in find_descriptors(item)])
    links += [
        Link(descriptor, role)
        for field, role in _SINGLES
        for value in document.all_values(field)
        for descriptor in find_descriptors(value)
    ]
    bare = [
        Link(Descriptor(BARE_LAYER, digest, None), "layer")
        for field, name in (("fsLayers", "blobSum"), ("layers", "blob"))
        for value in document.all_values(field)
        for item in (value if isinstance(value, list) else ())
        for digest in find_digests(item, name)
    ]
    return tuple(links + bare)
