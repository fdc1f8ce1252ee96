"""Laws of times: one that is ahead, or not known, never makes a tag go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitcache.gc.values import UsedFrom
from tests.property.policies import NOW, Case, cases

ORIGINS: list[UsedFrom] = ["export", "unknown"]


@pytest.mark.parametrize("used_from", ORIGINS)
@given(case=cases(), data=st.data(), ahead=st.integers(0, 10**18))
def test_a_time_that_is_wrong_makes_no_tag_go(
    case: Case, data: st.DataObject, ahead: int, used_from: UsedFrom
) -> None:
    kept = sorted(case.kept())
    if not kept:
        return
    chosen = data.draw(st.sampled_from(kept))
    used = NOW + ahead if used_from != "unknown" else 0
    facts = tuple(
        fact._replace(used_ns=used, used_from=used_from) if fact.positions == chosen else fact
        for fact in case.facts
    )
    assert chosen in case._replace(facts=facts).kept()


@given(cases())
def test_the_time_that_counts_is_never_ahead(case: Case) -> None:
    assert all(decision.last_used_ns <= NOW for decision in case.decide().values())
