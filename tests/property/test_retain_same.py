"""Laws: the same input has the same answer, in whatever order it comes; a tag is decided once."""

from hypothesis import given
from hypothesis import strategies as st

from kitcache.upkeep.pruning.decisions import TagFacts
from tests.property.policies import Case, cases


@st.composite
def shuffled(draw: st.DrawFn) -> tuple[Case, Case]:
    """A case, and the same with tags, sizes and the members of sets in another order."""
    case = draw(cases())
    facts = tuple(
        fact._replace(blobs=frozenset(draw(st.permutations(sorted(fact.blobs)))))
        for fact in draw(st.permutations(case.facts))
    )
    sizes = dict(draw(st.permutations(list(case.sizes.items()))))
    return case, case._replace(facts=facts, sizes=sizes)


@given(cases())
def test_the_same_input_has_the_same_answer(case: Case) -> None:
    assert case.decide() == case.decide()


@given(shuffled())
def test_no_order_matters(drawn: tuple[Case, Case]) -> None:
    one, other = drawn
    assert one.decide() == other.decide()


@given(cases())
def test_decisions_come_in_the_order_of_the_tags_with_all_their_entries(case: Case) -> None:
    def key(fact: TagFacts) -> tuple[str | None, tuple[int, ...]]:
        return fact.ref_name, fact.positions

    made = [(decision.ref_name, decision.positions) for decision in case.decide().values()]
    assert made == [key(fact) for fact in case.facts]
