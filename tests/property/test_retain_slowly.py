"""Law: what stays is what a slow reading of the promise keeps."""

from hypothesis import given

from tests.property.policies import Case, cases, judge_slowly


@given(cases())
def test_the_same_tags_stay_as_by_counting_at_each_step(case: Case) -> None:
    assert case.kept() == judge_slowly(case)
