"""Laws of limits: reached where that is allowed, no more than needed, and monotone."""

from hypothesis import given
from hypothesis import strategies as st

from tests.property.policies import Case, cases, protected_in

limits = st.integers(-1, 100)


@given(cases(), limits)
def test_a_limit_that_the_policy_allows_to_reach_is_reached(case: Case, limit: int) -> None:
    case = case._replace(limit=limit, policy=case.policy._replace(allow_empty=True))
    if case.bytes_of(protected_in(case)) <= limit:
        assert case.bytes_of(case.kept()) <= limit
    else:
        assert case.bytes_of(case.kept()) == case.bytes_of(protected_in(case))


@given(cases(), limits)
def test_above_its_limit_only_what_must_stay_is_left(case: Case, limit: int) -> None:
    case = case._replace(limit=limit)
    kept = case.kept()
    if case.bytes_of(kept) > limit:
        costly = [
            fact.positions
            for fact in case.facts
            if fact.positions in kept - protected_in(case)
            and case.bytes_of(kept - {fact.positions}) < case.bytes_of(kept)
        ]
        assert len(costly) <= 1
        assert not costly or not case.policy.allow_empty


@given(cases(), limits)
def test_the_last_tag_that_a_limit_dropped_had_to_go(case: Case, limit: int) -> None:
    """Of what a limit drops the most recently used one, kept, would have been too much."""
    case = case._replace(limit=limit)
    kept = case.kept()
    dropped = [decision for decision in case.decide().values() if decision.reason == "the limit"]
    if dropped:
        last = max(dropped, key=lambda decision: (decision.last_used_ns, decision.positions))
        assert case.bytes_of(kept | {last.positions}) > limit


@given(cases(), limits, limits)
def test_a_tighter_limit_never_keeps_more(case: Case, one: int, other: int) -> None:
    tight, loose = sorted((one, other))
    assert case._replace(limit=tight).kept() <= case._replace(limit=loose).kept()


@given(cases())
def test_a_limit_above_everything_drops_nothing_more(case: Case) -> None:
    everything = case.bytes_of({fact.positions for fact in case.facts})
    decisions = case._replace(limit=everything).decide().values()
    assert [d for d in decisions if d.reason == "the limit"] == []
