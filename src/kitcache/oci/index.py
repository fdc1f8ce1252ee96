"""index.json as a document: its entries, and edits of them.

Every edit keeps unknown fields. Source: OCI image-spec, image-layout.md and image-index.md.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from kitcache.oci.descriptor import (
    REF_NAME,
    Descriptor,
    annotation_of,
    read_descriptor,
    ref_name_of,
    retarget,
)
from kitcache.oci.digest import Digest
from kitcache.oci.document import (
    DocumentError,
    JsonObject,
    encode_plain,
    expect_list,
    expect_object,
    read_document,
    read_plain,
)

_INDEX_FIELDS = ("schemaVersion", "mediaType", "manifests", "subject", "annotations")
_ENTRY_FIELDS = ("mediaType", "digest", "size", "urls", "annotations", "platform")
_UNREADABLE_LIMIT = 1000
"""Malformed entries are kept with their problems; a million would take 430 MB."""

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
IMAGE_NAME = "io.containerd.image.name"
EMPTY_INDEX = encode_plain({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []})
"""An index.json without entries, as BuildKit writes it first."""


class IndexEntry(NamedTuple):
    """An entry of index.json, or the subject of the index itself.

    Attributes:
        descriptor: None if the entry is malformed.
        problem: The fault of a malformed entry, else "".
        is_subject: It is not an entry but the subject of the index, and has no name.
        image_name: containerd's annotation. BuildKit looks up a tag by it before the ref name.
    """

    ref_name: str | None
    descriptor: Descriptor | None
    problem: str = ""
    is_subject: bool = False
    image_name: str | None = None


@lru_cache(maxsize=2)
def read_entries(data: bytes) -> tuple[IndexEntry, ...]:
    """Return the entries of index.json in order, then its subject if there is one.

    A malformed entry is returned with its problem. Raises DocumentError (not-json, too-nested,
    malformed, ambiguous) for other documents and for more than 1,000 malformed entries. A document
    is ambiguous, too, if a case-sensitive reader would read other entries than BuildKit.

    The last results are cached: a command reads the same index up to five times, which took half
    of its time with 60,000 entries.
    """
    document = expect_object(read_document(data, strict_utf8=True), "index.json")
    document.check_spelling(_INDEX_FIELDS)
    if "manifests" not in document:
        raise DocumentError("malformed", "it has no field 'manifests'")
    items = expect_list(document.get_only("manifests"), "'manifests'")
    entries = list(_entries(items))
    subject = document.get_only("subject")
    if subject is not None:
        # Clients do not look it up by name and edits do not change it, so its names are ignored.
        entries.append(
            _entry(subject, "the subject")._replace(is_subject=True, ref_name=None, image_name=None)
        )
    return tuple(entries)


def _entries(items: list[Any]) -> Iterator[IndexEntry]:
    unreadable = 0
    for n, item in enumerate(items):
        entry = _entry(item, f"entry {n}")
        unreadable += entry.descriptor is None
        if unreadable > _UNREADABLE_LIMIT:
            raise DocumentError(
                "malformed", f"more than {_UNREADABLE_LIMIT:,} of its entries cannot be read"
            )
        yield entry


def _entry(value: Any, label: str) -> IndexEntry:
    try:
        fields = expect_object(value, label)
    except DocumentError as error:
        return IndexEntry(None, None, error.reason)
    fields.check_spelling(_ENTRY_FIELDS)
    for annotations in fields.all_values("annotations"):
        if isinstance(annotations, JsonObject) and len(annotations.get(REF_NAME, ())) > 1:
            raise DocumentError("ambiguous", f"{label} has the annotation {REF_NAME} twice")
    entry = IndexEntry(ref_name_of(fields), None, image_name=annotation_of(fields, IMAGE_NAME))
    try:
        return entry._replace(descriptor=read_descriptor(fields, label))
    except DocumentError as error:
        return entry._replace(problem=error.reason)


def find_entry(entries: tuple[IndexEntry, ...], tag: str) -> IndexEntry | None:
    """Return the entry that BuildKit imports for a tag: the first by image name, else by ref name.

    Source: BuildKit, client/ociindex, Get.
    """
    real = [entry for entry in entries if not entry.is_subject]
    by_image_name = (entry for entry in real if entry.image_name == tag)
    by_ref_name = (entry for entry in real if entry.ref_name == tag)
    return next(by_image_name, None) or next(by_ref_name, None)


class RemovedEntry(NamedTuple):
    """The names of an entry as written; None for a name that is absent or not text."""

    ref_name: str | None
    digest: str | None


def list_names(data: bytes) -> tuple[RemovedEntry, ...]:
    """Return the ref name and the digest of each entry, as remove_entries compares them.

    Raises DocumentError as read_entries does.
    """
    return tuple(map(_written_names, _read_for_edit(data)[1]))


def remove_entries(data: bytes, names: Collection[str]) -> tuple[bytes, tuple[RemovedEntry, ...]]:
    """Return the document without the entries of these ref names or digests, and those entries.

    Raises DocumentError as read_entries does.
    """
    document, items = _read_for_edit(data)
    written = [_written_names(item) for item in items]
    wanted = frozenset(names)
    document["manifests"] = [
        item for item, entry in zip(items, written, strict=True) if wanted.isdisjoint(entry)
    ]
    removed = tuple(entry for entry in written if not wanted.isdisjoint(entry))
    return encode_plain(document), removed


def _read_for_edit(data: bytes | None) -> tuple[dict[str, Any], list[Any]]:
    """Return a document and its entries; an empty one for None. Raises DocumentError."""
    data = EMPTY_INDEX if data is None else data
    read_entries(data)
    document = read_plain(data)
    return document, document["manifests"] or []


class NewEntry(NamedTuple):
    """A new entry of index.json.

    Attributes:
        image_name: containerd's annotation for images; None for the tag of a cache.
    """

    media_type: str
    digest: str
    size: int
    ref_name: str
    image_name: str | None = None


def add_entries(data: bytes | None, entries: tuple[NewEntry, ...]) -> bytes:
    """Return the document with these entries; each replaces the entries of its name.

    An entry without an image name replaces all entries with its ref name and no image name. An
    entry with an image name replaces all entries with that image name. New entries are appended.
    An entry that equals the only one of its name keeps its place. If all do, the bytes are equal.
    Raises DocumentError as read_entries does. Source: BuildKit, client/ociindex, Put.

    Args:
        data: None if there is no index.json yet.
        entries: The new entries.
    """
    data = EMPTY_INDEX if data is None else data
    document, before = _read_for_edit(data)
    after = list(before)
    for entry in entries:
        names = {REF_NAME: entry.ref_name}
        if entry.image_name is not None:
            names[IMAGE_NAME] = entry.image_name
        item = {
            "mediaType": entry.media_type,
            "digest": entry.digest,
            "size": entry.size,
            "annotations": names,
        }
        rivals = [other for other in after if _is_rival(other, entry)]
        if rivals != [item]:
            after = [other for other in after if not _is_rival(other, entry)] + [item]
    if after == before:
        return data
    document["manifests"] = after
    return encode_plain(document)


def edit_entries(
    data: bytes,
    *,
    remove: Collection[int] = (),
    move: Mapping[int, tuple[Digest, int]] | None = None,
) -> bytes:
    """Return the document without some entries, and with others that reference another blob.

    Raises DocumentError as read_entries does, IndexError for a position that does not exist.

    Args:
        data: The document.
        remove: Positions of entries, from 0.
        move: By position, the new digest and size. Embedded data of the old blob is removed.
    """
    document, items = _read_for_edit(data)
    for position, (digest, size) in (move or {}).items():
        items[position] = retarget(items[position], digest, size)
    removed = frozenset(remove)
    document["manifests"] = [item for n, item in enumerate(items) if n not in removed]
    return encode_plain(document)


class CopiedEntry(NamedTuple):
    """A copy of an entry of some index.json.

    Attributes:
        source: The number of the document.
        position: Of the entry in that document, from 0.
        ref_name: The new ref name, None for that of the original.
    """

    source: int
    position: int
    ref_name: str | None = None


def copy_entries(
    data: bytes | None, sources: Sequence[bytes], copies: Sequence[CopiedEntry]
) -> bytes:
    """Return the document with copies of entries, which replace all entries of their names.

    Copies are appended in order and keep all fields; a copy with a new ref name loses its image
    name. Raises DocumentError as read_entries does, IndexError for a position that does not exist.

    Args:
        data: None if there is no index.json yet.
        sources: The documents with the originals.
        copies: The entries to copy.
    """
    document, before = _read_for_edit(data)
    originals = [read_plain(source)["manifests"] or [] for source in sources]
    new = [_renamed(originals[c.source][c.position], c.ref_name) for c in copies]
    names = {name for item in new for name in _names_of(item)}
    document["manifests"] = [item for item in before if not names & _names_of(item)] + new
    return encode_plain(document)


def _annotations_of(item: Any) -> dict[str, Any]:
    annotations = item.get("annotations") if isinstance(item, dict) else None
    return annotations if isinstance(annotations, dict) else {}


def _names_of(item: Any) -> set[tuple[str, str]]:
    """Return the ref name and the image name of an entry, each with its annotation."""
    names = _annotations_of(item)
    return {(key, names[key]) for key in (REF_NAME, IMAGE_NAME) if isinstance(names.get(key), str)}


def _renamed(item: dict[str, Any], ref_name: str | None) -> dict[str, Any]:
    if ref_name is None:
        return item
    # str(), because a RepeatedKey is equal only to itself.
    others = {k: v for k, v in _annotations_of(item).items() if str(k) != IMAGE_NAME}
    return {**item, "annotations": {**others, REF_NAME: ref_name}}


def _is_rival(item: Any, entry: NewEntry) -> bool:
    annotations = _annotations_of(item)
    if entry.image_name is not None:
        return bool(annotations.get(IMAGE_NAME) == entry.image_name)
    return IMAGE_NAME not in annotations and bool(annotations.get(REF_NAME) == entry.ref_name)


def _written_names(item: Any) -> RemovedEntry:
    ref_name = _annotations_of(item).get(REF_NAME)
    digest = item.get("digest") if isinstance(item, dict) else None
    return RemovedEntry(
        ref_name if isinstance(ref_name, str) else None, digest if isinstance(digest, str) else None
    )
