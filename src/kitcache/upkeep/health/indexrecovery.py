"""A lost index.json: which entries a new one is to have. Pure: bytes and values in, values out.

What becomes an entry is what the old file still names, what kitcache's notes know, what another
copy has a name for, and every root among the blobs that nobody names: a manifest or an index that
no other index contains.
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
_BAD_BEGINNINGS = 64
"""After so many braces that begin nothing readable, the old file is given up."""
_SHORT = 12
_NAMES = (REF_NAME, IMAGE_NAME)


class Document(NamedTuple):
    """A manifest or an index among the blobs: proven bytes, read.

    size: in bytes. written_ns: when its file was written, 0 if that is unknown.
    """

    media_type: str
    size: int
    links: tuple[Link, ...]
    written_ns: int = 0


class RecoveredEntry(NamedTuple):
    """An entry that the new index.json may have, as it would be written there.

    digest: of what it names. named_by: who knew its name.
    """

    item: Mapping[str, Any]
    digest: Digest
    named_by: Literal["index", "notes", "copy", "nobody"]

    @property
    def names(self) -> tuple[str | None, str | None]:
        """Its ref name and its image name."""
        return _names_of(self.item)


def read_root(data: bytes) -> Document | None:
    """A blob as what an entry can name; None where it is no manifest and no index.

    data: proven. One without a media type is judged by its fields.
    """
    try:
        fields = read_document(data)
        if not isinstance(fields, JsonObject):
            return None
        media_type = fields.get_only("mediaType")
        if media_type is None:
            media_type = _type_by_looking(fields)
        if not isinstance(media_type, str) or kind_of(media_type) not in ("index", "manifest"):
            return None
        return Document(media_type, len(data), read_links(kind_of(media_type), data))
    except Damaged:
        return None


def _type_by_looking(fields: JsonObject) -> str | None:
    config, layers = fields.get_only("config"), fields.get_only("layers")
    if isinstance(fields.get_only("manifests"), list):
        return INDEX_TYPE
    if isinstance(config, JsonObject) and config.get_only("digest") and isinstance(layers, list):
        return MANIFEST_TYPE
    return None


def choose_entries(
    old: bytes,
    noted: Mapping[str, str],
    others: Iterable[bytes],
    documents: Mapping[Digest, Document],
) -> tuple[RecoveredEntry, ...]:
    """Every entry that the new index.json may have, those of the old one as they were written.

    old: the bytes of the old index.json. noted: by tag, the digest that was exported last. others:
    index.json of other copies. documents: all manifests and indexes among the blobs. Of a name
    that several know counts what the first of them says, but where that is gone. A root that nobody
    named is called `recovered-` and the beginning of its hex; the newest of them comes first. What
    is returned may be damaged.
    """
    contained = {
        link.descriptor.digest
        for document in documents.values()
        for link in document.links
        if link.role != "subject"
    }
    # Two images may share a ref name, and two platforms of one all their names.
    chosen = list({(one.names, one.digest): one for one in glean_entries(old)}.values())
    for tag, text in noted.items():
        digest = _digest(text)
        rivals = [one for one in chosen if one.names[0] == tag]
        if digest is None or digest not in documents:
            continue
        if all(one.digest not in documents for one in rivals):
            chosen = [one for one in chosen if one not in rivals]
            chosen.append(_candidate(digest, documents[digest], tag, "notes"))
    named = {one.digest for one in chosen}
    for other in others:
        taken = {one.names for one in chosen}
        chosen += [
            gleaned._replace(named_by="copy")
            for gleaned in glean_entries(other)
            if gleaned.digest in documents.keys() - named and gleaned.names not in taken
        ]
    named = {one.digest for one in chosen}
    tags = {one.names[0] for one in chosen}
    unnamed = documents.keys() - contained - named
    # Tools that know no name of a tag take the first entry: it is the newest one.
    for digest in sorted(unnamed, key=lambda digest: (-documents[digest].written_ns, digest)):
        name = RECOVERED + digest.hex[:_SHORT]
        if name in tags:
            name = RECOVERED + digest.hex
        tags.add(name)
        chosen.append(_candidate(digest, documents[digest], name, "nobody"))
    return tuple(chosen)


def make_index(candidates: Iterable[RecoveredEntry]) -> bytes:
    """index.json with these entries, in this order."""
    document = {**read_plain(EMPTY_INDEX), "manifests": [one.item for one in candidates]}
    return json.dumps(document, separators=(",", ":")).encode()


def _candidate(
    digest: Digest, document: Document, tag: str, named_by: Literal["notes", "nobody"]
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
    """The entries with a name that can still be read in what is no index.json, in order."""
    for item in _objects_in(data.decode("utf-8", "replace")):
        listed = item.get("manifests")
        for entry in listed if isinstance(listed, list) else (item,):
            gleaned = _glean(entry) if isinstance(entry, dict) else None
            if gleaned is not None:
                yield gleaned


def _objects_in(text: str) -> Iterator[dict[str, Any]]:
    """Each JSON object that is whole and in no other one that is."""
    decoder = json.JSONDecoder(object_pairs_hook=keep_repeated)
    at, misses = text.find("{"), 0
    while at >= 0 and misses < _BAD_BEGINNINGS:
        try:
            value, at = decoder.raw_decode(text, at)
            yield value
        except (ValueError, RecursionError):
            misses += 1
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
    given = annotations if isinstance(annotations, dict) else {}
    ref_name, image_name = map(given.get, _NAMES)
    return (
        ref_name if isinstance(ref_name, str) else None,
        image_name if isinstance(image_name, str) else None,
    )


def _is_readable(item: Mapping[str, Any]) -> bool:
    """Whether it can stand in an index.json as it is."""
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
    """index.json where entries have their blobs' sizes, and the positions of those corrected.

    size_of: the length of a blob that is there and proven, None where it is not. What cannot be
    read even then stays as it is. data has been read by read_entries without error.
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
