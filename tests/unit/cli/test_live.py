"""cli/live.py: the picture, and how it is drawn over the one before."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from kitcache.buildkit.status import BuildUpdate
from kitcache.buildkit.steps import StepTracker
from kitcache.cli.live import Live, ScreenLine, Size, draw
from kitcache.cli.text import width_of
from tests.unit.buildkit.recordings import read_updates
from tests.unit.cli.progress import Clock, Output, S, begun, ended, log, transfer, vertex

NOW_NS = 1002 * S


def picture(*updates: BuildUpdate, columns: int = 61, lines: int | None = 24) -> list[ScreenLine]:
    steps = StepTracker()
    for update in updates:
        steps.apply(update)
    return draw(steps.steps, NOW_NS, 3.4, Size(columns, lines))


def texts(drawn: list[ScreenLine]) -> list[str]:
    return [line.text for line in drawn]


def test_a_header_and_a_line_a_step() -> None:
    assert texts(picture(begun("a"), ended("b", stop=0.5), BuildUpdate((vertex("c", None),)))) == [
        "[+] Building 3.4s (1/3)",
        " => RUN a                                               2.0s",
        " => RUN b                                               0.5s",
    ]


@pytest.mark.parametrize(
    ("update", "mark", "colour"),
    [
        (ended("a"), "", "\x1b[34m"),
        (ended("a", cached=True), "CACHED ", "\x1b[34m"),
        (ended("a", error="boom"), "ERROR ", "\x1b[31m"),
        (ended("a", error="context canceled"), "CANCELED ", "\x1b[33m"),
        (begun("a"), "", ""),
    ],
)
def test_how_it_ended_is_a_word_and_a_colour(update: BuildUpdate, mark: str, colour: str) -> None:
    line = picture(update)[1]
    assert line.text.startswith(f" => {mark}RUN a ")
    assert line.colour == colour


def test_transfers_have_bytes_and_while_they_run_rates() -> None:
    running = picture(begun("a"), transfer("a", 12_300_000, 45_000_000))[2].text
    assert running == " => => pulling 12.30MB / 45.00MB  6.15MB/s              2.0s"
    assert picture(ended("a"), transfer("a", 5, at=1, done=True))[2].text.split() == [
        "=>",
        "=>",
        "pulling",
        "5B",
        "1.0s",
    ]


def test_a_running_step_shows_the_end_of_its_log_an_ended_one_does_not() -> None:
    printed = log("a", "".join(f"{number}\n" for number in range(9)) + "unfinis")
    shown = [f" => => # {text}" for text in (*"45678", "unfinis")]
    assert texts(picture(begun("a"), printed))[2:] == shown
    assert texts(picture(begun("a"), printed, ended("a")))[2:] == []


def test_of_many_transfers_those_that_run_are_shown() -> None:
    steps = StepTracker()
    steps.apply(begun("a"))
    for number in range(20):
        (part,) = transfer("a", 1, at=1, done=number not in (2, 3)).transfers
        steps.apply(BuildUpdate(transfers=(part._replace(id=f"part{number}"),)))
    shown = [line.split()[2] for line in texts(draw(steps.steps, NOW_NS, 0, Size(60, 24)))[2:]]
    assert shown == ["part2", "part3", "part16", "part17", "part18", "part19"]


MANY = tuple(ended(f"e{number}", stop=1 + number / 10) for number in range(8))


def test_where_lines_are_few_what_runs_comes_before_what_has_ended() -> None:
    shown = texts(picture(begun("r"), *MANY, lines=6))
    assert [line.split()[2] for line in shown[1:]] == ["r", "e5", "e6", "e7"]
    logged = texts(picture(begun("r"), log("r", "x\ny\nz\n"), *MANY, lines=6))
    assert [line.split()[-1] for line in logged[2:]] == ["x", "y", "z"]


def test_where_they_are_fewer_still_the_latest_step_shows_its_log() -> None:
    logs = (log("a", "a1\na2\n"), log("b", "b1\nb2\n"))
    shown = texts(picture(begun("a", "b"), *logs, lines=6))
    assert [line.split()[-2:] for line in shown[1:]] == [
        ["a", "2.0s"],
        ["b", "2.0s"],
        ["#", "b1"],
        ["#", "b2"],
    ]


@pytest.mark.parametrize("lines", range(12))
@pytest.mark.parametrize("columns", [1, 2, 5, 10, 16, 17, 20, 40, 200])
def test_it_never_exceeds_the_terminal(columns: int, lines: int) -> None:
    wide = BuildUpdate((vertex("日本語" * 30),), logs=log("日本語" * 30, "日本\tx\n" * 9).logs)
    drawn = picture(wide, begun("a", "b"), *MANY, columns=columns, lines=lines)
    assert len(drawn) <= max(1, lines - 1)
    assert max(width_of(line.text) for line in drawn) <= max(1, columns - 1)


def test_the_last_picture_has_all_steps_and_no_logs() -> None:
    shown = texts(picture(ended("r"), log("r", "x\n"), *MANY, lines=None))
    assert shown[0] == "[+] Building 3.4s (9/9) FINISHED"
    assert len(shown) == 10


def test_names_and_logs_cannot_act_on_a_terminal() -> None:
    bad = "\x1b[2Jx\x1b[31m\n"
    steps = BuildUpdate((vertex("a", name=bad),))
    assert not any("\x1b" in text or "\n" in text for text in texts(picture(steps, log("a", bad))))


class Terminal:
    """As much of a terminal as the display needs: a screen of rows, a cursor, three sequences."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows = [""]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        for part in tokens(text):
            if part == "\n":
                self.row, self.column = self.row + 1, 0
                self.rows += [""] * (self.row + 1 - len(self.rows))
            elif part == "\r":
                self.column = 0
            elif part == "\x1b[K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            elif part == "\x1b[J":
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            elif part.startswith("\x1b["):
                if part.endswith("A"):
                    self.row = max(0, self.row - int(part[2:-1]))
                else:
                    assert part in ("\x1b[?25l", "\x1b[?25h") or part.endswith("m")
            else:
                line = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = line[: self.column] + part + line[self.column + len(part) :]
                self.column += len(part)
                assert self.column < self.columns

    def narrow(self, columns: int) -> None:
        """What terminals do with lines that no longer fit."""
        wrapped = [
            row[at : at + columns]
            for row in self.rows
            for at in range(0, max(1, len(row)), columns)
        ]
        self.row += len(wrapped) - len(self.rows)
        self.columns, self.rows = columns, wrapped

    @property
    def text(self) -> list[str]:
        return [row.rstrip() for row in self.rows]


def tokens(text: str) -> Iterator[str]:
    marks = [at for at, c in enumerate(text) if c in "\n\r\x1b"]
    at = 0
    for mark in marks:
        if mark < at:
            continue
        if mark > at:
            yield text[at:mark]
        stop = mark + 1
        if text[mark] == "\x1b":
            while not text[stop].isalpha():
                stop += 1
            stop += 1
        yield text[mark:stop]
        at = stop
    if at < len(text):
        yield text[at:]


class Bench:
    """A display on such a terminal."""

    def __init__(self, *, colour: bool = True) -> None:
        self.clock, self.out, self.terminal = Clock(), Output(), Terminal(60)
        self.display = Live(
            self.out, self.clock, lambda: Size(self.terminal.columns, 12), colour=colour
        )

    def show(self, *updates: BuildUpdate, after_s: float = 0.2) -> list[str]:
        for update in updates:
            self.display.update(update)
        self.clock.now_s += after_s
        self.display.tick()
        self.terminal.feed(self.out.new())
        return self.terminal.text


SIX = ("2", "3", "a longer line", "4", "5", "6")


def test_each_picture_takes_the_place_of_the_one_before() -> None:
    bench = Bench()
    bench.show(begun("a", "b"), log("a", "1\n2\n3\n"))
    assert bench.show(log("a", "a longer line\n"))[-3] == " => => # a longer line"
    assert bench.show(log("a", "4\n5\n6\n"))[2:-2] == [f" => => # {text}" for text in SIX]
    shown = bench.show(ended("a"))
    assert [line.split()[:3] for line in shown] == [
        ["[+]", "Building", "0.8s"],
        ["=>", "RUN", "a"],
        ["=>", "RUN", "b"],
        [],
    ]


def test_a_terminal_that_became_narrower_is_left_clean() -> None:
    bench = Bench()
    bench.terminal.feed("$ build\n")
    bench.show(begun("a", "b"), log("a", "x" * 200 + "\n"))
    bench.terminal.narrow(33)
    shown = bench.show(after_s=1)
    assert [line.split()[:1] for line in shown] == [["$"], ["[+]"], *[["=>"]] * 3, []]


def test_it_is_drawn_ten_times_a_second_at_most() -> None:
    bench = Bench()
    bench.show(begun("a"))
    assert bench.display.update(log("a", "x\n")) is None
    assert bench.out.new() == ""
    assert "# x" in "".join(bench.show())


def test_times_go_on_between_the_news_whatever_the_daemons_clock_says() -> None:
    bench = Bench()
    bench.show(begun("a"))
    seconds = [bench.show(after_s=1)[1].split()[-1] for _ in range(3)]
    assert all(float(b[:-1]) - float(a[:-1]) == pytest.approx(1) for a, b in pairwise(seconds))


def test_a_remark_stays_above_the_picture() -> None:
    bench = Bench()
    bench.show(begun("a"))
    bench.display.note("one\x1b[2J\ntwo")
    shown = bench.show()
    assert shown[:2] == ["one", "two"]
    assert [line.split()[:1] for line in shown[2:]] == [["[+]"], ["=>"], []]


def test_the_end_leaves_the_whole_picture_and_the_cursor_below() -> None:
    bench = Bench()
    bench.show(*MANY, *(ended(f"f{number}") for number in range(20)))
    bench.display.close()
    bench.terminal.feed(bench.out.new())
    assert bench.terminal.text[0].endswith("(28/28) FINISHED")
    assert len(bench.terminal.text) == 1 + 28 + 1
    assert (bench.terminal.row, bench.terminal.column) == (29, 0)


def test_without_colour_there_is_none() -> None:
    bench = Bench(colour=False)
    bench.display.update(ended("a"))
    assert "\x1b[34m" not in bench.out.new()


def test_a_real_build_ends_as_it_should() -> None:
    bench = Bench()
    for update in read_updates("build"):
        bench.show(update)
    bench.display.close()
    bench.terminal.feed(bench.out.new())
    assert bench.terminal.text[0].endswith("(11/11) FINISHED")
    assert sum(line.startswith(" => exporting to image") for line in bench.terminal.text) == 1
