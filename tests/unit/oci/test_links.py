"""oci/links.py: the switch. Each media type, and what each kind of document points at."""

import hashlib
import json
from typing import Any

import pytest

from kitcache.oci.document import DocumentError
from kitcache.oci.links import (
    BARE_LAYER,
    CACHECONFIG,
    BlobKind,
    can_be_json,
    kind_in_place,
    kind_of,
    read_links,
)

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."


def name(word: str) -> str:
    return f"sha256:{hashlib.sha256(word.encode()).hexdigest()}"


def pointer(word: str, media_type: str = "application/x-thing") -> dict[str, Any]:
    return {"mediaType": media_type, "digest": name(word), "size": len(word)}


def links(kind: BlobKind | None, value: Any) -> list[tuple[str, str]]:
    """(digest, role) of each link in that document."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return [(str(link.descriptor.digest), link.role) for link in read_links(kind, data)]


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        (OCI + "index.v1+json", "index"),
        (DOCKER + "distribution.manifest.list.v2+json", "index"),
        (OCI + "manifest.v1+json", "manifest"),
        ("application/vnd.oci.artifact.manifest.v1+json", "manifest"),
        (DOCKER + "distribution.manifest.v2+json", "manifest"),
        (DOCKER + "distribution.manifest.v1+json", "manifest"),
        (DOCKER + "distribution.manifest.v1+prettyjws", "manifest"),
        (CACHECONFIG, "cacheconfig"),
        (OCI + "config.v1+json", "leaf"),
        (DOCKER + "container.image.v1+json", "leaf"),
        ("application/vnd.oci.empty.v1+json", "leaf"),
        (OCI + "layer.v1.tar", "leaf"),
        (OCI + "layer.v1.tar+gzip", "leaf"),
        (OCI + "layer.v1.tar+zstd", "leaf"),
        (OCI + "layer.v1.tar+gzip+encrypted", "leaf"),
        (OCI + "layer.nondistributable.v1.tar+gzip", "leaf"),
        (DOCKER + "image.rootfs.diff.tar.gzip", "leaf"),
        (DOCKER + "image.rootfs.foreign.diff.tar.gzip", "leaf"),
        ("", None),
        ("application/json", None),
        ("application/octet-stream", None),
        ("application/vnd.in-toto+json", None),
        ("application/vnd.buildkit.cacheconfig.v1", None),
        ((OCI + "manifest.v1+json").upper(), "manifest"),
        (OCI + "manifest.v1+json; charset=utf-8", "manifest"),
        (OCI + "manifest.v2+json", None),
    ],
)
def test_what_a_media_type_names(media_type: str, kind: BlobKind | None) -> None:
    assert kind_of(media_type) == kind


def test_an_index_points_at_manifests() -> None:
    document = {"manifests": [pointer("a"), pointer("b")]}
    assert links("index", document) == [(name("a"), "manifest"), (name("b"), "manifest")]


def test_an_entry_plays_the_part_of_what_it_is() -> None:
    """BuildKit's image-manifest=false lists layers and the cacheconfig as entries of an index."""
    document = {
        "manifests": [
            pointer("layer", OCI + "layer.v1.tar+gzip"),
            pointer("cacheconfig", CACHECONFIG),
            pointer("manifest", OCI + "manifest.v1+json"),
        ]
    }
    assert links("index", document) == [
        (name("layer"), "layer"),
        (name("cacheconfig"), "config"),
        (name("manifest"), "manifest"),
    ]


@pytest.mark.parametrize("kind", ["index", None])
@pytest.mark.parametrize("like", [CACHECONFIG.upper(), CACHECONFIG + "; charset=utf-8"])
def test_what_only_resembles_a_cacheconfig_makes_no_layer_of_an_entry(
    kind: BlobKind | None, like: str
) -> None:
    """BuildKit compares the whole text, finds no cacheconfig, and looks into each entry."""
    document = {
        "manifests": [pointer("entry", OCI + "layer.v1.tar+gzip"), pointer("like", like)],
        "layers": [pointer("cacheconfig", CACHECONFIG)],
    }
    assert (name("entry"), "manifest") in links(kind, document)


def test_a_cacheconfig_of_another_list_of_manifests_makes_no_layer_either() -> None:
    """Of a key that is there twice Go takes the last: a list without a cacheconfig."""
    first = json.dumps([pointer("cacheconfig", CACHECONFIG)])
    last = json.dumps([pointer("entry", OCI + "layer.v1.tar+gzip")])
    data = f'{{"manifests":{first},"manifests":{last}}}'.encode()
    assert (name("entry"), "manifest") in links("index", data)


def test_a_manifest_points_at_layers_and_config() -> None:
    document = {"config": pointer("config"), "layers": [pointer("a"), pointer("b")]}
    assert links("manifest", document) == [
        (name("a"), "layer"),
        (name("b"), "layer"),
        (name("config"), "config"),
    ]


def test_an_artifact_manifest_points_at_blobs() -> None:
    assert links("manifest", {"blobs": [pointer("a")]}) == [(name("a"), "blob")]


@pytest.mark.parametrize("kind", ["index", "manifest"])
def test_the_subject_is_followed(kind: BlobKind) -> None:
    assert links(kind, {"subject": pointer("image")}) == [(name("image"), "subject")]


@pytest.mark.parametrize("kind", ["index", "manifest"])
def test_every_container_field_counts_whichever_kind_it_says_it_is(kind: BlobKind) -> None:
    document = {
        "manifests": [pointer("m")],
        "layers": [pointer("l")],
        "blobs": [pointer("b")],
        "config": pointer("c"),
        "subject": pointer("s"),
        "fsLayers": [{"blobSum": name("f")}],
    }
    assert links(kind, document) == [
        (name("m"), "manifest"),
        (name("l"), "layer"),
        (name("b"), "blob"),
        (name("c"), "config"),
        (name("s"), "subject"),
        (name("f"), "layer"),
    ]


def test_a_schema_1_manifest_names_layers_by_digest_alone() -> None:
    document = {"schemaVersion": 1, "fsLayers": [{"blobSum": name("a")}, {"blobSum": name("b")}]}
    (first, second) = read_links("manifest", json.dumps(document).encode())
    assert (first.descriptor.size, second.descriptor.size) == (None, None)
    assert [kind_of(link.descriptor.media_type) for link in (first, second)] == ["leaf", "leaf"]
    assert [str(first.descriptor.digest), str(second.descriptor.digest)] == [name("a"), name("b")]


def test_a_cacheconfig_points_at_its_layers_blobs_and_at_nothing_else() -> None:
    document = {
        "layers": [{"blob": name("a"), "parent": -1}, {"blob": name("b"), "parent": 0}],
        "records": [{"digest": name("a step, no blob")}],
    }
    assert links("cacheconfig", document) == [(name("a"), "layer"), (name("b"), "layer")]


@pytest.mark.parametrize("more", [{}, {"config": pointer("c")}])
def test_another_document_that_calls_itself_a_cacheconfig_is_looked_into(
    more: dict[str, object],
) -> None:
    document = {"layers": [pointer("a"), {"blob": name("b")}], **more}
    found = {(name("a"), "layer"), (name("b"), "layer")} | {(name("c"), "config") for _ in more}
    assert set(links("cacheconfig", document)) == found


LAYER = OCI + "layer.v1.tar+gzip"


@pytest.mark.parametrize(
    ("annotations", "media_type", "size"),
    [
        ({"mediaType": LAYER, "size": 102, "diffID": name("d")}, LAYER, 102),
        ({"mediaType": LAYER, "size": 0}, LAYER, None),
        ({"mediaType": LAYER, "size": "102"}, LAYER, None),
        ({"mediaType": OCI + "manifest.v1+json", "size": 7}, BARE_LAYER, 7),
        ({"mediaType": 7}, BARE_LAYER, None),
        ({}, BARE_LAYER, None),
        ("text", BARE_LAYER, None),
        (None, BARE_LAYER, None),
    ],
)
def test_the_annotations_of_a_cacheconfigs_layer_have_its_type_and_size(
    annotations: Any, media_type: str, size: int | None
) -> None:
    """Object stores have them. Whatever they say, it stays a layer: nothing is read below it."""
    layer = {"blob": name("a"), "parent": -1, "annotations": annotations}
    (link,) = read_links("cacheconfig", json.dumps({"layers": [layer]}).encode())
    described = link.descriptor
    assert (described.media_type, described.size, link.role) == (media_type, size, "layer")
    assert kind_in_place(link) == "leaf"


def test_a_cacheconfig_may_cache_nothing() -> None:
    assert links("cacheconfig", {}) == []
    assert links("cacheconfig", {"layers": None}) == []


def test_every_reading_of_a_duplicate_field_is_kept() -> None:
    first, second = json.dumps([pointer("a")]), json.dumps([pointer("b")])
    text = f'{{"layers": {first}, "Layers": {second}, "layer\u017f": null}}'
    assert links("manifest", text.encode()) == [(name("a"), "layer"), (name("b"), "layer")]


def test_lists_may_be_null() -> None:
    assert links("manifest", {"layers": None, "manifests": None, "config": None}) == []


def test_bytes_that_are_no_utf_8_do_not_hide_a_link() -> None:
    text = json.dumps({"layers": [pointer("a")], "annotations": {"x": "?"}})
    data = text.encode().replace(b"?", b"\xff")
    assert links("manifest", data) == [(name("a"), "layer")]


@pytest.mark.parametrize(
    ("kind", "value", "error_kind", "says"),
    [
        ("manifest", b"", "not-json", "not JSON"),
        ("manifest", b"\x00" * 40, "not-json", "not JSON"),
        ("manifest", b"[" * 200_000, "too-nested", "too deeply"),
        ("manifest", [], "malformed", "the manifest is a list"),
        ("index", None, "malformed", "the index is null"),
        ("cacheconfig", 7, "malformed", "the cacheconfig is a number"),
        ("index", {"manifests": {}}, "malformed", "manifests is an object, not a list"),
        ("index", {"manifests": [None]}, "malformed", r"manifests\[0\] is null"),
        ("manifest", {"layers": [pointer("a"), {}]}, "malformed", r"the digest of layers\[1\]"),
        ("manifest", {"config": "x"}, "malformed", "config is text"),
        ("manifest", {"subject": []}, "malformed", "subject is a list"),
        ("manifest", {"fsLayers": [None]}, "malformed", "an fsLayers entry is null"),
        ("manifest", {"fsLayers": [{"blobSum": "x"}]}, "malformed", "a layer's digest"),
        ("cacheconfig", {"layers": [{"blob": 7}]}, "malformed", "a layer's digest"),
        ("cacheconfig", {"layers": ["x"]}, "malformed", "a layer of the cacheconfig is text"),
    ],
)
def test_a_structural_blob_that_cannot_be_read(
    kind: BlobKind, value: Any, error_kind: str, says: str
) -> None:
    with pytest.raises(DocumentError, match=says) as caught:
        links(kind, value)
    assert caught.value.kind == error_kind


def test_a_leaf_is_not_even_parsed() -> None:
    assert links("leaf", b"[" * 200_000) == []
    assert links("leaf", {"layers": [pointer("a")]}) == []


def test_an_unknown_blob_is_looked_into() -> None:
    document = {
        "manifests": [pointer("m")],
        "layers": [pointer("l")],
        "blobs": [pointer("b")],
        "config": pointer("c"),
        "subject": pointer("s"),
        "fsLayers": [{"blobSum": name("f")}],
    }
    assert links(None, document) == [
        (name("m"), "manifest"),
        (name("l"), "layer"),
        (name("b"), "blob"),
        (name("c"), "config"),
        (name("s"), "subject"),
        (name("f"), "layer"),
    ]


def test_an_unknown_blob_may_be_a_cacheconfig() -> None:
    assert links(None, {"layers": [{"blob": name("a")}]}) == [(name("a"), "layer")]


def test_what_is_odd_in_an_unknown_blob_does_not_hide_what_is_sound() -> None:
    odd = ["x", None, {}, {"blob": 7}, {"blob": "no"}]
    assert links(None, {"layers": [*odd, {"blob": name("a")}]}) == [(name("a"), "layer")]
    odd = ["x", None, {}, {"blobSum": 7}, {"blobSum": "no"}]
    assert links(None, {"fsLayers": [*odd, {"blobSum": name("a")}]}) == [(name("a"), "layer")]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x1f\x8b\x08 gzip",
        b"{ not json",
        [pointer("a")],
        7,
        {"config": {"Env": ["PATH=/bin"]}, "rootfs": {"diff_ids": [name("a")]}},
        {"layers": "many"},
        {"layers": [7, None, "x", {}]},
        {"manifests": {"digest": name("a")}},
        {"fsLayers": [{"blobSum": "no"}]},
        {"digest": name("a")},
    ],
)
def test_an_unknown_blob_without_references_is_a_leaf(value: Any) -> None:
    assert links(None, value) == []


@pytest.mark.parametrize("rest", [b"\n\0", b"x", b" {}"])
def test_an_object_is_looked_into_whatever_follows_it(rest: bytes) -> None:
    """Readers of streams pass over it."""
    data = b" " + json.dumps({"layers": [pointer("a")]}).encode() + rest
    assert links(None, data) == [(name("a"), "layer")]


def test_an_unknown_blob_nested_too_deeply_to_tell_is_no_leaf() -> None:
    with pytest.raises(DocumentError, match="too deeply"):
        links(None, b'{"layers":' + b"[" * 200_000)


@pytest.mark.parametrize(
    ("head", "can"),
    [
        (b"{", True),
        (b" \t\r\n{", True),
        (b"", True),
        (b"  ", True),
        (b"[", False),
        (b"\x00", False),
        (b"\x1f\x8b", False),
        (b"\xef\xbb\xbf{", False),
        (b"x{", False),
    ],
)
def test_the_first_byte_decides_whether_it_can_be_json(head: bytes, can: bool) -> None:
    assert can_be_json(head) is can
