"""Descriptors: the JSON that references a blob, as read. A rewrite keeps the original JSON.

Source: OCI image-spec, descriptor.md; annotations.md for the ref name.
"""

from contextlib import suppress
from typing import Any, NamedTuple

from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import DocumentError, JsonObject, describe, drop_field, expect_object

REF_NAME = "org.opencontainers.image.ref.name"


class Descriptor(NamedTuple):
    """A reference to a blob, as index.json, manifests and cacheconfigs contain it.

    Attributes:
        media_type: "" if absent.
        size: In bytes; None in a cacheconfig's layers, unless their annotations have it.
        ref_name: The tag, on an entry of index.json.
        platform: os/arch[/variant].
        elsewhere: The blob can be missing without damage, because its bytes are at a URL.
    """

    media_type: str
    digest: Digest
    size: int | None
    ref_name: str | None = None
    platform: str | None = None
    elsewhere: bool = False


def read_descriptor(value: Any, label: str = "a descriptor") -> Descriptor:
    """Return the descriptor in a JSON value. Raises DocumentError (malformed, ambiguous).

    Types are checked; unknown fields are ignored.
    """
    fields = expect_object(value, label)
    media_type = fields.get_only("mediaType")
    if media_type is None:
        media_type = ""
    if not isinstance(media_type, str):
        raise DocumentError("malformed", f"the media type of {label} is {describe(media_type)}")
    return Descriptor(
        media_type,
        _digest(fields.get_only("digest"), label),
        _size(fields.get_only("size"), label),
        ref_name_of(fields),
        _platform(fields.get_only("platform")),
        _is_elsewhere(media_type, fields.get_only("urls")),
    )


def find_descriptors(value: Any) -> list[Descriptor]:
    """Return the possible descriptors in a JSON value of a document of unknown kind.

    Every object with a digest counts, whatever its other fields are. A repeated digest field gives
    one descriptor for each value.
    """
    if not isinstance(value, JsonObject):
        return []
    media_type = next(
        (t for t in reversed(value.all_values("mediaType")) if isinstance(t, str)), ""
    )
    sizes = [n for n in value.all_values("size") if type(n) is int and n >= 0]
    platforms = value.all_values("platform")
    return [
        Descriptor(
            media_type,
            digest,
            sizes[-1] if sizes else None,
            platform=_platform(platforms[-1]) if platforms else None,
            elsewhere=_is_elsewhere(media_type, *value.all_values("urls")),
        )
        for digest in find_digests(value, "digest")
    ]


def find_digests(value: Any, field: str) -> list[Digest]:
    """Return each valid digest in a field of an object; none if the value is not an object."""
    digests = []
    for text in value.all_values(field) if isinstance(value, JsonObject) else ():
        with suppress(ValueError):
            digests.append(parse_digest(text))
    return digests


def retarget(item: dict[str, Any], digest: Digest, size: int) -> dict[str, Any]:
    """Return a descriptor that references another blob; the embedded data is removed."""
    return {**drop_field(item, "data"), "digest": str(digest), "size": size}


def ref_name_of(fields: JsonObject) -> str | None:
    """Return the ref name in a descriptor's annotations, None if there is none."""
    return annotation_of(fields, REF_NAME)


def annotation_of(fields: JsonObject, name: str) -> str | None:
    """Return an annotation of a descriptor, None if it is absent or not text."""
    maps = [a for a in fields.all_values("annotations") if isinstance(a, JsonObject)]
    value = maps[-1].get_exact(name) if maps else None
    return value if isinstance(value, str) else None


def _is_elsewhere(media_type: str, *urls: Any) -> bool:
    return any(urls) or "nondistributable" in media_type or "rootfs.foreign" in media_type


def _digest(value: Any, label: str) -> Digest:
    try:
        return parse_digest(value)
    except ValueError as error:
        raise DocumentError("malformed", f"the digest of {label}: {error}") from None


def _size(value: Any, label: str) -> int:
    if type(value) is not int:
        raise DocumentError("malformed", f"the size of {label} is {describe(value)}")
    if value < 0:
        raise DocumentError("malformed", f"the size of {label} is negative")
    return value


def _platform(value: Any) -> str | None:
    if not isinstance(value, JsonObject):
        return None
    parts = [value.all_values(name)[-1:] for name in ("os", "architecture", "variant")]
    words = [part[0] for part in parts if part and isinstance(part[0], str) and part[0]]
    return "/".join(words) or None
