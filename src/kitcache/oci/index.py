"""index.json as a document: which entries it has, and the same document without some of them.

Source: OCI image-spec, image-layout.md and image-index.md. Fields that nobody here knows survive
a rewrite.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from kitcache.oci.descriptor import REF_NAME, Descriptor, read_descriptor, ref_name_of, retarget
from kitcache.oci.digest import Digest
from kitcache.oci.document import (
    DocumentError,
    JsonObject,
    expect_list,
    expect_object,
    read_document,
    read_plain,
)

_INDEX_FIELDS = ("schemaVersion", "mediaType", "manifests", "subject", "annotations")
_ENTRY_FIELDS = ("mediaType", "digest", "size", "urls", "annotations", "platform")
_UNREADABLE_LIMIT = 1000
"""Each entry that cannot be read is kept with its problem: a million would take 430 MB."""

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
IMAGE_NAME = "io.containerd.image.name"
EMPTY_INDEX = json.dumps(
    {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}, separators=(",", ":")
).encode()
"""An index.json without entries, as BuildKit would begin it."""


class IndexEntry(NamedTuple):
    """One entry of index.json. descriptor: None where it cannot be read; then problem says why.

    is_subject: it is no entry, but what the index itself is about, and has no name. image_name:
    containerd's annotation, which BuildKit looks a tag up by before the ref name.
    """

    ref_name: str | None
    descriptor: Descriptor | None
    problem: str = ""
    is_subject: bool = False
    image_name: str | None = None


@lru_cache(maxsize=2)
def read_entries(data: bytes) -> tuple[IndexEntry, ...]:
    """The entries of index.json, in order; the subject of the index itself, if any, comes last.

    Raises DocumentError (not-json, too-nested, malformed, ambiguous) where it is no index, or where
    BuildKit would read other entries than a reader that minds case and duplicates. An entry that
    is itself malformed is returned with its problem; more than 1,000 of them make it no index.

    A command reads the same index up to five times, which took half its time with 60,000 entries:
    what was read last is remembered.
    """
    document = expect_object(read_document(data, strict_utf8=True), "index.json")
    document.check_spelling(_INDEX_FIELDS)
    if "manifests" not in document:
        raise DocumentError("malformed", "it has no field 'manifests'")
    items = expect_list(document.get_only("manifests"), "'manifests'")
    entries = list(_entries(items))
    subject = document.get_only("subject")
    if subject is not None:
        # Whatever its annotations say: no client looks it up by a name, and no edit reaches it.
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


def _entry(value: Any, what: str) -> IndexEntry:
    try:
        fields = expect_object(value, what)
    except DocumentError as error:
        return IndexEntry(None, None, error.reason)
    fields.check_spelling(_ENTRY_FIELDS)
    for annotations in fields.all_values("annotations"):
        if isinstance(annotations, JsonObject) and len(annotations.get(REF_NAME, ())) > 1:
            raise DocumentError("ambiguous", f"{what} has the annotation {REF_NAME} twice")
    entry = IndexEntry(ref_name_of(fields), None, image_name=_image_name_of(fields))
    try:
        return entry._replace(descriptor=read_descriptor(fields, what))
    except DocumentError as error:
        return entry._replace(problem=error.reason)


def _image_name_of(fields: JsonObject) -> str | None:
    found = [
        a.get_exact(IMAGE_NAME)
        for a in fields.all_values("annotations")
        if isinstance(a, JsonObject)
    ]
    return found[-1] if found and isinstance(found[-1], str) else None


def find_entry(entries: tuple[IndexEntry, ...], tag: str) -> IndexEntry | None:
    """The entry that BuildKit imports for a tag: by image name, then by ref name, the first one.

    Source: BuildKit, client/ociindex, Get.
    """
    real = [entry for entry in entries if not entry.is_subject]
    by_image_name = (entry for entry in real if entry.image_name == tag)
    by_ref_name = (entry for entry in real if entry.ref_name == tag)
    return next(by_image_name, None) or next(by_ref_name, None)


class RemovedEntry(NamedTuple):
    """An entry that was taken out. digest: as it was written, None where it was no text."""

    ref_name: str | None
    digest: str | None


def list_names(data: bytes) -> tuple[RemovedEntry, ...]:
    """The ref name and the digest of each entry, as drop_entries finds them.

    Raises DocumentError as read_entries does.
    """
    read_entries(data)
    return tuple(_seen(item) for item in read_plain(data)["manifests"] or ())


def remove_entries(data: bytes, names: Collection[str]) -> tuple[bytes, tuple[RemovedEntry, ...]]:
    """The document without each entry whose ref name or whole digest is one of these names.

    Everything else survives, unknown fields too. Raises DocumentError as read_entries does.
    """
    read_entries(data)
    document = read_plain(data)
    seen = [(item, _seen(item)) for item in document["manifests"] or ()]
    wanted = frozenset(names)
    document["manifests"] = [item for item, words in seen if wanted.isdisjoint(words)]
    encoded = json.dumps(document, separators=(",", ":")).encode()
    return encoded, tuple(words for _, words in seen if not wanted.isdisjoint(words))


class NewEntry(NamedTuple):
    """An entry to be put into index.json: a blob, and the names that it goes by.

    image_name: containerd's annotation, for images; None for a cache's tag.
    """

    media_type: str
    digest: str
    size: int
    ref_name: str
    image_name: str | None = None


def add_entries(data: bytes | None, entries: tuple[NewEntry, ...]) -> bytes:
    """The document with these entries, each in place of those that went by its name.

    data: None where there is no index.json yet. As in BuildKit (client/ociindex, Put) an entry
    without an image name replaces all that have its ref name and no image name, one with an image
    name all that have that; new ones come last. An entry that is there already, alone, stays where
    it is; where all are, the bytes are the same. Everything else survives, unknown fields too.
    Raises DocumentError as read_entries does.
    """
    if data is None:
        data = EMPTY_INDEX
    read_entries(data)
    document = read_plain(data)
    before = document["manifests"] or []
    after = list(before)
    for entry in entries:
        item = _item_of(entry)
        rivals = [other for other in after if _is_rival(other, entry)]
        if rivals != [item]:
            after = [other for other in after if not _is_rival(other, entry)] + [item]
    if after == before:
        return data
    document["manifests"] = after
    return json.dumps(document, separators=(",", ":")).encode()


def edit_entries(
    data: bytes,
    *,
    remove: Collection[int] = (),
    move: Mapping[int, tuple[Digest, int]] | None = None,
) -> bytes:
    """The document without some entries, and with others moved to another blob.

    Entries go by their position, from 0. move: the digest and size that an entry gets; all else
    in it stays, but for data of the old blob. Everything else survives, unknown fields too. Raises
    DocumentError as read_entries does, IndexError for a position that is not there.
    """
    read_entries(data)
    document = read_plain(data)
    items = document["manifests"] or []
    for position, (digest, size) in (move or {}).items():
        items[position] = retarget(items[position], digest, size)
    gone = frozenset(remove)
    document["manifests"] = [item for n, item in enumerate(items) if n not in gone]
    return json.dumps(document, separators=(",", ":")).encode()


class CopiedEntry(NamedTuple):
    """An entry of another index.json, or of the same one, that is to be here too.

    source: which of the documents; position: of the entry in it, from 0. ref_name: what it is to go
    by, None as it does there.
    """

    source: int
    position: int
    ref_name: str | None = None


def copy_entries(
    data: bytes | None, sources: Sequence[bytes], copies: Sequence[CopiedEntry]
) -> bytes:
    """The document with copies of entries, in place of all that go by one of their names.

    data: None where there is no index.json yet. Copies come last, in order, with all that their
    originals have; but one that is given a ref name loses its image name, which it no longer goes
    by. Everything else survives, unknown fields too. Raises DocumentError as read_entries does,
    IndexError for a position that is not there.
    """
    if data is None:
        data = EMPTY_INDEX
    read_entries(data)
    document = read_plain(data)
    originals = [read_plain(source)["manifests"] or [] for source in sources]
    new = [_named(originals[c.source][c.position], c.ref_name) for c in copies]
    names = {name for item in new for name in _names_of(item)}
    before = document["manifests"] or []
    document["manifests"] = [item for item in before if not names & _names_of(item)] + new
    return json.dumps(document, separators=(",", ":")).encode()


def _names_of(item: Any) -> set[tuple[str, str]]:
    """The ref name and the image name of an entry, each with what it is."""
    annotations = item.get("annotations") if isinstance(item, dict) else None
    given = annotations if isinstance(annotations, dict) else {}
    return {(key, given[key]) for key in (REF_NAME, IMAGE_NAME) if isinstance(given.get(key), str)}


def _named(item: dict[str, Any], ref_name: str | None) -> dict[str, Any]:
    if ref_name is None:
        return item
    # str: a repeated key equals nothing but itself.
    given = item.get("annotations") or {}
    others = {key: value for key, value in given.items() if str(key) != IMAGE_NAME}
    return {**item, "annotations": {**others, REF_NAME: ref_name}}


def _item_of(entry: NewEntry) -> dict[str, Any]:
    names = {REF_NAME: entry.ref_name}
    if entry.image_name is not None:
        names[IMAGE_NAME] = entry.image_name
    return {
        "mediaType": entry.media_type,
        "digest": entry.digest,
        "size": entry.size,
        "annotations": names,
    }


def _is_rival(item: Any, entry: NewEntry) -> bool:
    annotations = item.get("annotations") if isinstance(item, dict) else None
    if not isinstance(annotations, dict):
        return False
    if entry.image_name is not None:
        return bool(annotations.get(IMAGE_NAME) == entry.image_name)
    return IMAGE_NAME not in annotations and bool(annotations.get(REF_NAME) == entry.ref_name)


def _seen(item: Any) -> RemovedEntry:
    if not isinstance(item, dict):
        return RemovedEntry(None, None)
    annotations = item.get("annotations")
    ref_name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    digest = item.get("digest")
    return RemovedEntry(
        ref_name if isinstance(ref_name, str) else None, digest if isinstance(digest, str) else None
    )
