"""oci/cacheforms.py: the form of an object store and the form of a directory, with real caches."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kitcache.oci.cacheforms import to_directory_form, to_object_form
from kitcache.oci.cachemanifest import CREATED_AT, UNCOMPRESSED
from kitcache.oci.document import DocumentError
from kitcache.oci.links import CACHECONFIG

DATA = Path(__file__).parents[2] / "data"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
BLOB = f"sha256:{1:064x}"
DIFF_ID = f"sha256:{2:064x}"
TIME = "2026-11-29T17:23:31.09540601Z"
FACTS = {"mediaType": LAYER, "diffID": DIFF_ID, "size": 7, "createdAt": TIME}
ANNOTATIONS = {CREATED_AT: TIME, UNCOMPRESSED: DIFF_ID}

Json = dict[str, Any]


def exports(name: str) -> list[tuple[bytes, bytes]]:
    """The manifest and the cacheconfig of each tag of a packed cache."""
    with tarfile.open(DATA / "caches" / f"{name}.tar.gz") as archive:
        files = {
            Path(member.name).name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }
    documents = []
    for entry in json.loads(files["index.json"])["manifests"]:
        manifest = files[entry["digest"].partition(":")[2]]
        value = json.loads(manifest)
        listed = [value.get("config"), *value.get("manifests", ())]
        config = next(item for item in listed if item and item["mediaType"] == CACHECONFIG)
        documents.append((manifest, files[config["digest"].partition(":")[2]]))
    return documents


def object_roots() -> dict[str, bytes]:
    """The roots that BuildKit wrote to S3 and to Azure, by `<store>/<name>`."""
    with tarfile.open(DATA / "objects" / "fixture.tar.gz") as archive:
        files = {
            member.name.removeprefix("./"): file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }
    return {
        f"{store}/{item['key'].partition('manifests/')[2]}": files[f"{store}/{item['file']}"]
        for store in ("s3", "azblob")
        for item in json.loads(files[f"{store}/listing.json"])
        if "manifests/" in item["key"]
    }


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def root_with(**facts: Any) -> bytes:
    return encode({"layers": [{"blob": BLOB, "parent": -1, "annotations": {**FACTS, **facts}}]})


def export_with(
    annotations: Json | None, media_type: str = LAYER, blob: str = BLOB
) -> tuple[bytes, bytes]:
    layer = {"mediaType": media_type, "digest": blob, "size": 7, "annotations": annotations}
    config = {"mediaType": CACHECONFIG, "digest": BLOB, "size": 9}
    return (
        encode({"schemaVersion": 2, "config": config, "layers": [layer]}),
        encode({"layers": [{"blob": BLOB, "parent": -1}]}),
    )


@pytest.mark.parametrize("name", ["bk-max-latest", "bk-grow3", "bk-tags3", "bk-comp-gzip"])
def test_an_export_has_its_own_bytes_after_both_conversions(name: str) -> None:
    for manifest, config in exports(name):
        assert to_directory_form(to_object_form(manifest, config)) == (manifest, config)


def test_an_index_becomes_the_image_manifest_of_the_same_build() -> None:
    # One build was exported in both forms.
    (index,), (image_manifest,) = exports("bk-noimg-oci"), exports("bk-max-latest")
    assert index[0] != image_manifest[0]
    assert to_directory_form(to_object_form(*index)) == image_manifest


@pytest.mark.parametrize("name", list(object_roots()))
def test_a_root_of_an_object_store_has_its_own_bytes_after_both_conversions(name: str) -> None:
    root = object_roots()[name]
    assert to_object_form(*to_directory_form(root)) == root


def test_the_manifest_lists_a_layer_as_often_as_the_cacheconfig() -> None:
    manifest, config = to_directory_form(object_roots()["s3/main"])
    assert b"annotations" not in config
    listed = [layer["digest"] for layer in json.loads(manifest)["layers"]]
    assert listed == [layer["blob"] for layer in json.loads(config)["layers"]]
    assert len(listed) > len(set(listed))


def test_text_is_escaped_as_by_go() -> None:
    selector = "/a&<b>\u2028é\ud800"
    config = {"records": [{"digest": BLOB}, {"digest": BLOB, "inputs": [[{"selector": selector}]]}]}
    manifest, _ = export_with(ANNOTATIONS)
    written = to_object_form(manifest, encode(config))
    assert rb'"selector":"/a\u0026\u003cb\u003e\u2028' in written
    assert "é\ufffd".encode() in written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-29T17:23:31Z", "2026-11-29T17:23:31Z"),
        ("2026-11-29T17:23:31.120Z", "2026-11-29T17:23:31.12Z"),
        ("2026-11-29T00:30:00.5+01:00", "2026-11-28T23:30:00.5Z"),
        (None, "0001-01-01T00:00:00Z"),
    ],
)
def test_the_time_of_a_layer_is_in_utc(text: str | None, expected: str) -> None:
    annotations = {UNCOMPRESSED: DIFF_ID} | ({CREATED_AT: text} if text else {})
    root = to_object_form(*export_with(annotations))
    assert json.loads(root)["layers"][0]["annotations"] == {**FACTS, "createdAt": expected}
    back = json.loads(to_directory_form(root)[0])["layers"][0]["annotations"]
    assert back.get(CREATED_AT) == (expected if text else None)


def test_the_manifest_has_media_types_of_oci() -> None:
    docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    root = to_object_form(*export_with(ANNOTATIONS, docker))
    assert json.loads(root)["layers"][0]["annotations"]["mediaType"] == docker
    assert json.loads(to_directory_form(root)[0])["layers"][0]["mediaType"] == LAYER


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        (export_with({}), f"the layer {BLOB} has no annotation containerd.io/uncompressed"),
        (export_with(None), f"the layer {BLOB} has no annotation containerd.io/uncompressed"),
        (export_with({UNCOMPRESSED: "no"}), f"the diff ID of the layer {BLOB}"),
        (export_with({**ANNOTATIONS, CREATED_AT: "today"}), f"the time of the layer {BLOB}"),
        (export_with(ANNOTATIONS, blob=DIFF_ID), f"does not list the layer {BLOB}"),
        ((b'{"layers":[]}', b"{}"), "names no cacheconfig"),
        ((export_with(ANNOTATIONS)[0], b"{"), "not JSON"),
        ((export_with(ANNOTATIONS)[0], b'{"layers":[{"blob":7}]}'), "the blob of layer 0"),
    ],
)
def test_an_export_without_the_facts_is_not_converted(
    documents: tuple[bytes, bytes], problem: str
) -> None:
    with pytest.raises(DocumentError) as caught:
        to_object_form(*documents)
    assert problem in caught.value.reason


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        (encode({"layers": [{"blob": BLOB}]}), "has no media type"),
        (encode({"layers": [{"blob": BLOB, "annotations": None}]}), "has no media type"),
        (encode({"layers": [{"blob": BLOB, "annotations": 7}]}), "is a number, not an object"),
        (root_with(mediaType=""), "has no media type"),
        (root_with(mediaType=7), "'mediaType' of the annotations of layer 0 is a number"),
        (root_with(diffID=""), "has no diff ID"),
        (root_with(diffID="sha256:1"), "the diff ID of the layer"),
        (root_with(size=-1), "has no size"),
        (root_with(size="7"), "a number of the annotations of layer 0 is text"),
        (root_with(createdAt=7), "a time of the annotations of layer 0 is malformed"),
        (root_with(createdAt="9999-12-31T23:59:59-23:59"), "the time of the layer"),
        (b"[]", "the cacheconfig is a list"),
        (b"", "not JSON"),
    ],
)
def test_a_root_without_the_facts_is_not_converted(root: bytes, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        to_directory_form(root)
    assert problem in caught.value.reason


def test_unknown_fields_are_kept() -> None:
    root = encode({"layers": [{"blob": BLOB, "annotations": FACTS, "x": 1}], "y": [2]})
    manifest, config = to_directory_form(root)
    assert json.loads(config) == {"layers": [{"blob": BLOB, "x": 1}], "y": [2]}
    assert json.loads(to_object_form(manifest, config)) == json.loads(root)


def test_bytes_that_are_not_utf8_are_read_as_by_go() -> None:
    manifest, _ = export_with(ANNOTATIONS)
    config = b'{"records":[{"digest":"\xff"}]}'
    assert to_object_form(manifest, config) == '{"records":[{"digest":"\ufffd"}]}'.encode()
