"""index.json as a document: which entries it has, and the same document without some of them.

Source: OCI image-spec, image-layout.md and image-index.md. Fields that nobody here knows survive
a rewrite.
"""

import json
import math
from typing import Any, NamedTuple

from kitcache.oci.descriptor import REF_NAME, Descriptor, read_descriptor, ref_name_of
from kitcache.oci.document import (
    DocumentError,
    Members,
    expect_list,
    expect_object,
    read_document,
)

_INDEX_FIELDS = ("schemaVersion", "mediaType", "manifests", "subject", "annotations")
_ENTRY_FIELDS = ("mediaType", "digest", "size", "urls", "annotations", "platform")


class Entry(NamedTuple):
    """One entry of index.json. descriptor: None where it cannot be read; then problem says why.

    is_subject: it is no entry, but what the index itself is about.
    """

    ref_name: str | None
    descriptor: Descriptor | None
    problem: str = ""
    is_subject: bool = False


def read_entries(data: bytes) -> tuple[Entry, ...]:
    """The entries of index.json, in order; the subject of the index itself, if any, comes last.

    Raises DocumentError (not-json, too-nested, malformed, ambiguous) where it is no index, or where
    BuildKit would read other entries than a reader that minds case and duplicates. An entry that
    is itself malformed is returned with its problem.
    """
    document = expect_object(read_document(data, strict_utf8=True), "index.json")
    document.require_exact(_INDEX_FIELDS)
    if "manifests" not in document:
        raise DocumentError("malformed", "it has no field 'manifests'")
    items = expect_list(document.one("manifests"), "'manifests'")
    entries = [_entry(item, f"entry {n}") for n, item in enumerate(items)]
    subject = document.one("subject")
    if subject is not None:
        entries.append(_entry(subject, "the subject")._replace(is_subject=True))
    return tuple(entries)


def _entry(value: Any, what: str) -> Entry:
    try:
        fields = expect_object(value, what)
    except DocumentError as error:
        return Entry(None, None, str(error))
    fields.require_exact(_ENTRY_FIELDS)
    for annotations in fields.every("annotations"):
        if isinstance(annotations, Members) and len(annotations.get(REF_NAME, ())) > 1:
            raise DocumentError("ambiguous", f"{what} has the annotation {REF_NAME} twice")
    try:
        return Entry(ref_name_of(fields), read_descriptor(fields, what))
    except DocumentError as error:
        return Entry(ref_name_of(fields), None, str(error))


class Dropped(NamedTuple):
    """An entry that was taken out. digest: as it was written, None where it was no text."""

    ref_name: str | None
    digest: str | None


def drop_entries(data: bytes, names: tuple[str, ...]) -> tuple[bytes, tuple[Dropped, ...]]:
    """The document without each entry whose ref name or whole digest is one of these names.

    Everything else survives, unknown fields too. Raises DocumentError as read_entries does.
    """
    read_entries(data)
    document = json.loads(data, parse_float=_finite)
    seen = [(item, _seen(item)) for item in document["manifests"] or ()]
    document["manifests"] = [item for item, words in seen if not set(words) & set(names)]
    encoded = json.dumps(document, separators=(",", ":")).encode()
    return encoded, tuple(words for _, words in seen if set(words) & set(names))


def _seen(item: Any) -> Dropped:
    if not isinstance(item, dict):
        return Dropped(None, None)
    annotations = item.get("annotations")
    ref_name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    digest = item.get("digest")
    return Dropped(
        ref_name if isinstance(ref_name, str) else None, digest if isinstance(digest, str) else None
    )


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise DocumentError("malformed", f"the number {text[:40]} cannot be written back")
    return number
