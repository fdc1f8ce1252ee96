"""buildkit/steps.py: updates folded to steps."""

import pytest

from kitcache.buildkit.status import (
    BuildUpdate,
    BuildWarning,
    ProgressGroup,
    Transfer,
    Vertex,
    VertexLog,
)
from kitcache.buildkit.steps import LOG_LINES, Interval, LogLine, Step, StepChanges, StepTracker
from tests.unit.buildkit.recordings import read_updates

S = 10**9
PLANNED = Vertex("v", name="RUN x")
STARTED = PLANNED._replace(started_ns=10 * S)
DONE = STARTED._replace(completed_ns=13 * S)


def folded(*vertexes: Vertex) -> StepTracker:
    """The steps after these vertices, an update each."""
    steps = StepTracker()
    for vertex in vertexes:
        steps.apply(BuildUpdate((vertex,)))
    return steps


def only(steps: StepTracker) -> Step:
    (step,) = steps.steps
    return step


def log(data: bytes, at_s: float = 10, vertex: str = "v") -> BuildUpdate:
    return BuildUpdate(logs=(VertexLog(vertex, 1, data, int(at_s * S)),))


def lines(news: StepChanges) -> list[str]:
    return [line.text for _, line in news.lines]


@pytest.mark.parametrize(
    ("vertex", "state"),
    [
        (PLANNED, "planned"),
        (STARTED, "running"),
        (STARTED._replace(cached=True), "running"),
        (DONE, "done"),
        (DONE._replace(cached=True), "cached"),
        (DONE._replace(error="boom"), "error"),
        (DONE._replace(error="x: context canceled"), "canceled"),
        (PLANNED._replace(error="never began"), "error"),
    ],
)
def test_state(vertex: Vertex, state: str) -> None:
    assert only(folded(vertex)).state == state


def test_a_bare_vertex_once_more_resets_nothing() -> None:
    steps = folded(PLANNED, DONE)
    assert steps.apply(BuildUpdate((PLANNED,))) == StepChanges((), (), ())
    assert only(steps).state == "done"


def test_the_same_news_twice_are_none() -> None:
    assert folded(STARTED).apply(BuildUpdate((STARTED,))).steps == ()


def test_a_step_may_begin_again_and_its_time_is_that_in_which_it_ran() -> None:
    again = STARTED._replace(started_ns=20 * S)
    steps = folded(DONE, again)
    assert only(steps).state == "running"
    assert only(steps).seconds(25 * S) == 8
    steps.apply(BuildUpdate((again._replace(completed_ns=21 * S),)))
    assert only(steps).intervals == (Interval(10 * S, 13 * S), Interval(20 * S, 21 * S))
    assert only(steps).seconds(99 * S) == 4


def test_a_step_that_runs_twice_at_once_runs_until_both_have_ended() -> None:
    second = STARTED._replace(started_ns=11 * S)
    steps = folded(STARTED, second, DONE)
    assert only(steps).state == "running"
    steps.apply(BuildUpdate((second._replace(completed_ns=12 * S),)))
    assert only(steps).state == "done"
    assert only(steps).seconds(0) == 3


def test_clocks_that_run_backwards_give_no_negative_time() -> None:
    assert only(folded(STARTED._replace(completed_ns=2 * S))).seconds(0) == 0
    assert only(folded(STARTED)).seconds(0) == 0


def test_steps_are_in_the_order_in_which_they_began_then_the_planned() -> None:
    a, b, c = (Vertex(name, name=name) for name in "abc")
    steps = folded(a, b, c, c._replace(started_ns=5), b._replace(started_ns=4))
    assert [step.key for step in steps.steps] == ["c", "b", "a"]
    assert steps.started_ns == 4


def test_transfers_show_once_they_have_begun_and_may_follow_the_end() -> None:
    steps = folded(DONE)
    waiting = Transfer("layer", "v", total=5)
    assert steps.apply(BuildUpdate(transfers=(waiting,))).transfers == (("v", waiting),)
    assert only(steps).transfers == ()
    begun = waiting._replace(started_ns=1, current=5)
    steps.apply(BuildUpdate(transfers=(begun,)))
    assert only(steps).transfers == (begun,)
    assert only(steps).state == "done"


def test_one_id_in_two_steps_is_two_transfers() -> None:
    steps = folded(STARTED, STARTED._replace(digest="w"))
    pair = (
        Transfer("t", "v", current=1, started_ns=1),
        Transfer("t", "w", current=2, started_ns=1),
    )
    steps.apply(BuildUpdate(transfers=pair))
    assert [step.transfers for step in steps.steps] == [pair[:1], pair[1:]]


def test_what_belongs_to_an_unknown_vertex_is_dropped() -> None:
    update = BuildUpdate(
        transfers=(Transfer("t", "?", started_ns=1),), logs=(VertexLog("?", 1, b"x\n"),)
    )
    steps = folded(STARTED)
    assert steps.apply(update) == StepChanges((), (), ())
    assert (only(steps).transfers, only(steps).log) == ((), ())


def test_lines_are_whole_whatever_the_cuts() -> None:
    steps = folded(STARTED)
    assert lines(steps.apply(log(b"one\ntw"))) == ["one"]
    assert only(steps).unfinished == "tw"
    assert lines(steps.apply(log(b"o\n\nthree\n"))) == ["two", "", "three"]
    assert [line.text for line in only(steps).log] == ["one", "two", "", "three"]


def test_a_character_that_is_cut_in_two_is_one() -> None:
    steps = folded(STARTED)
    steps.apply(log("é".encode()[:1]))
    assert lines(steps.apply(log("é".encode()[1:] + b"\n"))) == ["é"]


def test_bytes_that_are_no_utf8_are_told() -> None:
    assert lines(folded(STARTED).apply(log(b"a\xffb\n"))) == [r"a\xffb"]


@pytest.mark.parametrize(
    ("data", "text"), [(b"10%\r20%\r\n", "20%"), (b"end\r\n", "end"), (b"\r\n", "")]
)
def test_a_carriage_return_starts_the_line_anew(data: bytes, text: str) -> None:
    assert lines(folded(STARTED).apply(log(data))) == [text]


def test_a_line_has_the_time_of_its_first_byte_from_the_beginning_of_the_step() -> None:
    steps = folded(DONE, STARTED._replace(started_ns=20 * S))
    steps.apply(log(b"a", 20.5))
    assert steps.apply(log(b"b\nc\n", 21)).lines == (
        ("v", LogLine(0.5, "ab")),
        ("v", LogLine(1.0, "c")),
    )
    assert (
        steps.apply(BuildUpdate(logs=(VertexLog("v", 1, b"no time\n"),))).lines[0][1].seconds == 0
    )


def test_a_line_without_end_is_cut_but_in_no_character() -> None:
    steps = folded(STARTED)
    found = lines(steps.apply(log(b"x" + "é".encode() * 20_000 + b"\n")))
    assert len(found) > 1
    assert "".join(found) == "x" + "é" * 20_000


def test_an_unfinished_line_can_be_ended() -> None:
    steps = folded(STARTED)
    assert steps.break_line("v") is None
    steps.apply(log(b"dots... " + "é".encode()[:1]))
    assert steps.break_line("v") == LogLine(0.0, "dots... ")
    assert steps.break_line("v") is None
    assert lines(steps.apply(log("é".encode()[1:] + b"\n"))) == ["é"]


def test_the_last_lines_are_kept() -> None:
    steps = folded(STARTED)
    steps.apply(log(b"".join(b"%d\n" % number for number in range(LOG_LINES + 5))))
    assert [line.text for line in only(steps).log] == [str(n) for n in range(5, LOG_LINES + 5)]


def test_each_warning_is_there_once_and_with_its_step() -> None:
    warning = BuildWarning("v", 1, "short")
    steps = folded(STARTED)
    stray = warning._replace(vertex="?")
    steps.apply(BuildUpdate(warnings=(warning, stray, warning)))
    assert steps.warnings == (warning, stray)
    assert only(steps).warnings == (warning,)


STRONG, WEAK = (
    ProgressGroup("g", "copy files", weak=False),
    ProgressGroup("g", "copy files", weak=True),
)


def test_a_group_is_one_step_with_the_time_of_all() -> None:
    a = Vertex("a", name="a", started_ns=10 * S, completed_ns=12 * S, group=STRONG)
    b = Vertex("b", name="b", started_ns=11 * S, group=WEAK)
    steps = folded(a, b)
    step = only(steps)
    assert (step.key, step.name, step.state) == ("g", "copy files", "running")
    steps.apply(BuildUpdate((b._replace(completed_ns=15 * S),), logs=(VertexLog("b", 1, b"hi\n"),)))
    step = only(steps)
    assert (step.state, step.seconds(0)) == ("done", 5)
    assert step == steps.find("a") == steps.find("b")
    assert [line.text for line in step.log] == ["hi"]


def test_a_group_is_hidden_while_weak_members_alone_have_begun() -> None:
    weak = Vertex("a", started_ns=1, group=WEAK)
    planned = Vertex("b", group=STRONG)
    steps = folded(weak, planned)
    assert (steps.steps, steps.get("g")) == ((), None)
    steps.apply(BuildUpdate((planned._replace(started_ns=2),)))
    assert only(steps).key == "g"


def test_a_hidden_group_that_fails_is_shown() -> None:
    steps = folded(Vertex("a", started_ns=1, completed_ns=2, error="boom", group=WEAK))
    assert (only(steps).state, only(steps).error) == ("error", "boom")


def test_a_group_is_cached_when_all_of_it_is() -> None:
    a = Vertex("a", started_ns=1, completed_ns=1, cached=True, group=STRONG)
    b = a._replace(digest="b", cached=False)
    assert only(folded(a)).state == "cached"
    assert only(folded(a, b)).state == "done"


def test_a_failure_counts_for_more_than_what_was_canceled_for_it() -> None:
    a = Vertex("a", started_ns=1, completed_ns=2, error="x: context canceled", group=STRONG)
    b = a._replace(digest="b", error="zero bytes left")
    assert only(folded(a, b)).error == "zero bytes left"


def test_a_real_build() -> None:
    steps = StepTracker()
    for update in read_updates("build"):
        steps.apply(update)
    assert [step.state for step in steps.steps] == ["done"] * 11
    run = next(step for step in steps.steps if "echo hello" in step.name)
    assert [line.text for line in run.log] == [
        "hello",
        "partial",
        "1",
        "2",
        "3",
        "\x1b[31mred\x1b[0m\ttab",
    ]
    assert round(run.seconds(0), 1) == 1.1
