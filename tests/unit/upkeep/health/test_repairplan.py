"""health/mend.py: which steps, blobs and tags go, and what comes in their place. No disk."""

import json

import pytest

from kitcache.gc.values import MissingBlob
from kitcache.oci.cacheconfig import IMPORT_LIMIT_BYTES, read_cacheconfig
from kitcache.oci.cachemanifest import read_cache_manifest
from kitcache.oci.digest import parse_digest
from kitcache.upkeep.health.repairplan import RepairPlan
from tests.hostile.build import (
    CACHECONFIG,
    IMAGE_CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Json,
    digest_of,
    encode,
)
from tests.hostile.importable import chain_of_steps
from tests.unit.gc.surveys import digest
from tests.unit.upkeep.health.healthkit import kinds
from tests.unit.upkeep.health.shelf import Shelf, mend, tags


def test_nothing_is_done_where_nothing_is_broken(shelf: Shelf) -> None:
    layers = [shelf.layer("a"), shelf.layer("b")]
    shelf.tag("main", shelf.cache(layers))
    shelf.tag("list", shelf.cache(layers, as_index=True))
    shelf.tag(None, shelf.image(layers))
    assert mend(shelf) == RepairPlan((), {}, {}, None, {}, ())


@pytest.mark.parametrize("as_index", [False, True])
def test_the_steps_that_need_a_lost_layer_go(shelf: Shelf, as_index: bool) -> None:
    """And two tags on one root move together; a whole one beside them stays as it is."""
    layers = [shelf.layer(name) for name in "abc"]
    root, whole = shelf.cache(layers, as_index=as_index), shelf.cache(layers[:2])
    shelf.tag("main", root | {"org.example.unknown": 1})
    shelf.tag("alias", root)
    shelf.tag("whole", whole)
    lost = shelf.lose(layers[2])

    mending = mend(shelf)

    assert kinds(mending) == [("rewrite-cache", "main"), ("rewrite-cache", "alias")]
    after = tags(mending)
    assert after["whole"] == shelf.entries[2]
    assert after["main"]["org.example.unknown"] == 1
    config, manifest = mending.new_blobs.values()
    assert {after["main"]["digest"], after["alias"]["digest"]} == {digest_of(manifest)}
    assert after["main"]["size"] == len(manifest)
    assert [len(r.results) for r in read_cacheconfig(config).records] == [1, 1]
    root_after = read_cache_manifest(manifest)
    assert root_after is not None
    assert root_after.config.digest == parse_digest(digest_of(config))
    assert [one.descriptor.digest for one in root_after.layers] == [
        parse_digest(layer["digest"]) for layer in layers[:2]
    ]
    assert mending.actions[0].description == (
        f"tag 'main' was rewritten without 1 of its 3 steps: layer {lost.short} is missing"
    )
    assert mending.actions[0].digest == parse_digest(digest_of(manifest))
    moved = parse_digest(root["digest"]), parse_digest(digest_of(manifest))
    assert mending.moved_exports == {"main": moved, "alias": moved}


def test_a_dry_run_says_would(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("main", shelf.cache(layers))
    shelf.spoil(layers[1])
    mending = mend(shelf, is_dry=True)
    assert [step.description.split(" would be ")[1].split()[0] for step in mending.actions] == [
        "rewritten",
        "quarantined:",
    ]


def test_a_bad_blob_is_put_aside_whoever_reaches_it(shelf: Shelf) -> None:
    shelf.tag("main", shelf.cache([shelf.layer("a")]))
    stray = shelf.spoil(shelf.put(b"nobody's"))
    mending = mend(shelf)
    assert kinds(mending) == [("quarantine-blob", None)]
    assert (mending.bad, mending.new_index) == ((stray,), None)
    assert mending.actions[0].description.endswith("was quarantined: it holds other bytes")


def test_what_another_copy_has_is_taken_and_the_tag_stays(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("main", shelf.cache(layers))
    bad = parse_digest(layers[1]["digest"])
    shelf.bad[bad] = "is empty"
    # The survey is of the store with what the copy has.
    shelf.offers[bad] = "./other"
    mending = mend(shelf)
    assert kinds(mending) == [("copy-blob", None), ("quarantine-blob", None)]
    assert (mending.copies, mending.arriving) == ({bad: "./other"}, {bad})
    assert mending.new_index is None
    assert "was copied from ./other: here it is empty" in mending.actions[0].description


def test_nothing_is_taken_for_a_tag_that_goes_or_is_cut(shelf: Shelf) -> None:
    """What a dropped tag lacked, or a step that goes, is nobody's loss."""
    layers = [shelf.layer(name) for name in "abc"]
    image = shelf.image([layers[0], shelf.layer("gone")])
    shelf.tag("image", image)
    shelf.tag("main", shelf.cache(layers))
    shelf.lose({"digest": digest_of(b"layer gone")})
    shelf.lose(layers[1])
    # c lies on b: without b nobody needs it.
    shelf.offers[parse_digest(layers[2]["digest"])] = "./other"
    mending = mend(shelf)
    assert kinds(mending) == [("remove-tag", "image"), ("rewrite-cache", "main")]
    assert mending.copies == {}


@pytest.mark.parametrize("what", ["root", "config"])
def test_without_its_structure_nothing_of_a_tag_is_left(shelf: Shelf, what: str) -> None:
    root = shelf.cache([shelf.layer("a")])
    shelf.tag("main", root)
    shelf.tag("other", shelf.cache([shelf.layer("b")]))
    gone = (
        root
        if what == "root"
        else {"digest": digest_of(encode(chain_of_steps([shelf.layer("a")])))}
    )
    bad = shelf.spoil(gone)
    mending = mend(shelf)
    assert kinds(mending) == [("remove-tag", "main"), ("quarantine-blob", None)]
    assert list(tags(mending)) == ["other"]
    kind = "manifest" if what == "root" else "cacheconfig"
    assert mending.actions[0].description == (
        f"tag 'main' was removed from index.json: {kind} {bad.short} holds other bytes"
    )


def test_a_cache_of_which_no_step_is_left_goes(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("main", shelf.cache(layers))
    shelf.lose(layers[0])
    mending = mend(shelf)
    assert kinds(mending) == [("remove-tag", "main")]
    assert "no usable step is left" in mending.actions[0].description


def test_a_cacheconfig_that_buildkit_refuses_leaves_nothing(shelf: Shelf) -> None:
    layers = [shelf.layer("a")]
    looping = chain_of_steps(layers) | {"records": [{"digest": "x", "inputs": [[{"link": 0}]]}]}
    shelf.tag("main", shelf.cache(layers, looping))
    mending = mend(shelf)
    assert kinds(mending) == [("remove-tag", "main")]
    assert "BuildKit would import none of it" in mending.actions[0].description


def test_an_image_that_lacks_a_blob_goes(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("app", shelf.image(layers))
    shelf.lose(layers[0])
    mending = mend(shelf)
    assert kinds(mending) == [("remove-tag", "app")]
    assert (mending.new_blobs, json.loads(mending.new_index or b"")["manifests"]) == ({}, [])


def large(shelf: Shelf, count: int) -> Json:
    """A cache of independent steps, the first the oldest, with long names."""
    layers = [shelf.layer(f"{n}") for n in range(count)]
    records = [
        {
            "digest": f"{n:02000}",
            "layers": [
                {
                    "layer": n,
                    "createdAt": f"2026-01-01T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z",
                }
            ],
        }
        for n in range(count)
    ]
    listed = [{"blob": layer["digest"], "parent": -1} for layer in layers]
    return shelf.cache(layers, {"layers": listed, "records": records})


def test_what_is_above_buildkits_cap_loses_its_coldest_steps(shelf: Shelf) -> None:
    shelf.tag("main", large(shelf, 600))
    mending = mend(shelf)
    assert kinds(mending) == [("rewrite-cache", "main")]
    config, manifest = mending.new_blobs.values()
    assert max(len(config), len(manifest)) <= IMPORT_LIMIT_BYTES
    left = [record.digest for record in read_cacheconfig(config).records]
    assert left == [f"{n:02000}" for n in range(600 - len(left), 600)]
    assert 400 < len(left) < 600
    assert "BuildKit imports at most 1,048,576" in mending.actions[0].description


def test_a_subject_may_be_missing(shelf: Shelf) -> None:
    never_here = {"mediaType": MANIFEST, "digest": str(digest("subject")), "size": 3}
    config = shelf.put(b"{}", IMAGE_CONFIG)
    body = {"config": config, "layers": [shelf.layer("a")], "subject": never_here}
    shelf.tag("artifact", shelf.put(encode(body), MANIFEST))
    # A survey notes an absent subject as a leaf that is missing.
    survey = shelf.found().survey._replace(
        damage=(), missing_blobs=(MissingBlob(digest("subject"), "artifact"),)
    )
    assert mend(shelf, survey=survey).actions == ()


def test_a_layer_that_is_gone_and_that_no_step_needs_goes_from_the_manifest(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag("main", shelf.cache(layers, chain_of_steps(layers[:1])))
    shelf.lose(layers[1])
    mending = mend(shelf)
    assert kinds(mending) == [("rewrite-cache", "main")]
    assert ", with all its steps: layer " in mending.actions[0].description
    _, manifest = mending.new_blobs.values()
    root = read_cache_manifest(manifest)
    assert root is not None
    assert len(root.layers) == 1


def test_a_root_that_is_manifest_and_index_at_once_is_nobodys_cache(shelf: Shelf) -> None:
    layers = [shelf.layer("a")]
    config = shelf.put(encode(chain_of_steps(layers)), CACHECONFIG)
    both = {"config": config, "layers": layers, "manifests": []}
    shelf.tag("main", shelf.put(encode(both), MANIFEST))
    mending = mend(shelf)
    assert kinds(mending) == [("remove-tag", "main")]
    assert "BuildKit would import none of it" in mending.actions[0].description


def test_what_a_rewrite_does_not_mend_goes(shelf: Shelf) -> None:
    """The cache is whole, and what it is about has a hole: the next repair would find it again."""
    layers = [shelf.layer("a")]
    config = shelf.put(encode(chain_of_steps(layers)), CACHECONFIG)
    lost = shelf.image([shelf.layer("lost")])
    subject = shelf.put(encode({"manifests": [lost]}), INDEX)
    root = {"config": config, "layers": layers, "subject": subject}
    shelf.tag("main", shelf.put(encode(root), MANIFEST))
    shelf.lose(lost)
    mending = mend(shelf)
    assert kinds(mending) == [("remove-tag", "main")]


def test_a_lost_manifest_that_another_calls_a_layer_is_lost_to_both(shelf: Shelf) -> None:
    """A survey tells of it once, as damage."""
    lost = shelf.cache([shelf.layer("a")])
    shelf.tag("list", shelf.put(encode({"manifests": [lost]}), INDEX))
    shelf.tag("image", shelf.image([lost | {"mediaType": LAYER}]))
    shelf.lose(lost)
    survey = shelf.found().survey._replace(missing_blobs=())
    mending = mend(shelf, survey=survey)
    assert kinds(mending) == [("remove-tag", "list"), ("remove-tag", "image")]


def test_a_root_without_a_name_is_no_last_export(shelf: Shelf) -> None:
    layers = [shelf.layer(name) for name in "ab"]
    shelf.tag(None, shelf.cache(layers))
    shelf.lose(layers[1])
    plan = mend(shelf)
    assert kinds(plan) == [("rewrite-cache", None)]
    assert plan.moved_exports == {}
