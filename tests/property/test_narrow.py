"""Law: a survey that was narrowed is the one that is taken once index.json has been edited."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kitcache.gc.control import Control
from kitcache.gc.reach import reach
from kitcache.gc.survey import take_survey
from kitcache.gc.values import NodeKey, Survey
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.store.open import open_store
from kitcache.upkeep.project import project
from tests.property.disk import index_document, on_disk
from tests.property.model import HOUR_S, Cache
from tests.property.strategies import caches

HOUR_NS = HOUR_S * 10**9


@st.composite
def with_drops(draw: st.DrawFn) -> tuple[Cache, frozenset[int]]:
    """A cache, and the positions of some of its entries."""
    cache = draw(caches(with_ingests=False, min_roots=1))
    positions = st.integers(0, len(cache.entries) - 1)
    return cache, frozenset(draw(st.lists(positions, min_size=1, unique=True)))


def edit(root: Path, cache: Cache, drop: frozenset[int]) -> None:
    stays = [entry for n, entry in enumerate(cache.entries) if n not in drop]
    (root / "index.json").write_text(json.dumps(index_document(stays)))


def survey_of(root: Path, young_since_ns: int | None = None) -> Survey:
    with open_store(root) as layout:
        return take_survey(layout, Control("cache", None, None), young_since_ns=young_since_ns)


def missing(survey: Survey, links: Survey) -> set[Digest]:
    """But for what some say is elsewhere: then it depends on whose link is seen first."""
    found = [link.descriptor for some in links.links.values() for link in some]
    return {leaf.digest for leaf in survey.missing_blobs} - {
        descriptor.digest for descriptor in found if descriptor.elsewhere
    }


def agree(narrowed: Survey, fresh: Survey) -> None:
    assert narrowed.index_digest == fresh.index_digest
    assert narrowed.roots == fresh.roots
    assert narrowed.live == fresh.live
    assert missing(narrowed, narrowed) == missing(fresh, narrowed)
    names = {root.ref_name for root in narrowed.roots}
    assert {leaf.ref_name for leaf in narrowed.missing_blobs} <= names
    assert narrowed.damage == fresh.damage == ()


def below(survey: Survey, keys: list[NodeKey]) -> set[Digest]:
    found = {digest for key in keys for digest in reach(survey, Descriptor(key[1], key[0], key[2]))}
    return found - {key[0] for key in keys}


@given(with_drops())
def test_it_is_what_a_second_survey_finds(drawn: tuple[Cache, frozenset[int]]) -> None:
    cache, drop = drawn
    with on_disk(cache) as root:
        before = survey_of(root)
        edit(root, cache, drop)
        fresh = survey_of(root)
    narrowed = project(before, drop=drop, index_digest=fresh.index_digest)
    agree(narrowed, fresh)
    assert fresh.links.items() <= narrowed.links.items()


@given(with_drops())
def test_what_is_young_shelters_the_same(drawn: tuple[Cache, frozenset[int]]) -> None:
    cache, drop = drawn
    with on_disk(cache) as root:
        since_ns = (root / "index.json").stat().st_mtime_ns
        before = survey_of(root, since_ns)
        edit(root, cache, drop)
        fresh = survey_of(root, since_ns)
        with open_store(root) as layout:
            layout.open_directories()
            given_up = before.live.keys() - fresh.live.keys()
            found = {digest: layout.stat_blob(digest) for digest in given_up}
    young = [digest for digest, blob in found.items() if blob and blob.mtime_ns >= since_ns]
    narrowed = project(before, drop=drop, young=young, index_digest=fresh.index_digest)
    agree(narrowed, fresh)
    assert narrowed.young.items() <= fresh.young.items()
    # What lies about its kind is a leaf while it lives, and is looked into once it does not.
    liars = [key for key in fresh.links if key[0] in given_up and key not in before.links]
    assert fresh.young.keys() - narrowed.young.keys() <= below(fresh, liars)
