"""gc/ls.py: an entry as people speak of it."""

import os
from datetime import datetime
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Cancelled
from kitcache.gc.ls import ls
from kitcache.gc.results import TagInfo
from kitcache.gc.values import Tally
from tests.hostile.build import (
    CACHECONFIG,
    IMAGE_CONFIG,
    MANIFEST,
    Box,
    Json,
    Sample,
    digest_of,
    encode,
)

NEWEST = "2026-05-04T10:00:00.123456789Z"


def only_tag(box: Box) -> TagInfo:
    (tag,) = ls(box.dir).tags
    return tag


def config_with(box: Box, *records: Any) -> Json:
    return box.document({"layers": [], "records": list(records)}, CACHECONFIG)


def test_tags_come_in_the_order_of_the_index(sample: Sample) -> None:
    sample.box.tag(None, sample.main)
    listing = ls(sample.dir)
    assert listing.path == str(sample.dir)
    assert [tag.ref_name for tag in listing.tags] == ["main", "dev", None]
    assert (listing.damage, listing.exit_code) == ((), 0)


def test_a_cache(sample: Sample) -> None:
    tag = ls(sample.dir).tags[0]
    assert (tag.kind, tag.layers, tag.missing, tag.problem) == ("cache", 2, 0, "")
    assert str(tag.digest) == sample.main["digest"]
    assert tag.size.blobs == 4
    assert tag.platforms == ()


def test_an_image_has_platforms_by_its_config(box: Box) -> None:
    config = box.document({"os": "linux", "architecture": "arm", "variant": "v7"}, IMAGE_CONFIG)
    box.tag("image", box.manifest([box.blob(b"one"), box.blob(b"two")], config))
    tag = only_tag(box)
    assert (tag.kind, tag.layers, tag.platforms) == ("image", 2, ("linux/arm/v7",))


def test_a_multi_platform_image_has_those_of_its_index(box: Box) -> None:
    entries = []
    for arch in ("amd64", "arm64", "unknown"):
        config = box.document({"os": "linux", "architecture": arch}, IMAGE_CONFIG)
        os_name = "unknown" if arch == "unknown" else "linux"
        platform = {"os": os_name, "architecture": arch}
        entries.append(box.manifest([box.blob(arch.encode())], config) | {"platform": platform})
    box.tag("multi", box.index_of(entries))
    tag = only_tag(box)
    assert (tag.kind, tag.layers) == ("image", 3)
    assert tag.platforms == ("linux/amd64", "linux/arm64")


def test_an_artifact_and_something_unknown(box: Box) -> None:
    config = box.blob(b"{}", "application/vnd.oci.empty.v1+json")
    box.tag("artifact", box.manifest([box.blob(b"sbom", "text/spdx")], config))
    box.tag("unknown", box.blob(b"\x00 whatever", "application/x-thing"))
    assert [tag.kind for tag in ls(box.dir).tags] == ["artifact", "unknown"]


def test_what_an_artifact_is_about_is_not_what_it_is(box: Box) -> None:
    """A signature points at its image; it has neither the image's kind nor its layers."""
    config = box.document({"os": "linux", "architecture": "arm64"}, IMAGE_CONFIG)
    image = box.manifest([box.blob(b"one"), box.blob(b"two")], config)
    empty = box.blob(b"{}", "application/vnd.oci.empty.v1+json")
    box.tag(
        "signature", box.manifest([box.blob(b"sig", "application/x-sig")], empty, subject=image)
    )
    tag = only_tag(box)
    assert (tag.kind, tag.layers, tag.platforms) == ("artifact", 1, ())


def test_an_index_of_layers_is_a_cache_with_layers(box: Box) -> None:
    layers = [box.blob(b"one"), box.blob(b"two")]
    box.tag("old", box.index_of([*layers, box.cacheconfig(layers)]))
    tag = only_tag(box)
    assert (tag.kind, tag.layers) == ("cache", 2)


def test_the_age_is_the_newest_record_of_the_cacheconfig(box: Box) -> None:
    records = [
        {"digest": "x", "layers": [{"layer": 0, "createdAt": "2026-01-01T00:00:00Z"}]},
        {"chains": [{"layers": [0], "createdAt": NEWEST}]},
        {"layers": [{"layer": 1, "createdAt": "2026-02-01T00:00:00+01:00"}]},
    ]
    box.tag("main", box.manifest([box.blob(b"layer")], config_with(box, *records)))
    tag = only_tag(box)
    wanted = int(datetime.fromisoformat("2026-05-04T10:00:00+00:00").timestamp()) * 10**9
    assert tag.created_from == "cacheconfig"
    assert tag.created_ns == wanted + 123_456_000


@pytest.mark.parametrize(
    "records",
    [
        (),
        (7, None, {}, {"layers": 7}, {"layers": [7]}, {"layers": [{"createdAt": 7}]}),
        ({"layers": [{"createdAt": "0001-01-01T00:00:00Z"}]},),
        ({"layers": [{"createdAt": "yesterday"}]},),
    ],
)
def test_without_a_record_it_is_the_time_of_the_manifest(
    box: Box, records: tuple[Any, ...]
) -> None:
    manifest = box.manifest([box.blob(b"layer")], config_with(box, *records))
    os.utime(box.path_of(manifest["digest"]), ns=(0, 5_000_000_001))
    box.tag("main", manifest)
    tag = only_tag(box)
    assert (tag.created_ns, tag.created_from) == (5_000_000_001, "manifest")


def test_missing_blobs_are_counted(sample: Sample) -> None:
    for layer in sample.layers[:2]:
        sample.box.damage(layer["digest"], None)
    main, dev = ls(sample.dir).tags
    assert (main.missing, main.layers, main.size.blobs, main.problem) == (2, 2, 2, "")
    assert (dev.missing, dev.problem) == (1, "")
    assert ls(sample.dir).exit_code == 0


def test_a_damaged_tag_is_listed_with_its_problem(sample: Sample) -> None:
    sample.box.damage(sample.main["digest"], None)
    listing = ls(sample.dir)
    main, dev = listing.tags
    assert main.problem.startswith("manifest sha256:")
    assert main.problem.endswith(" is missing")
    assert (main.kind, main.missing, main.size) == ("unknown", 1, Tally())
    assert (main.created_ns, main.created_from) == (None, None)
    assert dev.problem == ""
    assert listing.exit_code == 12


def test_damage_below_is_the_problem_of_every_tag_above_it(box: Box) -> None:
    broken = {"mediaType": MANIFEST, "digest": digest_of(b"gone"), "size": 7}
    box.tag("one", box.index_of([broken]))
    box.tag("two", box.index_of([broken, box.manifest([box.blob(b"layer")])]))
    assert all("is missing" in tag.problem for tag in ls(box.dir).tags)


def test_an_entry_that_cannot_be_read(box: Box) -> None:
    box.write_index(encode({"manifests": [7]}))
    problem = "entry 0 is a number, not an object"
    assert only_tag(box) == TagInfo(None, None, "unknown", None, None, Tally(), 0, (), 0, problem)


def test_no_tags(box: Box) -> None:
    assert ls(box.dir).tags == ()


def test_it_can_be_cancelled(sample: Sample) -> None:
    cancel = Event()
    cancel.set()
    with pytest.raises(Cancelled):
        ls(sample.dir, cancel=cancel)
