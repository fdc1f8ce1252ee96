"""cli/plain.py: lines as buildx prints them."""

from pathlib import Path
from typing import NamedTuple

import pytest

from kitcache.buildkit.status import BuildUpdate, ProgressGroup
from kitcache.cli.plain import Plain
from tests.unit.buildkit.recordings import latest_s, read_updates
from tests.unit.cli.progress import Clock, Output, begun, ended, log, transfer, vertex

RECORDED = Path(__file__).parent / "recorded"


class Screen(NamedTuple):
    """A display and what it writes to."""

    display: Plain
    out: Output
    clock: Clock

    def show(self, *updates: BuildUpdate, after_s: float = 0.2) -> list[str]:
        """What is printed of these updates once time has passed."""
        for update in updates:
            self.display.update(update)
        self.clock.now_s += after_s
        self.display.tick()
        return self.out.new().splitlines()


@pytest.fixture
def screen() -> Screen:
    out, clock = Output(), Clock()
    return Screen(Plain(out, clock, colour=True), out, clock)


@pytest.mark.parametrize("name", ["build", "failed"])
def test_a_real_build(request: pytest.FixtureRequest, name: str) -> None:
    out, clock = Output(), Clock()
    display = Plain(out, clock, colour=False)
    for update in read_updates(name):
        clock.now_s = max(clock.now_s, latest_s(update))
        display.update(update)
    display.close()
    path = RECORDED / f"{name}.plain"
    if request.config.getoption("--golden"):
        path.write_text(out.getvalue())
    assert out.getvalue() == path.read_text(), "if this is as it should be: --golden"


def test_a_step_from_its_name_to_its_end(screen: Screen) -> None:
    assert screen.show(begun("a"), log("a", "hello\n", 0.5)) == ["#1 RUN a", "#1 0.500 hello"]
    assert screen.show(log("a", "more\n", 12)) == ["#1 12.00 more"]
    assert screen.show(ended("a", stop=12.34)) == ["#1 DONE 12.3s"]


@pytest.mark.parametrize(
    ("update", "line"),
    [
        (ended("a", cached=True), "#1 CACHED"),
        (ended("a", error="boom"), "#1 ERROR: boom"),
        (ended("a", error="x: context canceled"), "#1 CANCELED"),
        (ended("a"), "#1 DONE 1.0s"),
    ],
)
def test_endings(screen: Screen, update: BuildUpdate, line: str) -> None:
    assert screen.show(update) == ["#1 RUN a", line]


def test_news_of_a_tenth_of_a_second_are_printed_together(screen: Screen) -> None:
    assert screen.show(ended("a"), ended("a", 2, 3), after_s=0) == []
    assert screen.show(after_s=0.11) == ["#1 RUN a", "#1 DONE 2.0s"]


def test_a_planned_step_is_not_printed(screen: Screen) -> None:
    assert screen.show(BuildUpdate((vertex("a", None),))) == []


def test_what_has_ended_comes_first_and_in_order(screen: Screen) -> None:
    screen.show(begun("run"))
    lines = screen.show(log("run", "x\n"), ended("late", stop=3), ended("early", stop=2))
    assert [line for line in lines if line] == [
        "#1 ...",
        "#2 RUN early",
        "#2 DONE 2.0s",
        "#3 RUN late",
        "#3 DONE 3.0s",
        "#1 RUN run",
        "#1 0.000 x",
    ]


def test_one_running_step_at_a_time_each_for_five_seconds(screen: Screen) -> None:
    assert screen.show(begun("a", "b"), log("a", "a1\n")) == ["#1 RUN a", "#1 0.000 a1"]
    assert screen.show(log("b", "b1\n")) == []
    assert screen.show(log("a", "a2\n")) == ["#1 0.000 a2"]
    assert screen.show(after_s=5) == ["#1 ...", "", "#2 RUN b", "#2 0.000 b1"]
    assert screen.show(log("a", "a3\n")) == []
    assert screen.show(after_s=5) == ["#2 ...", "", "#1 RUN a", "#1 0.000 a3"]


def test_a_step_that_says_nothing_keeps_its_turn_while_nobody_waits(screen: Screen) -> None:
    screen.show(begun("a"))
    assert screen.show(after_s=60) == []


def test_another_open_step_follows_when_one_has_ended(screen: Screen) -> None:
    screen.show(begun("a", "b"), log("a", "x\n"))
    screen.show(after_s=5)
    assert screen.show(ended("b"))[:2] == ["#2 DONE 1.0s", ""]
    assert screen.show(log("a", "y\n")) == ["#1 0.000 y"]


def test_a_transfer_is_told_again_after_5_percent_or_5_seconds_or_at_its_end(
    screen: Screen,
) -> None:
    screen.show(begun("a"))
    assert screen.show(transfer("a", 0, 100)) == ["#1 pulling 0B / 100B"]
    assert screen.show(transfer("a", 4, 100, 1)) == []
    assert screen.show(transfer("a", 5, 100, 1)) == ["#1 pulling 5B / 100B 1.0s"]
    assert screen.show(transfer("a", 6, 100, 5.5)) == []
    assert screen.show(transfer("a", 7, 100, 6)) == ["#1 pulling 7B / 100B 6.0s"]
    assert screen.show(transfer("a", 7, 100, 6.1, done=True)) == ["#1 pulling 7B / 100B 6.1s done"]
    assert screen.show(transfer("a", 7, 100, 6.1, done=True)) == []


def test_transfers_may_follow_the_end(screen: Screen) -> None:
    screen.show(ended("a"))
    late = screen.show(transfer("a", 1_200_000, at=0.1, done=True))
    assert late == ["", "#1 RUN a", "#1 pulling 1.20MB 0.1s done", "#1 DONE 1.0s"]


def test_a_line_without_end_is_printed_after_five_seconds(screen: Screen) -> None:
    screen.show(begun("a"))
    assert screen.show(log("a", "password: ")) == []
    assert screen.show(after_s=4.9) == []
    assert screen.show(after_s=0.2) == ["#1 0.000 password: "]
    assert screen.show(log("a", "no\n")) == ["#1 0.000 no"]


def test_five_seconds_of_its_own_turn(screen: Screen) -> None:
    screen.show(begun("a", "b"), log("a", "x\n"))
    screen.show(after_s=1)
    screen.show(log("a", "dots"), log("b", "dots"))
    assert screen.show(after_s=4)[-1] == "#2 RUN b"
    assert screen.show(after_s=0) == screen.show(after_s=4.9) == []
    assert screen.show(after_s=0.2) == ["#2 0.000 dots"]


def test_or_when_its_step_ends(screen: Screen) -> None:
    screen.show(begun("a"))
    assert screen.show(log("a", "last"), ended("a")) == ["#1 0.000 last", "#1 DONE 1.0s"]


def test_a_hidden_group_says_what_it_knows_once_it_is_shown(screen: Screen) -> None:
    weak, strong = ProgressGroup("g", "group", weak=True), ProgressGroup("g", "group", weak=False)
    assert screen.show(BuildUpdate((vertex("a", group=weak),)), log("a", "early\n")) == []
    shown = screen.show(BuildUpdate((vertex("b", group=strong),)))
    assert shown == ["#1 group", "#1 0.000 early"]


def test_the_end_of_the_display_leaves_nothing_unsaid(screen: Screen) -> None:
    screen.show(begun("a", "b"))
    for update in (log("a", "a1\n"), log("b", "b1\nunfinished")):
        screen.display.update(update)
    screen.display.close()
    said = screen.out.new()
    assert {"#1 0.000 a1", "#2 0.000 b1", "#2 0.000 unfinished"} <= set(said.splitlines())
    assert said.endswith("\n")


def test_a_remark_has_lines_of_its_own(screen: Screen) -> None:
    screen.show(begun("a"))
    screen.display.note("one\ntwo\x1b[2J")
    assert screen.out.new() == "one\ntwo\n"


HOSTILE = "x\x1b]0;t\x07\x1b[2J\x1b[31mred\n"


def test_names_logs_and_errors_cannot_act_on_a_terminal(screen: Screen) -> None:
    bad = "n\x1b[2J\n"
    update = BuildUpdate((vertex("a", 0, 1, name=bad, error=bad),))
    screen.display.update(BuildUpdate((vertex("a", name=bad),)))
    assert screen.show(log("a", HOSTILE), update) == [
        r"#1 n\n",
        "#1 0.000 x\x1b[31mred\x1b[0m",
        r"#1 ERROR: n\n",
    ]


def test_without_colours_there_are_none() -> None:
    out, clock = Output(), Clock()
    screen = Screen(Plain(out, clock, colour=False), out, clock)
    screen.show(begun("a"))
    assert screen.show(log("a", HOSTILE)) == ["#1 0.000 xred"]
