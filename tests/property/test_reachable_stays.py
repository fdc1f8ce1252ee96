"""Law: nothing that an entry of index.json reaches is ever removed."""

from hypothesis import given
from hypothesis import strategies as st

import kitcache
from tests.property import witness
from tests.property.disk import blobs, on_disk
from tests.property.model import Cache, foreign_names, reach
from tests.property.strategies import caches

AGES_NS = st.sampled_from([0, 1, 900 * 10**9, 3600 * 10**9, 10**18])


@given(caches(), AGES_NS, AGES_NS)
def test_nothing_reachable_is_removed(cache: Cache, min_age_ns: int, ingest_age_ns: int) -> None:
    with on_disk(cache) as root:
        index = (root / "index.json").read_bytes()
        kitcache.reset(root, options=kitcache.SweepOptions(min_age_ns, ingest_age_ns))
        assert reach(cache) & cache.present <= blobs(root)
        assert (root / "index.json").read_bytes() == index


@given(caches())
def test_a_reset_makes_no_new_hole(cache: Cache) -> None:
    with on_disk(cache) as root:
        before = witness.holes(root)
        kitcache.reset(root)
        assert witness.holes(root) == before


@given(caches())
def test_foreign_things_stay(cache: Cache) -> None:
    with on_disk(cache) as root:
        report = kitcache.reset(root)
        for thing in cache.foreign:
            path = root / thing.path
            assert path.is_symlink() if thing.kind == "link" else path.exists()
        assert set(report.foreign) == foreign_names(cache)
        assert report.foreign_count == len(foreign_names(cache))
