"""Law: neither the order of directory entries nor that of index entries matters."""

from hypothesis import given
from hypothesis import strategies as st

import kitcache
from tests.property.disk import blobs, on_disk
from tests.property.model import HOUR_S, Cache
from tests.property.strategies import caches, orders

HOUR_NS = HOUR_S * 10**9


@st.composite
def shuffled(draw: st.DrawFn) -> tuple[Cache, Cache, list[str]]:
    """A cache, the same with its entries in another order, and an order to write blobs in."""
    cache = draw(caches())
    entries = tuple(draw(st.permutations(cache.entries)))
    return cache, cache._replace(entries=entries), draw(orders(cache))


@given(shuffled(), st.sampled_from([0, HOUR_NS]))
def test_order_does_not_matter(drawn: tuple[Cache, Cache, list[str]], min_age_ns: int) -> None:
    policy = kitcache.SweepOptions(min_age_ns=min_age_ns)
    cache, other, order = drawn
    with on_disk(cache) as one, on_disk(other, order) as two:
        here, there = (kitcache.reset(root, options=policy) for root in (one, two))
        assert blobs(one) == blobs(two)
    assert here.deleted == there.deleted
    assert here.kept == there.kept
    assert set(here.foreign) == set(there.foreign)
    assert {leaf.digest for leaf in here.missing_blobs} == {
        leaf.digest for leaf in there.missing_blobs
    }
