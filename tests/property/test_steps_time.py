"""The time of a step is the union of the times in which it ran."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kitcache.buildkit.steps import Interval, merge_intervals

HORIZON = 40
INTERVALS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 9) | st.none()).map(
        lambda pair: Interval(pair[0], None if pair[1] is None else pair[0] + pair[1])
    )
)


def moments(intervals: list[Interval] | tuple[Interval, ...]) -> set[int]:
    """Half-open unit spans that are covered."""
    return {
        moment
        for start, stop in intervals
        for moment in range(start, HORIZON if stop is None else stop)
    }


@given(INTERVALS)
def test_it_covers_what_they_cover(intervals: list[Interval]) -> None:
    merged = merge_intervals(intervals)
    assert moments(merged) == moments(intervals)
    assert sum((HORIZON if b is None else b) - a for a, b in merged) == len(moments(intervals))
    assert bool(merged and merged[-1].stop_ns is None) == any(b is None for _, b in intervals)


@given(INTERVALS)
def test_in_order_and_apart(intervals: list[Interval]) -> None:
    for before, after in pairwise(merge_intervals(intervals)):
        assert before.stop_ns is not None
        assert before.stop_ns < after.start_ns


@given(INTERVALS, st.randoms())
def test_order_does_not_matter(intervals: list[Interval], random: object) -> None:
    shuffled = list(intervals)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merge_intervals(shuffled) == merge_intervals(intervals)
