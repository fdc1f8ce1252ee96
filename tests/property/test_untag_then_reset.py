"""Law: untag, then reset, removes exactly what only those entries held, and garbage."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kitcache
from tests.property.disk import blobs, index_document, on_disk, settle, snapshot
from tests.property.model import Cache, Entry, reach, verdict
from tests.property.strategies import caches


@st.composite
def with_names(draw: st.DrawFn) -> tuple[Cache, list[str]]:
    """A cache and some of its tags and root digests."""
    cache = draw(caches(with_ingests=False, min_roots=1))
    known = sorted({e.ref_name for e in cache.entries if e.ref_name is not None})
    known += sorted({e.ref.digest for e in cache.entries})
    return cache, draw(st.lists(st.sampled_from(known), min_size=1, unique=True))


def goes(entry: Entry, names: list[str]) -> bool:
    return entry.ref_name in names or entry.ref.digest in names


@given(with_names())
def test_untag_then_reset_removes_what_only_they_held(drawn: tuple[Cache, list[str]]) -> None:
    cache, names = drawn
    after = cache._replace(entries=tuple(e for e in cache.entries if not goes(e, names)))
    with on_disk(cache) as root:
        kitcache.reset(root)
        whole = blobs(root)
        answer = kitcache.untag(root, names)
        assert blobs(root) == whole
        settle(root)
        kitcache.reset(root)
        assert blobs(root) == verdict(after).keep
    assert whole - verdict(after).keep == (reach(cache) - reach(after)) & cache.present
    gone = [e for e in cache.entries if goes(e, names)]
    assert answer.entries == tuple((e.ref_name, e.ref.digest) for e in gone)


@given(with_names())
def test_untag_changes_nothing_but_the_entries(drawn: tuple[Cache, list[str]]) -> None:
    cache, names = drawn
    stays = [e for e in cache.entries if not goes(e, names)]
    with on_disk(cache) as root:
        before = snapshot(root)
        kitcache.untag(root, names)
        after = snapshot(root)
        assert json.loads((root / "index.json").read_bytes()) == index_document(stays)
    assert {k: v for k, v in before.items() if k != "index.json"} == {
        k: v for k, v in after.items() if k != "index.json"
    }


@given(with_names())
def test_a_name_that_is_not_there_changes_nothing(drawn: tuple[Cache, list[str]]) -> None:
    cache, names = drawn
    with on_disk(cache) as root:
        before = snapshot(root)
        with pytest.raises(kitcache.KitcacheError) as caught:
            kitcache.untag(root, [*names, "no such tag"])
        assert caught.value.exit_code == 1
        assert snapshot(root) == before
