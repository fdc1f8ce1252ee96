"""upkeep/project.py, beside the law that it is what a second survey finds (tests/property)."""

import pytest

from kitcache.gc.values import MissingBlob, Root, Survey, key_of
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.links import Link
from kitcache.upkeep.project import CacheDocuments, RewrittenRoot, project
from tests.hostile.build import CACHECONFIG, LAYER, MANIFEST, digest_of, encode
from tests.unit.gc.surveys import EMPTY, digest

GONE = Descriptor(LAYER, digest("gone"), 4)


def root(word: str, position: int) -> Root:
    return Root(position, word, Descriptor(MANIFEST, digest(word), 100))


def survey_of(*roots: Root, leaf: Descriptor = GONE) -> Survey:
    """Each root names the same leaf, which is not there."""
    descriptors = [each.descriptor for each in roots if each.descriptor is not None]
    return EMPTY._replace(
        roots=roots,
        live={descriptor.digest: 100 for descriptor in descriptors},
        links={key_of(descriptor): (Link(leaf, "layer"),) for descriptor in descriptors},
        missing_blobs=(MissingBlob(GONE.digest, "a"),),
    )


def test_what_is_missing_is_named_by_a_tag_that_is_left() -> None:
    survey = survey_of(root("a", 0), root("b", 1), root("c", 2))
    after = project(survey, drop={0}, index_digest=digest("new"))
    assert after.missing_blobs == (MissingBlob(GONE.digest, "b"),)
    assert [(r.ref_name, r.position) for r in after.roots] == [("b", 0), ("c", 1)]
    assert after.index_digest == digest("new")


def test_what_may_rightly_be_missing_is_not_told() -> None:
    survey = survey_of(root("a", 0), root("b", 1), leaf=GONE._replace(elsewhere=True))
    after = project(survey, drop={0}, index_digest=digest("new"))
    assert after.missing_blobs == ()


def test_where_nothing_is_left_nothing_lives() -> None:
    survey = survey_of(root("a", 0), root("b", 1))
    after = project(survey, drop={0, 1}, index_digest=digest("new"))
    assert (after.roots, after.live, after.missing_blobs) == ((), {}, ())


def test_a_root_that_moves_reaches_what_its_new_blobs_name() -> None:
    layers = [Descriptor(LAYER, digest(word), 4) for word in ("cold", "warm")]
    old = root("main", 0)
    assert old.descriptor is not None
    survey = EMPTY._replace(
        roots=(old,),
        live={old.descriptor.digest: 100, **{layer.digest: 4 for layer in layers}},
        links={key_of(old.descriptor): tuple(Link(layer, "layer") for layer in layers)},
    )
    config = encode({"layers": [{"blob": str(layers[1].digest)}], "records": []})
    named = {"mediaType": CACHECONFIG, "digest": digest_of(config), "size": len(config)}
    warm = {"mediaType": LAYER, "digest": str(layers[1].digest), "size": 4}
    manifest = encode({"schemaVersion": 2, "config": named, "layers": [warm]})
    after = project(
        survey,
        move={0: RewrittenRoot(CacheDocuments(manifest, config))},
        index_digest=digest("new"),
    )
    (moved,) = after.roots
    assert moved.descriptor is not None
    assert str(moved.descriptor.digest) == digest_of(manifest)
    assert (moved.ref_name, moved.descriptor.size) == ("main", len(manifest))
    assert {str(d): size for d, size in after.live.items()} == {
        digest_of(manifest): len(manifest),
        digest_of(config): len(config),
        str(layers[1].digest): 4,
    }


def test_a_root_that_cannot_be_read_cannot_be_moved() -> None:
    survey = EMPTY._replace(roots=(Root(0, "main", None),))
    with pytest.raises(ValueError, match="cannot be moved"):
        project(
            survey,
            move={0: RewrittenRoot(CacheDocuments(b"{}", b"{}"))},
            index_digest=digest("new"),
        )


def test_half_of_many_roots_go_in_no_time_at_all() -> None:
    """With a look at all that goes for each root that stays this takes a minute."""
    survey = EMPTY._replace(roots=tuple(Root(n, f"{n}", None) for n in range(60_000)))
    after = project(survey, drop=frozenset(range(0, 60_000, 2)), index_digest=digest("new"))
    assert [root.position for root in after.roots] == list(range(30_000))
    assert after.roots[-1].ref_name == "59999"


def test_the_subject_of_the_index_keeps_its_place() -> None:
    after = project(survey_of(root("a", 0), root("s", -1)), drop={0}, index_digest=digest("new"))
    assert [each.position for each in after.roots] == [-1]
