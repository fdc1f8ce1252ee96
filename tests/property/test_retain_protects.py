"""Laws of what stays in any case: by a keep rule, without a tag, as the last one."""

from hypothesis import given
from hypothesis import strategies as st

from tests.property.policies import NAMES, Case, cases, protected_in


@given(cases())
def test_what_a_keep_rule_keeps_is_never_dropped(case: Case) -> None:
    assert protected_in(case) <= case.kept()


@given(cases(), st.sets(st.sampled_from(NAMES)))
def test_what_was_just_exported_is_never_dropped(case: Case, names: set[str]) -> None:
    decisions = case._replace(protected=frozenset(names)).decide().values()
    assert [d for d in decisions if d.ref_name in names and not d.keep] == []


@given(cases())
def test_an_entry_without_a_tag_is_never_retired(case: Case) -> None:
    assert [d for d in case.decide().values() if d.ref_name is None and not d.keep] == []


@given(cases())
def test_a_tag_is_left_unless_none_is_asked_for(case: Case) -> None:
    case = case._replace(policy=case.policy._replace(allow_empty=False))
    tags = [decision for decision in case.decide().values() if decision.ref_name is not None]
    assert not tags or any(decision.keep for decision in tags)


@given(cases())
def test_to_allow_an_empty_cache_never_keeps_more(case: Case) -> None:
    strict, lax = (case.policy._replace(allow_empty=empty) for empty in (False, True))
    assert case._replace(policy=lax).kept() <= case._replace(policy=strict).kept()


@given(cases())
def test_a_policy_that_asks_for_nothing_drops_nothing(case: Case) -> None:
    case = case._replace(
        policy=case.policy._replace(keep_tags=(), drop_tags=(), rules=(), max_used=None)
    )
    assert case._replace(limit=None).kept() == {fact.positions for fact in case.facts}
