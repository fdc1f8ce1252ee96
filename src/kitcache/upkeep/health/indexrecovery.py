"""The entries of a rebuilt index.json. No I/O.

The sources are the readable parts of the old file, kitcache's records, the index.json of a copy,
and the roots among the blobs: manifests and indexes that no other index contains.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from kitcache.errors import Damaged
from kitcache.oci.descriptor import REF_NAME
from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import (
    JsonObject,
    keep_repeated,
    read_document,
    read_plain,
)
from kitcache.oci.index import (
    EMPTY_INDEX,
    IMAGE_NAME,
    INDEX_TYPE,
    edit_entries,
    read_entries,
)
from kitcache.oci.links import Link, kind_of, read_links
from kitcache.upkeep.results import RECOVERED

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_MAX_UNREADABLE = 64
"""After this many braces that do not begin a JSON object, the rest of the old file is skipped."""
_SHORT_DIGITS = 12
_NAMES = (REF_NAME, IMAGE_NAME)


class Document(NamedTuple):
    """A manifest or an index among the blobs.

    Attributes:
        size: In bytes.
        written_ns: When its file was written, 0 if unknown.
    """

    media_type: str
    size: int
    links: tuple[Link, ...]
    written_ns: int = 0


class RecoveredEntry(NamedTuple):
    """A possible entry of the rebuilt index.json.

    Attributes:
        item: The JSON object of the entry.
        digest: Of the root that it names.
        named_by: The source of its name.
    """

    item: Mapping[str, Any]
    digest: Digest
    named_by: Literal["index", "records", "copy", "unknown"]

    @property
    def names(self) -> tuple[str | None, str | None]:
        """The ref name and the image name."""
        return _names_of(self.item)


def read_root(data: bytes) -> Document | None:
    """Parse a blob as a root; return None if it is neither a manifest nor an index.

    Without a media type the fields decide. The bytes were verified.
    """
    try:
        fields = read_document(data)
        if not isinstance(fields, JsonObject):
            return None
        media_type = fields.get_only("mediaType")
        if media_type is None:
            media_type = _type_by_fields(fields)
        if not isinstance(media_type, str) or kind_of(media_type) not in ("index", "manifest"):
            return None
        return Document(media_type, len(data), read_links(kind_of(media_type), data))
    except Damaged:
        return None


def _type_by_fields(fields: JsonObject) -> str | None:
    config, layers = fields.get_only("config"), fields.get_only("layers")
    if isinstance(fields.get_only("manifests"), list):
        return INDEX_TYPE
    if isinstance(config, JsonObject) and config.get_only("digest") and isinstance(layers, list):
        return MANIFEST_TYPE
    return None


def choose_entries(
    old: bytes,
    recorded: Mapping[str, str],
    others: Iterable[bytes],
    documents: Mapping[Digest, Document],
) -> tuple[RecoveredEntry, ...]:
    """Return every possible entry of the rebuilt index.json. Entries of the old file are unchanged.

    If several sources have the same name, the first source whose root exists is used. A root
    without a name gets the name `recovered-` and its first hex digits; the newest root is first.
    The roots can be damaged.

    Args:
        old: The bytes of the old index.json.
        recorded: By tag, the digest that was exported last.
        others: The index.json of each other copy.
        documents: All manifests and indexes among the blobs.
    """
    contained = {
        link.descriptor.digest
        for document in documents.values()
        for link in document.links
        if link.role != "subject"
    }
    # Two images can share a ref name, and two platforms of one image share all names.
    chosen = list({(e.names, e.digest): e for e in glean_entries(old)}.values())
    for tag, text in recorded.items():
        digest = _digest(text)
        same_tag = [entry for entry in chosen if entry.names[0] == tag]
        if digest is None or digest not in documents:
            continue
        if all(entry.digest not in documents for entry in same_tag):
            chosen = [entry for entry in chosen if entry not in same_tag]
            chosen.append(_candidate(digest, documents[digest], tag, "records"))
    named = {entry.digest for entry in chosen}
    for other in others:
        taken = {entry.names for entry in chosen}
        chosen += [
            gleaned._replace(named_by="copy")
            for gleaned in glean_entries(other)
            if gleaned.digest in documents.keys() - named and gleaned.names not in taken
        ]
    named = {entry.digest for entry in chosen}
    tags = {entry.names[0] for entry in chosen}
    unnamed = documents.keys() - contained - named
    # Clients that get no tag use the first entry, so the newest root is first.
    for digest in sorted(unnamed, key=lambda digest: (-documents[digest].written_ns, digest)):
        name = RECOVERED + digest.hex[:_SHORT_DIGITS]
        if name in tags:
            name = RECOVERED + digest.hex
        tags.add(name)
        chosen.append(_candidate(digest, documents[digest], name, "unknown"))
    return tuple(chosen)


def make_index(candidates: Iterable[RecoveredEntry]) -> bytes:
    """Return index.json with these entries, in this order."""
    document = {**read_plain(EMPTY_INDEX), "manifests": [entry.item for entry in candidates]}
    return json.dumps(document, separators=(",", ":")).encode()


def _candidate(
    digest: Digest, document: Document, tag: str, named_by: Literal["records", "unknown"]
) -> RecoveredEntry:
    item = _item(document.media_type, digest, document.size, {REF_NAME: tag})
    return RecoveredEntry(item, digest, named_by)


def _item(
    media_type: str, digest: Digest, size: int, annotations: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "mediaType": media_type,
        "digest": str(digest),
        "size": size,
        "annotations": annotations,
    }


def glean_entries(data: bytes) -> Iterator[RecoveredEntry]:
    """Yield the readable entries of an invalid index.json that have a name, in order."""
    for item in _objects_in(data.decode("utf-8", "replace")):
        listed = item.get("manifests")
        for entry in listed if isinstance(listed, list) else (item,):
            gleaned = _glean(entry) if isinstance(entry, dict) else None
            if gleaned is not None:
                yield gleaned


def _objects_in(text: str) -> Iterator[dict[str, Any]]:
    """Yield each complete JSON object that is not inside another complete one."""
    decoder = json.JSONDecoder(object_pairs_hook=keep_repeated)
    at, unreadable = text.find("{"), 0
    while at >= 0 and unreadable < _MAX_UNREADABLE:
        try:
            value, at = decoder.raw_decode(text, at)
            yield value
        except (ValueError, RecursionError):
            unreadable += 1
            at += 1
        at = text.find("{", at)


def _glean(item: dict[str, Any]) -> RecoveredEntry | None:
    digest, names = _digest(item.get("digest")), _names_of(item)
    if digest is None or names == (None, None):
        return None
    if not _is_readable(item):
        media_type, size = item.get("mediaType"), item.get("size")
        item = _item(
            media_type if isinstance(media_type, str) else "",
            digest,
            size if type(size) is int and size >= 0 else 0,
            {key: name for key, name in zip(_NAMES, names, strict=True) if name is not None},
        )
    return RecoveredEntry(item, digest, "index")


def _names_of(item: Mapping[str, Any]) -> tuple[str | None, str | None]:
    annotations = item.get("annotations")
    texts = annotations if isinstance(annotations, dict) else {}
    ref_name, image_name = map(texts.get, _NAMES)
    return (
        ref_name if isinstance(ref_name, str) else None,
        image_name if isinstance(image_name, str) else None,
    )


def _is_readable(item: Mapping[str, Any]) -> bool:
    """Return True if index.json can contain the entry as it is."""
    try:
        (entry,) = read_entries(json.dumps({"manifests": [item]}).encode())
    except (Damaged, RecursionError):
        return False
    return entry.descriptor is not None


def _digest(text: object) -> Digest | None:
    try:
        return parse_digest(text)
    except ValueError:
        return None


def correct_sizes(
    data: bytes, size_of: Callable[[Digest], int | None]
) -> tuple[bytes, frozenset[int]]:
    """Return index.json with the right sizes of roots, and the positions of corrected entries.

    An entry that is still invalid with the right size is not changed.

    Args:
        data: The bytes of an index.json that read_entries accepts.
        size_of: Returns the length of an existing blob, None if there is none.
    """
    moves = {}
    for position, item in enumerate(read_plain(data)["manifests"] or ()):
        digest = _digest(item.get("digest")) if isinstance(item, dict) else None
        size = None if digest is None else size_of(digest)
        if digest is not None and size is not None and not _is_size(item.get("size"), size):
            moves[position] = (digest, size)
    entries = read_entries(edit_entries(data, move=moves)) if moves else ()
    readable = {n: to for n, to in moves.items() if entries[n].descriptor is not None}
    return (edit_entries(data, move=readable) if readable else data), frozenset(readable)


def _is_size(value: Any, size: int) -> bool:
    return type(value) is int and value == size
