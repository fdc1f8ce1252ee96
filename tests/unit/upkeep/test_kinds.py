"""Manifests that an entry calls a layer, a config or an empty blob; and leaves that are entries.

BuildKit infers the kind of an entry from its bytes and imports it whole. Law: so does each command.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import kitcache
from kitcache.errors import Damaged
from kitcache.options.prunepolicy import PrunePolicy, PruneRule
from tests.hostile.build import IMAGE_CONFIG, LAYER, Box, Json, Sample
from tests.hostile.stages import LAYER_BYTES, make_stages
from tests.property import witness

LEAF_TYPES = {
    "config": IMAGE_CONFIG,
    "docker config": "application/vnd.docker.container.image.v1+json",
    "layer": LAYER,
    "docker layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "empty": "application/vnd.oci.empty.v1+json",
}


def as_root(sample: Sample, media_type: str) -> Json:
    return sample.main | {"mediaType": media_type}


def in_index(sample: Sample, media_type: str) -> Json:
    return sample.box.index_of([sample.dev, sample.main | {"mediaType": media_type}])


PLACES: dict[str, Callable[[Sample, str], Json]] = {"root": as_root, "nested": in_index}


def disguise(sample: Sample, place: str, media_type: str) -> None:
    """Let the tag main say, in its entry or in a nested index, that its manifest is a leaf."""
    sample.box.entries = [sample.box.entries[1]]
    sample.box.tag("main", PLACES[place](sample, media_type))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", LEAF_TYPES)
def test_a_manifest_that_says_it_is_a_leaf_is_one_to_all(
    sample: Sample, place: str, name: str
) -> None:
    disguise(sample, place, LEAF_TYPES[name])
    is_nested = place == "nested"
    live = len(sample.live) + is_nested
    verdict = kitcache.verify(sample.dir).tags[1]
    assert (verdict.importable, verdict.kind) == ("full", "artifact" if is_nested else "cache")
    tag = kitcache.ls(sample.dir).tags[1]
    assert (tag.kind, tag.layers, tag.missing) == ("cache", 3 if is_nested else 2, 0)
    usage = kitcache.du(sample.dir)
    assert usage.live.blobs == live
    assert usage.tags[1].unique.blobs == live - 4
    paths = kitcache.why(sample.dir, sample.layers[0]["digest"]).paths
    assert {path.root.ref_name for path in paths} == {"main"}
    keep_all = PrunePolicy(rules=(PruneRule(keep_last=2),))
    assert kitcache.prune(sample.dir, keep_all, dry_run=True).reset.kept.blobs == live
    assert kitcache.repair(sample.dir).actions == ()
    merged = kitcache.merge(sample.dir, sample.dir.with_name("copy"))
    assert merged.linked.blobs + merged.copied.blobs == live
    assert kitcache.reset(sample.dir).deleted.blobs == len(sample.garbage)
    assert kitcache.verify(sample.dir).tags[1].importable == "full"


@pytest.mark.parametrize("is_index", [False, True])
@pytest.mark.parametrize("name", LEAF_TYPES)
def test_one_that_is_trimmed_stays_whole(tmp_path: Path, name: str, is_index: bool) -> None:
    cache = make_stages(tmp_path, is_index=is_index)
    index = json.loads((cache.dir / "index.json").read_bytes())
    for entry in index["manifests"]:
        entry["mediaType"] = LEAF_TYPES[name]
    cache.box.write_index(json.dumps(index).encode())
    assert kitcache.trim(cache.dir, "main", 4 * LAYER_BYTES - 1).outcome == "done"
    assert kitcache.reset(cache.dir).deleted.blobs == 0
    assert witness.holes(cache.dir) == ()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("data", [b'{"layers"', b"\0", None])
def test_one_that_is_torn_or_lost_stops_a_reset(
    sample: Sample, place: str, data: bytes | None
) -> None:
    disguise(sample, place, IMAGE_CONFIG)
    sample.box.damage(sample.main["digest"], data)
    with pytest.raises(Damaged, match=r"tag 'main' cannot be read: blob ") as caught:
        kitcache.reset(sample.dir)
    assert caught.value.facts["kind"] == ("missing" if data is None else "wrong-size")


HUGE = (64 << 20) + 1
LEAVES = [(name, head, 40) for name in LEAF_TYPES for head in (b"\0", b"{", b"")]
LEAVES += [("layer", b"\0", HUGE), ("layer", b"{", HUGE), ("layer", b'{"a":[', 2_000_000)]


@pytest.mark.parametrize(("name", "head", "size"), LEAVES)
def test_a_leaf_may_be_an_entry(box: Box, name: str, head: bytes, size: int) -> None:
    """Such as an artifact that is one file: no damage, however it begins and however long it is."""
    root = box.blob(head.ljust(size, b","), LEAF_TYPES[name])
    box.tag("file", root)
    box.tag("index", box.index_of([root]))
    box.blob(b"garbage")
    report = kitcache.reset(box.dir)
    assert (report.deleted.blobs, report.kept.blobs, report.missing_blobs) == (1, 2, ())
    assert [one.importable for one in kitcache.verify(box.dir).tags] == ["full", "full"]


def test_an_entry_that_is_missing_may_have_been_a_manifest(sample: Sample) -> None:
    sample.box.tag("index", sample.box.index_of([sample.layers[0], sample.dev]))
    assert kitcache.reset(sample.dir).deleted.blobs == len(sample.garbage)
    sample.box.damage(sample.layers[0]["digest"], None)
    with pytest.raises(Damaged, match=r"tag 'index' cannot be read: blob .* is missing"):
        kitcache.reset(sample.dir)


def test_a_layer_beside_a_cacheconfig_is_a_layer(sample: Sample) -> None:
    """So BuildKit writes a cache with image-manifest=false."""
    config = sample.box.cacheconfig(list(sample.layers[:2]))
    sample.box.tag("index", sample.box.index_of([*sample.layers[:2], config]))
    sample.box.damage(sample.layers[0]["digest"], None)
    (leaf,) = kitcache.reset(sample.dir).missing_blobs
    assert str(leaf.digest) == sample.layers[0]["digest"]
