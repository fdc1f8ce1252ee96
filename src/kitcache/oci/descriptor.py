"""Descriptors: a reading of the JSON that points at a blob. What is written back is that JSON.

Source: OCI image-spec, descriptor.md; annotations.md for the ref name.
"""

from contextlib import suppress
from typing import Any, NamedTuple

from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import DocumentError, JsonObject, describe, drop_field, expect_object

REF_NAME = "org.opencontainers.image.ref.name"


class Descriptor(NamedTuple):
    """Where a blob is, what it is, how long it is.

    media_type: "" where absent. size: bytes, None where the format has no field for it (a
    cacheconfig's layers). ref_name: the tag, on an entry of an index. platform: os/arch[/variant].
    elsewhere: the blob may rightly be missing here, since its bytes are found at a URL.
    """

    media_type: str
    digest: Digest
    size: int | None
    ref_name: str | None = None
    platform: str | None = None
    elsewhere: bool = False


def read_descriptor(value: Any, what: str = "a descriptor") -> Descriptor:
    """The descriptor that a JSON value is.

    Types are checked, unknown fields are ignored. Raises DocumentError (malformed, ambiguous).
    """
    fields = expect_object(value, what)
    media_type = fields.get_only("mediaType")
    if media_type is None:
        media_type = ""
    if not isinstance(media_type, str):
        raise DocumentError("malformed", f"the media type of {what} is {describe(media_type)}")
    return Descriptor(
        media_type,
        _digest(fields.get_only("digest"), what),
        _size(fields.get_only("size"), what),
        ref_name_of(fields),
        _platform(fields.get_only("platform")),
        _is_elsewhere(media_type, fields.get_only("urls")),
    )


def find_descriptors(value: Any) -> list[Descriptor]:
    """The descriptors that a JSON value may be: for documents whose kind nobody knows.

    Only an object that holds a digest counts; what else is odd about it does not. Given twice, a
    digest makes two of them.
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
    """Every digest that an object gives in that field; none where it is no object."""
    found = []
    for text in value.all_values(field) if isinstance(value, JsonObject) else ():
        with suppress(ValueError):
            found.append(parse_digest(text))
    return found


def retarget(item: dict[str, Any], digest: Digest, size: int) -> dict[str, Any]:
    """A descriptor as it was written, of another blob: its embedded data, of the old one, goes."""
    return {**drop_field(item, "data"), "digest": str(digest), "size": size}


def ref_name_of(fields: JsonObject) -> str | None:
    """The ref name among a descriptor's annotations, None where there is none."""
    found = [
        a.get_exact(REF_NAME) for a in fields.all_values("annotations") if isinstance(a, JsonObject)
    ]
    return found[-1] if found and isinstance(found[-1], str) else None


def _is_elsewhere(media_type: str, *urls: Any) -> bool:
    return any(urls) or "nondistributable" in media_type or "rootfs.foreign" in media_type


def _digest(value: Any, what: str) -> Digest:
    try:
        return parse_digest(value)
    except ValueError as error:
        raise DocumentError("malformed", f"the digest of {what}: {error}") from None


def _size(value: Any, what: str) -> int:
    if type(value) is not int:
        raise DocumentError("malformed", f"the size of {what} is {describe(value)}")
    if value < 0:
        raise DocumentError("malformed", f"the size of {what} is negative")
    return value


def _platform(value: Any) -> str | None:
    if not isinstance(value, JsonObject):
        return None
    parts = [value.all_values(name)[-1:] for name in ("os", "architecture", "variant")]
    words = [part[0] for part in parts if part and isinstance(part[0], str) and part[0]]
    return "/".join(words) or None
