"""oci/cachemanifest.py: both forms of a cache's root, read and made smaller."""

import json
from typing import Any

import pytest

from kitcache.oci.cachemanifest import UNCOMPRESSED, read_cache_manifest, trim_manifest
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError
from kitcache.oci.links import CACHECONFIG

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

Json = dict[str, Any]


def descriptor(number: int, media_type: str = LAYER, **more: Any) -> Json:
    return {"mediaType": media_type, "digest": f"sha256:{number:064x}", "size": 7, **more}


LAYERS = [descriptor(n, annotations={UNCOMPRESSED: f"sha256:{n + 50:064x}"}) for n in range(3)]
CONFIG = descriptor(9, CACHECONFIG)
AS_MANIFEST = {"schemaVersion": 2, "config": CONFIG, "layers": LAYERS, "new": {"a": 1}}
AS_INDEX = {"schemaVersion": 2, "manifests": [*LAYERS, CONFIG], "new": {"a": 1}}
SMALLER = Digest("sha256", f"{77:064x}")


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def digests(*numbers: int) -> set[Digest]:
    return {Digest("sha256", f"{n:064x}") for n in numbers}


@pytest.mark.parametrize("document", [AS_MANIFEST, AS_INDEX])
def test_both_forms_say_the_same(document: Json) -> None:
    found = read_cache_manifest(encode(document))
    assert found is not None
    assert found.config.digest.hex == f"{9:064x}"
    assert [int(layer.descriptor.digest.hex, 16) for layer in found.layers] == [0, 1, 2]
    assert found.layers[1].diff_id == f"sha256:{51:064x}"


def test_a_layer_may_lack_its_diff_id() -> None:
    bare = [descriptor(0), descriptor(1, annotations={UNCOMPRESSED: 7}), descriptor(2)]
    found = read_cache_manifest(encode({"config": CONFIG, "layers": bare}))
    assert found is not None
    assert [layer.diff_id for layer in found.layers] == [None, None, None]


@pytest.mark.parametrize(
    "document",
    [
        {"config": descriptor(1, "application/vnd.oci.image.config.v1+json"), "layers": LAYERS},
        {"manifests": [descriptor(1, "application/vnd.oci.image.manifest.v1+json")]},
        {"manifests": None, "config": None},
        {},
    ],
)
def test_what_is_no_cache(document: Json) -> None:
    assert read_cache_manifest(encode(document)) is None


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", encode({"config": CONFIG, "layers": [{}]}), encode({"Config": CONFIG})],
)
def test_what_cannot_be_read(data: bytes) -> None:
    with pytest.raises(DocumentError):
        read_cache_manifest(data)


def test_the_last_cacheconfig_of_an_index_counts() -> None:
    document = {"manifests": [CONFIG, LAYERS[0], descriptor(8, CACHECONFIG)]}
    found = read_cache_manifest(encode(document))
    assert found is not None
    assert int(found.config.digest.hex, 16) == 8
    after = json.loads(trim_manifest(encode(document), digests(0), SMALLER, 5))
    assert [item["digest"][-2:] for item in after["manifests"]] == ["00", "4d"]


def test_a_cut_of_a_manifest() -> None:
    after = json.loads(trim_manifest(encode(AS_MANIFEST), digests(0, 2), SMALLER, 5))
    config = {**CONFIG, "digest": str(SMALLER), "size": 5}
    assert after == {**AS_MANIFEST, "config": config, "layers": [LAYERS[0], LAYERS[2]]}


def test_a_cut_of_an_index() -> None:
    after = json.loads(trim_manifest(encode(AS_INDEX), digests(1), SMALLER, 5))
    config = {**CONFIG, "digest": str(SMALLER), "size": 5}
    assert after == {**AS_INDEX, "manifests": [LAYERS[1], config]}
