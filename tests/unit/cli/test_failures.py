"""cli/failures.py: how a build failed, in words."""

import pytest

from kitcache.buildkit.status import BuildWarning, Range
from kitcache.cli.failures import failure_lines, warning_lines
from kitcache.errors import BuildFailed, SourceLocation

TEXT = "".join(f"line {number}\n" for number in range(1, 10))


def failed(*sources: tuple[int, int], text: str = TEXT) -> BuildFailed:
    places = tuple(SourceLocation("Dockerfile", first, last, text) for first, last in sources)
    return BuildFailed("failed to solve: boom", locations=places)


def lines(error: BuildFailed, **options: int | None) -> list[str]:
    return list(failure_lines(error, colour=True, **options))


def test_the_step_its_log_the_place_and_the_message() -> None:
    error = BuildFailed(
        "failed to solve: process did not complete: exit code: 3",
        step="[2/2] RUN false",
        log=("one", "\x1b[31mtwo"),
        locations=(SourceLocation("Dockerfile", 3, 3, "FROM base\n# c\nRUN false\n"),),
        step_exit_code=3,
    )
    assert lines(error) == [
        "------",
        " > [2/2] RUN false:",
        "one",
        "\x1b[31mtwo\x1b[0m",
        "------",
        "Dockerfile:3",
        "--------------------",
        "   1 |     FROM base",
        "   2 |     # c",
        "   3 | >>> RUN false",
        "--------------------",
        "kitcache: failed to solve: process did not complete: exit code: 3",
    ]


def test_without_step_and_place_there_is_the_message_alone() -> None:
    assert lines(failed()) == ["kitcache: failed to solve: boom"]


def test_the_log_is_its_end_or_all_of_it() -> None:
    error = BuildFailed("p", step="s", log=tuple(str(number) for number in range(30)))
    assert lines(error)[2:-2] == [str(number) for number in range(10, 30)]
    assert lines(error, log_lines=None)[2:-2] == [str(number) for number in range(30)]
    assert lines(error, log_lines=0)[2:-2] == []


@pytest.mark.parametrize(
    ("place", "shown", "marked"),
    [
        ((1, 1), [1, 2, 3], [1]),
        ((5, 5), [3, 4, 5, 6, 7], [5]),
        ((4, 6), [2, 3, 4, 5, 6, 7, 8], [4, 5, 6]),
        ((9, 9), [7, 8, 9], [9]),
        ((8, 99), [6, 7, 8, 9], [8, 9]),
    ],
)
def test_two_lines_around_the_place(
    place: tuple[int, int], shown: list[int], marked: list[int]
) -> None:
    excerpt = lines(failed(place))[2:-2]
    assert [int(line[:4]) for line in excerpt] == shown
    assert [int(line[:4]) for line in excerpt if ">>>" in line] == marked


def test_a_place_in_an_empty_file_is_no_trouble() -> None:
    assert lines(failed((1, 1), text=""))[0] == "Dockerfile:1"


def test_nothing_in_it_can_act_on_a_terminal() -> None:
    bad = "\x1b[2Jx\x07"
    error = BuildFailed(
        f"{bad}\n{bad}",
        step=bad,
        log=(bad,),
        locations=(SourceLocation(bad, 1, 1, f"\x1b[31m{bad}\ty"),),
    )
    assert lines(error) == [
        "------",
        r" > x\x07:",
        r"x\x07",
        "------",
        r"x\x07:1",
        "--------------------",
        "   1 | >>> x\\x07\ty",
        "--------------------",
        r"kitcache: x\x07",
        r"  x\x07",
    ]


def test_warnings_with_their_lines() -> None:
    one = BuildWarning("v", 1, "Rule: \x1b[2Jdo not", ranges=(Range(3, 0, 3, 0),))
    assert list(warning_lines([])) == []
    assert list(warning_lines([one])) == ["1 warning found:", " - Rule: do not (line 3)"]
    assert list(warning_lines([one, one._replace(ranges=())])) == [
        "2 warnings found:",
        " - Rule: do not (line 3)",
        " - Rule: do not",
    ]
