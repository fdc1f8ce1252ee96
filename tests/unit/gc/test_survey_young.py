"""gc/survey.py: what young unreferenced blobs shelter, for --min-age."""

import os

from kitcache.gc.control import Control
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Survey
from kitcache.store.open import open_store
from tests.hostile.build import Box, Json, Sample, digest_of, encode

ABSENT: Json = {"mediaType": "application/x-thing", "digest": digest_of(b"nowhere"), "size": 7}


def survey(box: Box, young_since_ns: int) -> Survey:
    with open_store(box.dir) as layout:
        return take_survey(layout, Control("cache", None, None), young_since_ns=young_since_ns)


def names(*descriptors: Json) -> set[str]:
    return {descriptor["digest"].partition(":")[2] for descriptor in descriptors}


def age(box: Box, descriptor: Json, mtime_ns: int) -> None:
    os.utime(box.path_of(descriptor["digest"]), ns=(0, mtime_ns))


def test_what_is_young_and_unreferenced_is_sheltered(sample: Sample) -> None:
    old, young = sample.box.blob(b"old one"), sample.box.blob(b"young one")
    age(sample.box, old, 999)
    age(sample.box, young, 1000)
    for name in sample.garbage:
        os.utime(sample.dir / "blobs" / "sha256" / name, ns=(0, 0))
    found = survey(sample.box, young_since_ns=1000)
    assert {digest.hex for digest in found.young} == names(young)
    assert {digest.hex for digest in found.live} == sample.live


def test_a_young_manifest_shelters_the_old_blobs_that_it_reaches(box: Box) -> None:
    layer = box.blob(b"layer")
    config = box.cacheconfig([layer])
    manifest = box.manifest([layer], config)
    image = box.index_of([manifest])
    garbage = box.blob(b"garbage")
    for old in (layer, config, manifest, garbage):
        age(box, old, 0)
    box.write_index(encode({"manifests": []}))
    found = survey(box, young_since_ns=1000)
    assert {digest.hex for digest in found.young} == names(layer, config, manifest, image)


def test_a_young_blob_that_is_no_document_shelters_itself_alone(box: Box) -> None:
    binary, torn = box.blob(b"\x1f\x8b"), box.blob(b'{"layers":[')
    box.write_index(encode({"manifests": []}))
    found = survey(box, young_since_ns=0)
    assert {digest.hex for digest in found.young} == names(binary, torn)
    assert (found.damage, found.missing_blobs) == ((), ())


def test_a_hole_below_a_young_manifest_is_nobodys_damage(box: Box) -> None:
    box.manifest([ABSENT], box.blob(b"{}"))
    box.write_index(encode({"manifests": []}))
    found = survey(box, young_since_ns=0)
    assert (found.damage, found.missing_blobs) == ((), ())
