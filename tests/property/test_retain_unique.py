"""Law: what a tag holds alone is what is free without it, whatever else is decided."""

from hypothesis import given

from kitcache.gc.values import Tally
from tests.property.policies import Case, cases


@given(cases())
def test_unique_is_what_nothing_else_reaches(case: Case) -> None:
    everything = {fact.positions for fact in case.facts}
    decisions = case.decide()
    for fact in case.facts:
        others = {b for other in case.facts if other is not fact for b in other.blobs}
        alone = [case.sizes[b] for b in fact.blobs if b in case.sizes and b not in others]
        held = [case.sizes[b] for b in fact.blobs if b in case.sizes]
        assert decisions[fact.positions].unique == Tally(len(alone), sum(alone))
        assert decisions[fact.positions].size == Tally(len(held), sum(held))
        without = case.bytes_of(everything - {fact.positions})
        assert case.bytes_of(everything) - without == sum(alone)
