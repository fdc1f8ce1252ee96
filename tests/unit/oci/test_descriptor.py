"""oci/descriptor.py: the strict reading of a descriptor, and the lenient glance."""

import hashlib
import json
from typing import Any

import pytest

from kitcache.oci.descriptor import (
    REF_NAME,
    Descriptor,
    find_descriptors,
    read_descriptor,
    ref_name_of,
)
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError, read_document

HEX = hashlib.sha256(b"blob").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
LAYER = "application/vnd.oci.image.layer.v1.tar"
SOUND = {"mediaType": LAYER, "digest": f"sha256:{HEX}", "size": 4}


def members(value: Any) -> Any:
    return read_document(json.dumps(value).encode())


def read(**changes: Any) -> Descriptor:
    return read_descriptor(members(SOUND | changes), "layer 3")


def test_the_three_fields() -> None:
    assert read() == Descriptor(LAYER, Digest("sha256", HEX), 4)


def test_unknown_fields_are_ignored() -> None:
    assert read(data="AAAA", artifactType=7, x=[{"digest": "no"}]) == read()


def test_the_media_type_may_be_absent() -> None:
    assert read(mediaType=None).media_type == ""
    bare = {key: value for key, value in SOUND.items() if key != "mediaType"}
    assert read_descriptor(members(bare)).media_type == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mediaType": 7}, "the media type of layer 3 is a number"),
        ({"digest": None}, "the digest of layer 3: a digest must be text"),
        ({"digest": f"sha256:{HEX[:-1]}"}, "the digest of layer 3: .*64 lower-case digits"),
        ({"size": None}, "the size of layer 3 is null"),
        ({"size": "4"}, "the size of layer 3 is text"),
        ({"size": 4.0}, "the size of layer 3 is a number"),
        ({"size": True}, "the size of layer 3 is a boolean"),
        ({"size": -1}, "the size of layer 3 is negative"),
    ],
)
def test_types_and_sizes_are_checked(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DocumentError, match=says) as caught:
        read(**changes)
    assert caught.value.kind == "malformed"


@pytest.mark.parametrize("value", [None, [], "sha256:00", 7])
def test_a_descriptor_is_an_object(value: object) -> None:
    with pytest.raises(DocumentError, match=r"layer 3 is .*, not an object"):
        read_descriptor(members(value), "layer 3")


def test_a_digest_given_twice_is_ambiguous() -> None:
    text = f'{{"mediaType": "", "digest": "sha256:{HEX}", "Digest": "sha256:{OTHER}", "size": 4}}'
    with pytest.raises(DocumentError, match="'digest' occurs 2 times") as caught:
        read_descriptor(read_document(text.encode()))
    assert caught.value.kind == "ambiguous"


@pytest.mark.parametrize(
    ("annotations", "ref_name"),
    [
        ({REF_NAME: "main"}, "main"),
        ({REF_NAME: ""}, ""),
        ({REF_NAME: 7}, None),
        ({REF_NAME.upper(): "main"}, None),
        ({}, None),
        (None, None),
        ("main", None),
    ],
)
def test_the_ref_name_is_an_annotation(annotations: object, ref_name: str | None) -> None:
    assert read(annotations=annotations).ref_name == ref_name
    assert ref_name_of(members(SOUND | {"annotations": annotations})) == ref_name


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        ({"os": "linux", "architecture": "arm64"}, "linux/arm64"),
        ({"variant": "v7", "architecture": "arm", "os": "linux"}, "linux/arm/v7"),
        ({"os": "linux"}, "linux"),
        ({"os": 7, "architecture": "arm64"}, "arm64"),
        ({"OS": "linux", "Architecture": "arm64"}, "linux/arm64"),
        ({"os": "", "architecture": ""}, None),
        ({}, None),
        ("linux/arm64", None),
    ],
)
def test_the_platform_in_one_word(platform: object, words: str | None) -> None:
    assert read(platform=platform).platform == words


@pytest.mark.parametrize(
    ("changes", "elsewhere"),
    [
        ({}, False),
        ({"urls": []}, False),
        ({"urls": ["https://example.com/layer"]}, True),
        ({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}, True),
        ({"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"}, True),
    ],
)
def test_what_may_rightly_be_missing_here(changes: dict[str, Any], elsewhere: bool) -> None:
    assert read(**changes).elsewhere is elsewhere


@pytest.mark.parametrize("value", [None, [], "x", 7, {}, {"digest": 7}, {"digest": "no"}])
def test_a_glance_sees_only_what_holds_a_digest(value: object) -> None:
    assert find_descriptors(members(value)) == []


def test_a_glance_forgives_all_that_is_odd_beside_the_digest() -> None:
    odd = {"digest": f"sha256:{HEX}", "mediaType": 7, "size": "many", "platform": "x"}
    assert find_descriptors(members(odd)) == [Descriptor("", Digest("sha256", HEX), None)]


def test_a_glance_takes_what_is_sound() -> None:
    sound = SOUND | {"platform": {"os": "linux", "architecture": "s390x"}, "urls": ["https://x"]}
    wanted = Descriptor(LAYER, Digest("sha256", HEX), 4, None, "linux/s390x", elsewhere=True)
    assert find_descriptors(members(sound)) == [wanted]


def test_a_glance_takes_every_digest_among_duplicates() -> None:
    """Readers differ on which of them counts, so both are kept."""
    text = (
        f'{{"digest": 7, "Digest": "sha256:{HEX}", "DIGEST": "sha256:{OTHER}",'
        ' "size": -1, "SIZE": 4}'
    )
    assert find_descriptors(read_document(text.encode())) == [
        Descriptor("", Digest("sha256", HEX), 4),
        Descriptor("", Digest("sha256", OTHER), 4),
    ]
