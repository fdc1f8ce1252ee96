"""However a log is cut into pieces, its lines are the same."""

from hypothesis import given
from hypothesis import strategies as st

from kitcache.buildkit.status import BuildUpdate, Vertex, VertexLog
from kitcache.buildkit.steps import StepTracker

PRINTED = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"a", "é".encode(), "日".encode(), b"\xff", b"\xe6"])
).map(b"".join)


def lines_of(*pieces: bytes) -> tuple[list[str], str]:
    """All lines, and the unfinished one."""
    steps = StepTracker()
    steps.apply(BuildUpdate((Vertex("v", started_ns=0),)))
    found = [
        line.text
        for piece in pieces
        for _, line in steps.apply(BuildUpdate(logs=(VertexLog("v", 1, piece, 5),))).lines
    ]
    return found, steps.steps[0].unfinished


@given(PRINTED, st.lists(st.integers(0, 100)))
def test_cuts_do_not_matter(printed: bytes, cuts: list[int]) -> None:
    ends = sorted(min(cut, len(printed)) for cut in cuts)
    pieces = [printed[a:b] for a, b in zip([0, *ends], [*ends, len(printed)], strict=True)]
    assert lines_of(*pieces) == lines_of(printed)


@given(PRINTED)
def test_a_line_is_what_is_between_two_ends(printed: bytes) -> None:
    *lines, rest = printed.split(b"\n")
    shown = [line.rstrip(b"\r").split(b"\r")[-1] for line in (*lines, rest)]
    texts = [line.decode("utf-8", "backslashreplace") for line in shown]
    assert lines_of(printed) == (texts[:-1], texts[-1])


@given(st.binary(min_size=1, max_size=5), st.integers(10_000, 70_000))
def test_nothing_of_a_line_without_end_is_lost(unit: bytes, count: int) -> None:
    printed = unit.replace(b"\n", b".").replace(b"\r", b".") * count
    lines, rest = lines_of(printed)
    assert "".join(lines) + rest == printed.decode("utf-8", "backslashreplace")
