"""gc/survey.py: what one reading finds. Certain or a hint, damage or merely missing."""

import os
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Cancelled, Damaged
from kitcache.gc.control import Control
from kitcache.gc.survey import DEPTH_LIMIT, take_survey
from kitcache.gc.values import DamagedPath, Progress, Survey, Tally
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.open import open_store
from tests.hostile.build import (
    IMAGE_CONFIG,
    INDEX,
    MANIFEST,
    Box,
    Json,
    Sample,
    digest_of,
)

UNKNOWN = "application/vnd.example.thing"
ABSENT: Json = {"mediaType": UNKNOWN, "digest": digest_of(b"nowhere"), "size": 7}


def survey(box: Box) -> Survey:
    with open_store(box.dir) as layout:
        return take_survey(layout, Control("cache", None, None))


def live(found: Survey) -> set[str]:
    return {digest.hex for digest in found.live}


def names(*descriptors: Json) -> set[str]:
    return {descriptor["digest"].partition(":")[2] for descriptor in descriptors}


def missing(found: Survey) -> list[tuple[str, str | None, str]]:
    return [(str(leaf.digest), leaf.ref_name, leaf.problem) for leaf in found.missing_blobs]


def damage(found: Survey) -> list[tuple[str | None, str, str]]:
    return [(d.root.ref_name, d.kind, d.problem) for d in found.damage]


def test_what_tags_reach_is_live_with_its_file_size(sample: Sample) -> None:
    found = survey(sample.box)
    assert live(found) == sample.live
    assert all(
        size == sample.box.path_of(str(digest)).stat().st_size
        for digest, size in found.live.items()
    )
    assert found.live_tally == Tally(7, sum(found.live.values()))
    assert (found.damage, found.missing_blobs, found.young) == ((), (), {})


def test_the_roots_are_the_entries_in_order(sample: Sample) -> None:
    sample.box.tag(None, sample.main)
    roots = survey(sample.box).roots
    assert [(root.position, root.ref_name) for root in roots] == [
        (0, "main"),
        (1, "dev"),
        (2, None),
    ]


def test_the_same_index_has_the_same_digest(sample: Sample) -> None:
    first = survey(sample.box).index_digest
    assert survey(sample.box).index_digest == first
    sample.box.tag("third", sample.main)
    assert survey(sample.box).index_digest != first


def test_an_empty_store_without_index_is_a_cache(box: Box) -> None:
    found = survey(box)
    assert (found.roots, found.live, found.damage) == ((), {}, ())


def test_blobs_without_an_index_are_nobodys_to_judge(sample: Sample) -> None:
    (sample.dir / "index.json").unlink()
    with pytest.raises(Damaged, match=r"index.json is missing but blobs") as caught:
        survey(sample.box)
    assert caught.value.kind == "missing"


def test_an_index_that_is_none_is_damage(sample: Sample) -> None:
    sample.box.write_index(b'{"manifests": {}}')
    with pytest.raises(Damaged, match="ambiguous: 'manifests' is an object") as caught:
        survey(sample.box)
    assert caught.value.kind == "malformed"


def test_a_malformed_entry_is_damage_of_its_own(sample: Sample) -> None:
    sample.box.entries.insert(0, {"annotations": {"org.opencontainers.image.ref.name": "bad"}})
    sample.box.tag("third", sample.main)
    found = survey(sample.box)
    (only,) = found.damage
    assert (only.root.ref_name, only.root.position, only.chain) == ("bad", 0, ())
    assert only.problem.startswith("the digest of entry 0")
    assert live(found) == sample.live


@pytest.mark.parametrize(
    ("data", "kind", "detail"),
    [
        (None, "missing", "is missing"),
        (b"{", "wrong-size", "is truncated"),
        (b"{" * 10_000, "wrong-size", "is too long"),
    ],
)
def test_a_root_that_cannot_be_read_is_damage(
    sample: Sample, data: bytes | None, kind: str, detail: str
) -> None:
    sample.box.damage(sample.main["digest"], data)
    (only,) = damage(survey(sample.box))
    assert only[:2] == ("main", kind)
    assert only[2].startswith(detail)


def test_a_lie_about_the_digest_is_damage(sample: Sample) -> None:
    path = sample.box.path_of(sample.main["digest"])
    sample.box.damage(sample.main["digest"], path.read_bytes().replace(b"2", b"3", 1))
    assert [d[:2] for d in damage(survey(sample.box))] == [("main", "wrong-digest")]


def test_damage_below_has_the_whole_chain(box: Box) -> None:
    manifest = box.manifest([box.blob(b"layer")])
    inner = box.index_of([manifest | {"platform": {"os": "linux", "architecture": "arm64"}}])
    box.tag("multi", box.index_of([inner]))
    box.damage(manifest["digest"], None)
    (only,) = survey(box).damage
    assert [str(step.digest) for step in only.chain][1:] == [inner["digest"], manifest["digest"]]
    assert only.chain[-1].platform == "linux/arm64"
    assert survey(box).missing_blobs == (), "what is damage is not told a second time"


def test_all_damage_is_found_in_one_reading(sample: Sample) -> None:
    for root in (sample.main, sample.dev):
        sample.box.damage(root["digest"], None)
    assert [d[0] for d in damage(survey(sample.box))] == ["main", "dev"]


def test_a_missing_layer_is_no_damage(sample: Sample) -> None:
    sample.box.damage(sample.layers[1]["digest"], None)
    found = survey(sample.box)
    assert missing(found) == [(sample.layers[1]["digest"], "main", "is missing")]
    assert found.damage == ()
    assert live(found) == sample.live - names(sample.layers[1])


def test_a_torn_layer_is_told_and_no_hindrance(sample: Sample) -> None:
    sample.box.damage(sample.layers[1]["digest"], b"torn layer")
    found = survey(sample.box)
    assert found.damage == ()
    problem = f"is truncated (10 of {sample.layers[1]['size']} bytes)"
    assert missing(found) == [(sample.layers[1]["digest"], "main", problem)]
    assert found.live[parse_digest(sample.layers[1]["digest"])] == len(b"torn layer")


def test_what_is_elsewhere_is_not_missing(box: Box) -> None:
    box.tag("x", box.manifest([ABSENT | {"urls": ["https://example.com/x"]}], box.blob(b"{}")))
    found = survey(box)
    assert (found.damage, found.missing_blobs) == ((), ())


def test_a_missing_subject_is_reported_and_no_damage(box: Box) -> None:
    subject = {"mediaType": MANIFEST, "digest": digest_of(b"the image"), "size": 700}
    box.tag("signature", box.manifest([box.blob(b"sig")], box.blob(b"{}"), subject=subject))
    found = survey(box)
    assert missing(found) == [(subject["digest"], "signature", "is missing")]
    assert found.damage == ()


def test_a_subject_is_followed_and_may_not_be_torn(box: Box) -> None:
    image = box.manifest([box.blob(b"layer")], box.blob(b"{}", IMAGE_CONFIG))
    box.tag("signature", box.manifest([box.blob(b"sig")], box.blob(b"{}"), subject=image))
    assert names(image) <= live(survey(box))
    box.damage(image["digest"], b"{")
    assert [d[:2] for d in damage(survey(box))] == [("signature", "wrong-size")]


@pytest.mark.parametrize("subject_first", [True, False])
@pytest.mark.parametrize("is_deep", [True, False])
def test_a_manifest_that_is_also_a_subject_may_not_be_absent(
    box: Box, subject_first: bool, is_deep: bool
) -> None:
    gone = {"mediaType": MANIFEST, "digest": digest_of(b"gone"), "size": 7}
    signed = box.manifest([box.blob(b"sig")], box.blob(b"{}"), subject=gone)
    image = box.index_of([box.index_of([gone])]) if is_deep else gone
    entries = [("signature", signed), ("image", image)]
    for ref_name, descriptor in entries if subject_first else reversed(entries):
        box.tag(ref_name, descriptor)
    assert damage(survey(box)) == [("image", "missing", "is missing")]
    assert missing(survey(box)) == [], "what is damage is not told a second time"


def test_a_cacheconfig_whose_layers_stand_beside_it_may_be_missing(sample: Sample) -> None:
    layers = list(sample.layers[:2])
    config = sample.box.cacheconfig(layers)
    sample.box.damage(config["digest"], None)
    found = survey(sample.box)
    assert found.damage == ()
    assert missing(found) == [(config["digest"], "main", "is missing")]
    assert live(found) == sample.live - names(config)


def test_a_cacheconfig_that_alone_names_layers_may_not(box: Box) -> None:
    layers = [box.blob(b"layer")]
    config = box.cacheconfig(layers)
    box.tag("main", box.manifest([], config))
    assert live(survey(box)) >= names(*layers)
    box.damage(config["digest"], None)
    assert [d[:2] for d in damage(survey(box))] == [("main", "missing")]


def test_one_cacheconfig_in_two_manifests_is_spare_only_where_layers_are_listed(box: Box) -> None:
    layers = [box.blob(b"layer")]
    config = box.cacheconfig(layers)
    box.tag("whole", box.manifest(layers, config))
    box.tag("bare", box.manifest([], config))
    box.damage(config["digest"], None)
    assert [d[:2] for d in damage(survey(box))] == [("bare", "missing")]


def test_an_index_whose_entries_are_layers_is_a_cache_too(box: Box) -> None:
    layers = [box.blob(b"one"), box.blob(b"two")]
    config = box.cacheconfig(layers)
    root = box.index_of([*layers, config])
    box.tag("old", root)
    found = survey(box)
    assert live(found) == names(*layers, config, root)
    box.damage(config["digest"], b"{")
    found = survey(box)
    assert found.damage == ()
    ((digest, ref_name, problem),) = missing(found)
    assert (digest, ref_name) == (config["digest"], "old")
    assert problem.startswith("is truncated (1 of ")


def test_an_unknown_blob_is_looked_into_and_what_it_names_stays(box: Box) -> None:
    layer = box.blob(b"layer")
    hidden = box.document({"layers": [layer]}, MANIFEST)
    thing = box.document({"manifests": [hidden]}, UNKNOWN)
    box.tag("x", box.manifest([thing], box.blob(b"{}")))
    assert names(layer, hidden, thing) <= live(survey(box))


HINTS: dict[str, Callable[[Box], Any]] = {
    "a blob that is not there": lambda box: [ABSENT],
    "a manifest that is not there": lambda box: [ABSENT | {"mediaType": MANIFEST}],
    "a size that is a lie": lambda box: [box.blob(b"x") | {"size": 7}],
    "a manifest that is none": lambda box: [box.blob(b"no JSON", MANIFEST)],
    "a cacheconfig that is none": lambda box: [box.document({"layers": 7}, MANIFEST)],
}


@pytest.mark.parametrize("name", HINTS)
def test_what_only_an_unknown_blob_names_is_a_hint_and_no_damage(box: Box, name: str) -> None:
    thing = box.document({"manifests": HINTS[name](box)}, UNKNOWN)
    box.tag("x", box.manifest([thing], box.blob(b"{}")))
    found = survey(box)
    assert (found.damage, found.missing_blobs) == ((), ())


@pytest.mark.parametrize("hint_first", [True, False])
def test_what_is_certain_too_is_damage_whichever_is_met_first(box: Box, hint_first: bool) -> None:
    gone = {"mediaType": MANIFEST, "digest": digest_of(b"gone"), "size": 7}
    thing = box.document({"manifests": [gone]}, UNKNOWN)
    hint = box.manifest([thing], box.blob(b"{}"))
    buried = box.index_of([box.index_of([box.index_of([gone])])])
    entries = [("hint", hint), ("certain", buried)]
    for ref_name, descriptor in entries if hint_first else reversed(entries):
        box.tag(ref_name, descriptor)
    assert damage(survey(box)) == [("certain", "missing", "is missing")]


@pytest.mark.parametrize("media_type", ["", UNKNOWN])
def test_an_unknown_root_is_proven_and_followed(box: Box, media_type: str) -> None:
    layer = box.blob(b"layer")
    root = box.document({"layers": [layer]}, media_type)
    box.tag("x", root)
    assert live(survey(box)) == names(layer, root)
    box.damage(root["digest"], b"\0" * root["size"])
    assert [d[:2] for d in damage(survey(box))] == [("x", "wrong-digest")]


def test_a_large_binary_blob_of_unknown_type_is_a_leaf_and_is_not_hashed(box: Box) -> None:
    model = box.blob(b"\x00GGUF weights", UNKNOWN)
    box.tag("model", box.manifest([model], box.blob(b"{}")))
    box.damage(model["digest"], b"\x00GGUF other words")
    found = survey(box)
    assert found.damage == ()
    assert names(model) <= live(found)


def nest(box: Box, levels: int) -> list[Json]:
    """That many documents, an index around an index around … a manifest: from the root down."""
    chain = [box.manifest([box.blob(b"layer")], box.blob(b"{}", IMAGE_CONFIG))]
    while len(chain) < levels:
        chain.insert(0, box.index_of([chain[0]]))
    return chain


def test_so_many_levels_may_be(box: Box) -> None:
    box.tag("deep", nest(box, DEPTH_LIMIT)[0])
    assert survey(box).damage == ()


def test_one_level_more_may_not(box: Box) -> None:
    box.tag("deeper", nest(box, DEPTH_LIMIT + 1)[0])
    (only,) = survey(box).damage
    assert (only.root.ref_name, only.kind) == ("deeper", "too-deep")
    assert len(only.chain) == DEPTH_LIMIT + 1
    assert "32 levels" in only.problem


def test_a_structural_blob_has_a_cap(box: Box) -> None:
    digest = digest_of(b"huge")
    with box.path_of(digest).open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    box.tag("huge", {"mediaType": INDEX, "digest": digest, "size": 64 * 2**20 + 1})
    (only,) = damage(survey(box))
    assert only[:2] == ("huge", "over-cap")
    assert "67,108,865 of at most 67,108,864 bytes" in only[2]


def test_each_node_is_read_once(box: Box) -> None:
    root = box.manifest([box.blob(b"layer")])
    for _ in range(40):
        root = box.index_of([root, root])
    box.tag("bomb", root)
    assert [d.kind for d in survey(box).damage] == ["too-deep"]


def test_links_tell_what_points_at_what(sample: Sample) -> None:
    found = survey(sample.box)
    key = (parse_digest(sample.main["digest"]), MANIFEST, sample.main["size"])
    layers = [link for link in found.links[key] if link.role == "layer"]
    assert [str(link.descriptor.digest) for link in layers] == [
        layer["digest"] for layer in sample.layers[:2]
    ]


def test_uploads_are_seen_foreign_ones_are_not(sample: Sample) -> None:
    name = sample.box.ingest("a")
    (sample.dir / "ingest" / sample.box.ingest("b") / "odd").mkdir()
    (ingest,) = survey(sample.box).ingests
    assert ingest.name == name
    assert ingest.bytes == 1 + 3 + len(b"half a blob")


def test_the_times_of_index_and_ingest(sample: Sample) -> None:
    os.utime(sample.dir / "index.json", ns=(0, 5_000_000_001))
    os.utime(sample.dir / "ingest", ns=(0, 7_000_000_001))
    found = survey(sample.box)
    assert (found.index_changed_ns, found.ingest_changed_ns) == (5_000_000_001, 7_000_000_001)


def test_a_digest_of_an_unknown_algorithm_is_never_missing(box: Box) -> None:
    layer = {"mediaType": UNKNOWN, "digest": "blake3:abc", "size": 7}
    box.tag("x", box.manifest([layer], box.blob(b"{}")))
    assert survey(box).missing_blobs == ()
    assert survey(box).damage == ()


def test_a_manifest_of_an_unknown_algorithm_cannot_be_checked(box: Box) -> None:
    box.tag("x", {"mediaType": MANIFEST, "digest": "blake3:abc", "size": 7})
    found = survey(box)
    root = found.roots[0]
    descriptor = Descriptor(MANIFEST, Digest("blake3", "abc"), 7, "x")
    assert found.damage == (
        DamagedPath(root, (descriptor,), "unknown-algorithm", "blake3 cannot be checked here"),
    )


def test_it_can_be_cancelled(sample: Sample) -> None:
    cancel = Event()
    cancel.set()
    with open_store(sample.dir) as layout, pytest.raises(Cancelled):
        take_survey(layout, Control("cache", None, cancel))


def test_it_tells_how_far_it_is(box: Box) -> None:
    box.tag("wide", box.manifest([box.blob(f"layer {n}".encode()) for n in range(1100)]))
    events: list[Any] = []
    with open_store(box.dir) as layout:
        take_survey(layout, Control("cache", events.append, None))
    assert events == [Progress("survey", 512, 0), Progress("survey", 1024, 0)]
