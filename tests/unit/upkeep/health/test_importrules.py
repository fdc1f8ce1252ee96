"""health/importing.py: what BuildKit would make of a cache, without a disk."""

import json
from typing import Any

import pytest

from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES, read_cacheconfig
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.digest import parse_digest
from kitcache.oci.document import DocumentError, JsonObject, expect_object, read_document
from kitcache.upkeep.health.importrules import (
    BlobHealth,
    ImportCheck,
    check_bare_import,
    check_form,
    check_import,
    layer_faults,
)
from kitcache.upkeep.results import UnusableStep
from tests.hostile.build import CACHECONFIG, INDEX, LAYER, MANIFEST, Json, digest_of, encode
from tests.hostile.importable import UNCOMPRESSED, chain_of_steps

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DIGESTS = [parse_digest(digest_of(b"layer %d" % n)) for n in range(4)]
ALL = BlobHealth(DIGESTS, {})


def layers(count: int = 4, **changes: Any) -> list[Json]:
    return [
        {
            "mediaType": LAYER,
            "digest": str(digest),
            "size": 7,
            "annotations": {UNCOMPRESSED: digest_of(b"tar %d" % n)},
        }
        | changes
        for n, digest in enumerate(DIGESTS[:count])
    ]


def config_of(config: bytes) -> Json:
    return {"mediaType": CACHECONFIG, "digest": digest_of(config), "size": len(config)}


def manifest(listed: list[Json], config: bytes, **more: Any) -> bytes:
    body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config_of(config)}
    return encode(body | {"layers": listed} | more)


def index(listed: list[Json], config: bytes, **more: Any) -> bytes:
    body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed, config_of(config)]}
    return encode(body | more)


def members(document: Json) -> JsonObject:
    return expect_object(read_document(encode(document)), "the manifest")


def judge(
    listed: list[Json] | None = None, config: Json | None = None, store: BlobHealth = ALL
) -> ImportCheck:
    data = encode(chain_of_steps(layers()) if config is None else config)
    return check_import(manifest(layers() if listed is None else listed, data), data, store)


def bare(config: Json | None = None, **changes: Any) -> bytes:
    """As an object store has it. changes: Of the annotations of each layer; None removes one."""
    document = chain_of_steps(layers()) if config is None else config
    for n, each in enumerate(document["layers"]):
        stated = {"mediaType": LAYER, "size": 7, "diffID": digest_of(b"tar %d" % n)} | changes
        each["annotations"] = {k: value for k, value in stated.items() if value is not None}
    return encode(document)


@pytest.mark.parametrize("form", [manifest, index])
@pytest.mark.parametrize("media_type", [None, "own", "docker"])
def test_a_sound_cache_of_each_form(form: Any, media_type: str | None) -> None:
    data = encode(chain_of_steps(layers()))
    document = json.loads(form(layers(), data))
    if media_type is None:
        del document["mediaType"]
    elif media_type == "docker":
        document["mediaType"] = DOCKER_MANIFEST if form is manifest else DOCKER_LIST
    assert check_import(encode(document), data, ALL) == ImportCheck("full", steps=4)


def test_a_missing_layer_costs_all_steps_above_it() -> None:
    store = BlobHealth(DIGESTS[:2] + DIGESTS[3:], {DIGESTS[2]: "is missing"})
    found = judge(store=store)
    assert (found.importable, found.reason) == ("partial", "2 of 4 steps cannot be loaded")
    why = f"layer {DIGESTS[2].short} is missing"
    created_ns = 1_780_480_800 * 10**9
    assert found.unusable_steps == tuple(
        UnusableStep(
            (n, 0), digest_of(b"step  %d" % n), created_ns + (n - 2) * 86_400 * 10**9, lost, why
        )
        for n, lost in ((2, (DIGESTS[2],)), (3, (DIGESTS[2],)))
    )


def test_each_layer_at_fault_is_named() -> None:
    store = BlobHealth(DIGESTS, {DIGESTS[1]: "is empty", DIGESTS[3]: "is truncated"})
    found = judge(store=store)
    assert [miss.layers for miss in found.unusable_steps] == [
        (DIGESTS[1],),
        (DIGESTS[1],),
        (DIGESTS[1], DIGESTS[3]),
    ]
    assert found.unusable_steps[2].reason == f"layer {DIGESTS[1].short} is empty"


def test_without_its_lowest_layer_nothing_is_left() -> None:
    found = judge(store=BlobHealth(DIGESTS, {DIGESTS[0]: "is missing"}))
    why = f"no usable step is left: layer {DIGESTS[0].short} is missing"
    assert (found.importable, found.reason, found.steps, len(found.unusable_steps)) == (
        "none",
        why,
        4,
        4,
    )


def test_a_step_of_given_layers() -> None:
    """`chains`: what a merge made names its layers itself, and they need not hang together."""
    config = chain_of_steps(layers())
    config["layers"][3]["parent"] = -1
    config["records"][3] = {
        "digest": digest_of(b"merge"),
        "chains": [{"layers": [3, 0], "createdAt": "2026-06-01T10:00:00Z"}],
    }
    assert judge(config=config).importable == "full"
    found = judge(config=config, store=BlobHealth(DIGESTS, {DIGESTS[2]: "is missing"}))
    assert [miss.cache_key for miss in found.unusable_steps] == [digest_of(b"step  2")]


def test_a_record_without_a_result_needs_no_layer() -> None:
    config = chain_of_steps(layers())
    del config["records"][3]["layers"]
    found = judge(config=config, store=BlobHealth(DIGESTS, {}))
    assert found == ImportCheck("full", steps=3)


def test_a_layer_that_the_manifest_does_not_list() -> None:
    found = judge(layers()[:3])
    assert found.importable == "partial"
    assert [miss.reason for miss in found.unusable_steps] == [
        f"layer {DIGESTS[3].short} is not listed in the manifest"
    ]


def test_a_layer_that_no_step_needs_is_a_fault_of_the_tag() -> None:
    """It would import fully; but the tag has a hole, at which other tools stop."""
    config = chain_of_steps(layers(3))
    found = judge(config=config, store=BlobHealth(DIGESTS, {DIGESTS[3]: "is missing"}))
    why = f"no step needs it, but layer {DIGESTS[3].short} is missing"
    assert found == ImportCheck("partial", why, 3)


ANNOTATIONS: dict[str, tuple[Any, str]] = {
    "none": (None, "has no annotation containerd.io/uncompressed"),
    "other ones": ({"a": "b"}, "has no annotation containerd.io/uncompressed"),
    "a number": ({UNCOMPRESSED: 5}, "has no annotation containerd.io/uncompressed"),
    "no digest": (
        {UNCOMPRESSED: "sha256:12"},
        "has an annotation containerd.io/uncompressed that is not a digest",
    ),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_a_layer_without_its_annotation_cannot_be_loaded(name: str) -> None:
    value, problem = ANNOTATIONS[name]
    listed = layers()
    listed[3]["annotations"] = value
    found = judge(listed)
    assert [miss.reason for miss in found.unusable_steps] == [f"layer {DIGESTS[3].short} {problem}"]


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_media_types_of_layers(media_type: str) -> None:
    assert judge(layers(mediaType=media_type)).importable == "full"


def test_a_media_type_that_nobody_unpacks() -> None:
    strange = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
    listed = layers()
    listed[3]["mediaType"] = strange
    (miss,) = judge(listed).unusable_steps
    why = f"layer {DIGESTS[3].short} has a media type that BuildKit cannot unpack: {strange!r}"
    assert miss.reason == why


def test_a_layer_that_is_listed_twice_is_as_the_last_one_says() -> None:
    bare = layers()[0] | {"annotations": {}}
    assert judge([*layers(), bare]).importable == "none"
    assert judge([bare, *layers()]).importable == "full"


def test_an_algorithm_that_is_not_known() -> None:
    odd = "blake3:abc"
    listed, config = layers(), chain_of_steps(layers())
    listed[3]["digest"] = config["layers"][3]["blob"] = odd
    (miss,) = judge(listed, config).unusable_steps
    assert miss.reason == "layer blake3:abc has a digest of the kind blake3"


def test_a_layer_of_elsewhere_that_is_not_here() -> None:
    """It is no hole in the layout, but an import finds no bytes either."""
    found = judge(layers(urls=["https://example.com/l"]), store=BlobHealth(DIGESTS[:3], {}))
    assert [miss.reason for miss in found.unusable_steps] == [
        f"layer {DIGESTS[3].short} is missing"
    ]


def test_no_cacheconfig() -> None:
    data = encode(chain_of_steps(layers()))
    digest = parse_digest(digest_of(data))
    found = check_import(manifest(layers(), data), None, ALL)
    assert found == ImportCheck("none", f"its cacheconfig {digest.short} is missing")
    torn = BlobHealth(DIGESTS, {digest: "is truncated (1 of 2 bytes)"})
    found = check_import(manifest(layers(), data), None, torn)
    assert found == ImportCheck(
        "none", f"its cacheconfig {digest.short} is truncated (1 of 2 bytes)"
    )


REFUSED: dict[str, Json] = {
    "a record in a loop": {
        "records": [{"digest": "a", "inputs": [[{"link": 1}]]}, {"inputs": [[{"link": 0}]]}]
    },
    "a layer in a loop": {
        "layers": [{"blob": str(DIGESTS[0]), "parent": 0}],
        "records": [{"digest": "a", "layers": [{"layer": 0}]}],
    },
    "no such layer": {"layers": [], "records": [{"digest": "a", "layers": [{"layer": 0}]}]},
    "no such record": {"records": [{"digest": "a", "inputs": [[{"link": 7}]]}]},
    "an empty input": {"records": [{"digest": "a", "inputs": [[]]}]},
    "wrong types": {"records": 7},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_cacheconfig_that_buildkit_refuses_whole(name: str) -> None:
    found = judge(config=REFUSED[name])
    assert found.importable == "none"
    assert found.reason.startswith("BuildKit does not accept its cacheconfig sha256:")


FORMS: dict[str, tuple[Json, str]] = {
    "both": ({"config": {}, "manifests": []}, "a manifest and an index at once"),
    "both, with nothing in it": ({"layers": None, "manifests": None}, "at once"),
    "an index that says manifest": ({"mediaType": MANIFEST, "manifests": []}, "its content is not"),
    "a list that says manifest": ({"mediaType": DOCKER_MANIFEST}, "its content is not"),
    "a manifest that says index": ({"mediaType": INDEX, "layers": []}, "its content is not"),
    "a manifest that says list": ({"mediaType": DOCKER_LIST, "config": {}}, "its content is not"),
    "a number": ({"mediaType": 7, "config": {}}, "is not text"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_root_whose_form_buildkit_cannot_tell(name: str) -> None:
    document, says = FORMS[name]
    with pytest.raises(DocumentError, match=says):
        check_form(members(document))


@pytest.mark.parametrize(
    "document",
    [
        {"manifests": []},
        {},
        {"layers": []},
        {"config": {}},
        {"mediaType": "a/b", "config": {}},
        {"mediaType": None, "manifests": []},
    ],
)
def test_a_root_whose_form_it_can_tell(document: Json) -> None:
    check_form(members(document))


def test_a_cache_of_two_forms_is_not_imported() -> None:
    data = encode(chain_of_steps(layers()))
    found = check_import(manifest(layers(), data, manifests=[]), data, ALL)
    assert found.importable == "none"
    assert found.reason.startswith("BuildKit does not accept its manifest: ")


def test_what_names_no_cacheconfig() -> None:
    assert check_import(b"{}", None, ALL) == ImportCheck(
        "none", "its manifest names no cacheconfig"
    )


def padded(document: Json, size: int) -> bytes:
    data = encode(document | {"pad": ""})
    return encode(document | {"pad": "x" * (size - len(data))})


@pytest.mark.parametrize(
    ("size", "imports", "warned"),
    [
        (IMPORT_LIMIT_BYTES + 1, "none", False),
        (IMPORT_LIMIT_BYTES, "full", True),
        (int(0.8 * IMPORT_LIMIT_BYTES) + 1, "full", True),
        (int(0.8 * IMPORT_LIMIT_BYTES), "full", False),
    ],
)
@pytest.mark.parametrize("what", ["manifest", "cacheconfig"])
def test_the_caps(size: int, imports: str, warned: bool, what: str) -> None:
    config = encode(chain_of_steps(layers()))
    if what == "cacheconfig":
        config = padded(chain_of_steps(layers()), size)
    root = manifest(layers(), config)
    if what == "manifest":
        root = padded(json.loads(root), size)
    is_read = what == "manifest" or size <= IMPORT_LIMIT_BYTES
    found = check_import(root, config if is_read else None, ALL)
    assert (found.importable, bool(found.warnings)) == (imports, warned)
    if imports == "none":
        limit = f"{IMPORT_LIMIT_BYTES:,}"
        assert found.reason == (
            f"its {what} has {size:,} bytes, and BuildKit imports at most {limit}"
        )
    if warned:
        assert found.warnings[0].startswith(f"its {what} has {size:,} of the 1,048,576 bytes")


def test_layer_faults_are_in_the_order_of_the_cacheconfig() -> None:
    data = encode(chain_of_steps(layers()))
    root = read_cache_manifest(manifest(layers()[::-1], data))
    assert root is not None
    store = BlobHealth(DIGESTS, {DIGESTS[1]: "is missing"})
    assert layer_faults(root, read_cacheconfig(data), store) == ("", "is missing", "", "")


def test_a_long_chain_of_many_results_is_looked_at_once() -> None:
    """A megabyte can say 17,000 layers and 30,000 results that need them all."""
    count = 2_000
    config = {
        "layers": [{"blob": str(DIGESTS[0]), "parent": n - 1} for n in range(count)],
        "records": [{"digest": digest_of(b"step"), "layers": [{"layer": count - 1}] * count}],
    }
    store = BlobHealth(DIGESTS, {DIGESTS[0]: "is missing"})
    found = judge(config=config, store=store)
    assert (found.importable, found.steps, len(found.unusable_steps)) == ("none", count, count)
    assert {miss.layers for miss in found.unusable_steps} == {(DIGESTS[0],)}
    assert len({id(miss.layers) for miss in found.unusable_steps}) == 1


class TestBareRoots:
    """Of an object store: the cacheconfig is the root, and describes its layers itself."""

    def test_a_sound_one_and_an_empty_one(self) -> None:
        assert check_bare_import(bare(), ALL) == ImportCheck("full", "", 4)
        empty = check_bare_import(b"{}", ALL)
        assert empty == ImportCheck("full", warnings=empty.warnings)
        assert empty.warnings == ("it is empty: its last export had nothing to cache",)

    def test_it_has_no_cap(self) -> None:
        document = chain_of_steps(layers()) | {"more": "x" * IMPORT_LIMIT_BYTES}
        assert check_bare_import(bare(document), ALL) == ImportCheck("full", "", 4)

    def test_a_missing_layer_costs_all_steps_above_it(self) -> None:
        check = check_bare_import(bare(), BlobHealth(DIGESTS[:2], {DIGESTS[2]: "is missing"}))
        assert (check.importable, check.steps) == ("partial", 4)
        assert [step.key for step in check.unusable_steps] == [(2, 0), (3, 0)]
        assert check.unusable_steps[0].reason.endswith("is missing")

    def test_a_missing_layer_that_no_step_needs_fails_an_export(self) -> None:
        document = chain_of_steps(layers())
        document["records"] = document["records"][:2]
        check = check_bare_import(bare(document), BlobHealth(DIGESTS, {DIGESTS[3]: "is missing"}))
        assert (check.importable, check.unusable_steps) == ("partial", ())
        assert check.reason.startswith("no step needs it, but layer ")

    @pytest.mark.parametrize("changes", [{"diffID": None}, {"diffID": ""}])
    def test_without_a_diff_id_buildkit_imports_nothing(self, changes: Json) -> None:
        """Even of a layer that no step needs. Source: BuildKit, cache/remotecache/s3/s3.go."""
        check = check_bare_import(bare(**changes), ALL)
        assert (check.importable, check.steps) == ("none", 4)
        assert "has no annotations with its diffID" in check.reason

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"mediaType": None}, "has a media type that BuildKit cannot unpack: ''"),
            ({"diffID": "tar"}, "has an annotation diffID that is not a digest"),
        ],
    )
    def test_what_is_wrong_with_a_layer(self, changes: Json, fault: str) -> None:
        data = bare(**changes)
        assert check_bare_import(data, ALL).importable == "none"
        assert set(layer_faults(None, read_cacheconfig(data), ALL)) == {fault}

    def test_the_export_of_a_directory_is_not_one(self) -> None:
        data = encode(chain_of_steps(layers()))
        assert set(layer_faults(None, read_cacheconfig(data), ALL)) == {"has no annotations"}
        assert check_bare_import(data, ALL).importable == "none"

    def test_what_is_no_cacheconfig(self) -> None:
        check = check_bare_import(b"[]", ALL)
        assert (check.importable, check.steps) == ("none", 0)
        assert check.reason.startswith("BuildKit does not accept its cacheconfig: it ")
