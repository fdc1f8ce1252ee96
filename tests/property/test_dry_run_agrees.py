"""Law: a dry run touches nothing, and the run then does exactly what it said."""

from hypothesis import given
from hypothesis import strategies as st

import kitcache
from tests.property.disk import on_disk, snapshot
from tests.property.model import Cache
from tests.property.strategies import caches

HOUR_NS = 3600 * 10**9


@given(caches(), st.sampled_from([0, HOUR_NS]))
def test_a_dry_run_and_a_run_agree(cache: Cache, min_age_ns: int) -> None:
    policy = kitcache.SweepOptions(min_age_ns=min_age_ns)
    with on_disk(cache) as root:
        before = snapshot(root)
        dry = kitcache.reset(root, options=policy, dry_run=True)
        assert snapshot(root) == before
        assert not (root / "kitcache.lock").exists()
        run = kitcache.reset(root, options=policy)
    assert (dry.outcome, run.outcome) == ("dry-run", "done")
    assert dry._replace(outcome="done", seconds=0.0) == run._replace(seconds=0.0)


@given(caches())
def test_a_dry_run_of_untag_and_the_untag_agree(cache: Cache) -> None:
    names = sorted({e.ref_name for e in cache.entries if e.ref_name})
    if not names:
        return
    with on_disk(cache) as root:
        before = snapshot(root)
        dry = kitcache.untag(root, names, dry_run=True)
        assert snapshot(root) == before
        run = kitcache.untag(root, names)
    assert dry._replace(outcome=run.outcome) == run
    assert run.entries
