"""Fuzzes `kitcache.oci.links`: any bytes, read as any kind of blob.

Laws: nothing but DocumentError is raised; every link is a digest that is written in those
bytes; and whatever a strict reading of the format reaches is among the links.
"""

import json
import os
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kitcache.oci.digest import Digest, parse_digest
from kitcache.oci.document import DocumentError
from kitcache.oci.links import BlobKind, read_links

# KITCACHE_EXAMPLES makes them longer, as it does for the laws of tests/property.
thorough = settings(
    deadline=None,
    max_examples=int(os.environ.get("KITCACHE_EXAMPLES", "60")),
    suppress_health_check=[HealthCheck.too_slow],
)
KINDS: list[BlobKind | None] = ["index", "manifest", "cacheconfig", "leaf", None]
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
DIGESTS = st.one_of(
    HEX.map("sha256:{}".format),
    HEX.map("blake3:{}".format),
    st.text(max_size=80),
    st.sampled_from(["sha256:", "sha256:../../x", "sha256:" + "A" * 64, "sha512:" + "a" * 64]),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, st.text(max_size=20), DIGESTS)
FIELD_NAMES = (
    *("manifests", "layers", "blobs", "config", "subject", "fsLayers", "blobSum", "blob"),
    *("digest", "size", "mediaType", "platform", "os", "urls", "annotations", "records"),
    *("results", "Layers", "DIGEST", "layer\u017f", "manife\u017fts"),
)
FIELDS = st.sampled_from(FIELD_NAMES)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(FIELDS | st.text(max_size=4), inner, max_size=5),
    ),
    max_leaves=25,
)
GOOD = st.builds(
    lambda name, size, kind: {"mediaType": kind, "digest": f"sha256:{name}", "size": size},
    HEX,
    st.integers(0, 1 << 40),
    st.text(max_size=30),
)
GOOD_LISTS = st.lists(GOOD, max_size=4)
DOCUMENTS = st.fixed_dictionaries(
    {}, optional={"layers": GOOD_LISTS, "manifests": GOOD_LISTS, "config": GOOD, "subject": GOOD,
                  "blobs": GOOD_LISTS}
)  # fmt: skip
JUNK_FIELDS = st.dictionaries(st.text(min_size=12, max_size=14), VALUES, max_size=3)


def digests_in(value: Any) -> set[str]:
    """Every text in a JSON value that is a digest, wherever it stands."""
    if isinstance(value, dict):
        return digests_in(list(value.values()))
    if isinstance(value, list):
        return {digest for item in value for digest in digests_in(item)}
    try:
        return {str(parse_digest(value))}
    except ValueError:
        return set()


def attempt(kind: BlobKind | None, data: bytes) -> set[str]:
    try:
        return {str(link.descriptor.digest) for link in read_links(kind, data)}
    except DocumentError:
        return set()


@thorough
@given(st.sampled_from(KINDS), st.binary(max_size=200))
@example("index", b"[" * 100_000)
@example(None, b"[" * 100_000)
@example("manifest", b'{"layers":[{"digest":1}]}')
@example("manifest", b'{"size":' + b"9" * 5000 + b"}")
@example("cacheconfig", b'{"layers":[{"blob":null}]}')
@example(None, b"\xff\xfe{}")
def fuzz_bytes(kind: BlobKind | None, data: bytes) -> None:
    attempt(kind, data)


@thorough
@given(st.sampled_from(KINDS), VALUES)
def fuzz_json(kind: BlobKind | None, value: Any) -> None:
    """No digest is invented: each link is written in the document."""
    data = json.dumps(value).encode()
    assert attempt(kind, data) <= digests_in(json.loads(data))


@thorough
@given(st.sampled_from(["index", "manifest", None]), DOCUMENTS, JUNK_FIELDS)
def fuzz_sound_documents(
    kind: BlobKind | None, document: dict[str, Any], junk: dict[str, Any]
) -> None:
    """What a strict reader reaches is reached, whatever stands beside it: doubt keeps."""
    data = json.dumps(junk | document).encode()
    assert attempt(kind, data) >= digests_in(document)


@thorough
@given(st.sampled_from(["index", "manifest", None]), DOCUMENTS, st.data())
def fuzz_other_letters(
    kind: BlobKind | None, document: dict[str, Any], data: st.DataObject
) -> None:
    """What Go's decoder reaches is reached: it takes a field in any case."""
    respelled = {data.draw(st.sampled_from(spellings(k))): v for k, v in document.items()}
    links = attempt(kind, json.dumps(respelled).encode())
    assert links >= digests_in(document)


def spellings(field: str) -> list[str]:
    return [field, field.upper(), field.capitalize(), field.replace("s", "\u017f")]


@thorough
@given(st.text(max_size=140))
@example("sha256:" + "a" * 64)
@example("sha256:" + "a" * 63 + "\n")
@example("sha256:" + "\uff11" * 64)
@example("sha256:../" + "a" * 61)
def fuzz_digests(text: str) -> None:
    """A digest never holds what could lead out of its directory, and prints as it was read."""
    try:
        digest = parse_digest(text)
    except ValueError:
        return
    assert str(digest) == text
    assert isinstance(digest, Digest)
    assert not set(text) & set("/\\.\0\n ") - {"."}
    assert digest.hex not in ("", ".", "..")
    assert "/" not in digest.algorithm
