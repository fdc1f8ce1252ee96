"""Law: everything unreachable and old enough is removed, and what is too young stays.

With --min-age stays, besides young garbage, everything that young garbage reaches.
"""

from hypothesis import given

import kitcache
from tests.property.disk import blobs, ingests, on_disk
from tests.property.model import HOUR_S, Cache, size_of, stale_ingests, verdict
from tests.property.strategies import caches

HOUR_NS = HOUR_S * 10**9


@given(caches())
def test_all_garbage_is_removed(cache: Cache) -> None:
    expected = verdict(cache)
    with on_disk(cache) as root:
        report = kitcache.reset(root)
        assert blobs(root) == expected.keep
    assert report.outcome == "done"
    assert report.deleted == kitcache.Tally(len(expected.remove), size_of(cache, expected.remove))
    assert report.kept == kitcache.Tally(len(expected.keep), size_of(cache, expected.keep))
    assert report.too_young == kitcache.Tally(0, 0)


@given(caches())
def test_old_garbage_goes_and_young_garbage_holds_its_own(cache: Cache) -> None:
    expected = verdict(cache, HOUR_S)
    with on_disk(cache) as root:
        report = kitcache.reset(root, options=kitcache.SweepOptions(min_age_ns=HOUR_NS))
        left = blobs(root)
    assert expected.keep <= left <= expected.keep | expected.doubt
    spared = left - verdict(cache).keep
    assert report.too_young == kitcache.Tally(len(spared), size_of(cache, spared))
    assert report.kept == kitcache.Tally(len(left), size_of(cache, left))


@given(caches())
def test_uploads_left_behind_go_and_others_stay(cache: Cache) -> None:
    stale = stale_ingests(cache)
    with on_disk(cache) as root:
        report = kitcache.reset(root)
        assert ingests(root) == {i.name for i in cache.ingests} - stale
    assert report.ingests_deleted.blobs == len(stale)
    assert {name for name, _ in report.ingests_kept} == {i.name for i in cache.ingests} - stale
