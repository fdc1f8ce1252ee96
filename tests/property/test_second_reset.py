"""Law: a second reset removes nothing, and says the same of what is kept."""

from hypothesis import given

import kitcache
from tests.property.disk import on_disk, settle, snapshot
from tests.property.model import Cache
from tests.property.strategies import caches


@given(caches())
def test_a_second_reset_removes_nothing(cache: Cache) -> None:
    with on_disk(cache) as root:
        first = kitcache.reset(root)
        after = snapshot(root)
        settle(root)
        second = kitcache.reset(root)
        assert snapshot(root) == after
    nothing = kitcache.Tally(0, 0)
    assert second.deleted == second.ingests_deleted == nothing
    one, two = (
        report._replace(deleted=nothing, ingests_deleted=nothing, seconds=0.0)
        for report in (first, second)
    )
    assert one == two
