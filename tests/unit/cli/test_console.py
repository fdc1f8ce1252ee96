"""cli/console.py: what is printed where, and the line that is drawn only on a terminal."""

import os
import pty
import termios
from contextlib import redirect_stderr
from types import SimpleNamespace
from typing import Any, Self

import pytest

from kitcache.cli import console as module
from kitcache.cli.console import Console
from kitcache.errors import Busy, Cancelled, KitcacheError, NotACache, NotFound, UsageError
from kitcache.gc.values import Progress
from kitcache.store.values import LockHolder, Waiting
from kitcache.upkeep.results import UntagResult

VALUE = UntagResult("cache", "done", ())
WAITING = Waiting("cache", "kitcache.lock", LockHolder(7, None), 30.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The session's own clock: its last number is the time."""
    times = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: times[-1]))
    return times


class Terminal:
    """A pseudo-terminal in place of stderr, as long as the block runs."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.stream = open(slave, "w")  # noqa: SIM115 - closed by the block
        self._redirect = redirect_stderr(self.stream)

    def __enter__(self) -> Self:
        self._redirect.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._redirect.__exit__(*error)
        self.stream.close()
        os.close(self._master)

    def read(self) -> str:
        """What was written since the last look. Bytes need a moment to come through."""
        self.stream.write("\x04")
        self.stream.flush()
        seen = b""
        while not seen.endswith(b"\x04"):
            seen += os.read(self._master, 1000)
        return seen[:-1].decode()


def make_console(**changes: Any) -> Console:
    return Console(**changes)


def progress(
    console: Console, clock: list[float], seconds: list[float], path: str = "cache"
) -> None:
    """One DIR's turn, with an event at each of these seconds after its beginning."""

    def work(path: str) -> int:
        start = clock[-1]
        for number, second in enumerate(seconds):
            clock.append(start + second)
            console.on_progress(Progress("sweep", number + 1, 0))
        return 0

    assert console.each([path], work) == 0


def test_an_answer_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print_result(VALUE, ["one", "two"])
    assert capsys.readouterr() == ("one\ntwo\n", "")


def test_as_json_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    make_console(wants_json=True).print_result(VALUE, ["one"])
    out, err = capsys.readouterr()
    assert out.startswith('{"schema": "kitcache.untag/1"')
    assert (out.count("\n"), err) == (1, "")


def test_quiet_leaves_warnings_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = make_console(is_quiet=True)
    quiet.print_result(VALUE, ["answer"])
    quiet.print_note(["remark"])
    quiet.on_progress(WAITING)
    assert capsys.readouterr() == ("", "")
    quiet.print_warning(["careful"])
    assert capsys.readouterr() == ("", "kitcache: careful\n")
    make_console(is_quiet=True, wants_json=True).print_result(VALUE, [])
    assert capsys.readouterr().out.startswith("{")


def test_the_conversation_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    console.print_note(["remark"])
    console.print_warning(["careful"])
    console.on_progress(WAITING)
    console.print_error(NotACache("x", "no such directory"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(
        "kitcache: remark\nkitcache: careful\n"
        "kitcache: cache: waiting up to 30 s for process 7, which holds kitcache.lock\n"
        "kitcache: x: not a cache: no such directory\n  expected:"
    )


def test_with_json_an_error_is_json_and_warnings_are_in_the_object(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = make_console(wants_json=True)
    console.print_note(["remark"])
    console.print_warning(["careful"])
    console.print_error(Busy("x", "held"))
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    assert out.startswith('{"schema": "kitcache.error/1", "error": "Busy", "exit_code": 11')


def test_one_dirs_failure_is_not_the_next_ones(capsys: pytest.CaptureFixture[str]) -> None:
    errors = {"b": NotACache("b", "no"), "c": Busy("c", "held")}

    def work(path: str) -> int:
        if path in errors:
            raise errors[path]
        return 3

    assert make_console().each(["a", "b", "c", "d"], work) == 11
    assert capsys.readouterr().err.count("kitcache: ") == 2


def test_a_stray_failure_is_told_without_more_than_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(path: str) -> int:
        raise OSError(5, "Input/output error")

    assert make_console().each(["a"], work) == 1
    assert capsys.readouterr().err.splitlines()[:2] == [
        "kitcache: a: failed: Input/output error",
        "  nothing more was deleted; reachable blobs are unchanged",
    ]


def test_words_that_were_not_understood_changed_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def work(path: str) -> int:
        raise UsageError("what?")

    assert make_console().each(["a"], work) == 2
    assert make_console(effect="nothing was built").each(["a"], work) == 2
    assert capsys.readouterr().err == (
        "kitcache: what?\n  nothing was changed\nkitcache: what?\n  nothing was built\n"
    )


def test_no_warning_is_printed_raw(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    console.print_warning(["\x1b]0;pwn\x07"])
    console.print_note(["a\nb"])
    assert capsys.readouterr().err == "kitcache: \\x1b]0;pwn\\x07\nkitcache: a\\nb\n"


@pytest.mark.parametrize(
    ("path", "is_meant"),
    [
        ("/var/lib/docker", True),
        ("/var/lib/buildkit/", True),
        ("/var/lib/docker/buildkit", True),
        ("/var/lib/docker/volumes/ci/_data", False),
        ("/var/lib/dockers", False),
        ("var/lib/docker", False),
    ],
)
def test_a_daemons_own_store_is_for_its_own_prune(
    path: str, is_meant: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    make_console().print_error(NotACache(path, "no"))
    make_console().print_error(KitcacheError(path, "cannot be opened: Permission denied"))
    assert capsys.readouterr().err.count("hint: docker buildx prune, ") == 2 * is_meant
    make_console().print_error(NotFound(path, "no such tag"))
    assert "docker buildx prune" not in capsys.readouterr().err


def test_ctrl_c_ends_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def work(path: str) -> int:
        seen.append(path)
        raise Cancelled(path)

    assert make_console().each(["a", "b"], work) == 130
    assert seen == ["a"]
    assert "a: stopped on request" in capsys.readouterr().err


@pytest.fixture
def _terminal_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


pytestmark = pytest.mark.usefixtures("_terminal_type")


def test_a_line_is_drawn_after_a_second(clock: list[float]) -> None:
    with Terminal() as terminal:
        progress(make_console(), clock, [0.0, 0.5, 0.99])
        assert terminal.read() == ""
        progress(make_console(), clock, [0.5, 1.0])
        assert terminal.read().startswith("\rcache: 2 unreachable blobs, 0 B")


def test_it_is_drawn_again_ten_times_a_second_at_most(clock: list[float]) -> None:
    with Terminal() as terminal:
        progress(make_console(), clock, [1.0, 1.05, 1.09, 1.11, 1.15, 1.22])
        lines = terminal.read().split("\r")
    assert [line.split()[1] for line in lines if ":" in line] == ["1", "4", "6"]


def test_it_is_erased_before_anything_else_is_said(clock: list[float]) -> None:
    erased = "\r" + " " * 24 + "\r"

    def work(path: str) -> int:
        clock.append(clock[-1] + 2)
        console.on_progress(Progress("survey", 7, 0))
        assert terminal.read() == "\rcache: 7 live blobs read"
        console.on_progress(WAITING)
        assert terminal.read().startswith(f"{erased}kitcache: cache: waiting up to")
        clock.append(clock[-1] + 2)
        console.on_progress(Progress("survey", 8, 0))
        terminal.read()
        raise NotACache("cache", "no")

    with Terminal() as terminal:
        console = make_console()
        assert console.each(["cache"], work) == 10
        assert terminal.read().startswith(f"{erased}kitcache: cache: not a cache")


def test_a_shorter_line_covers_a_longer_one(clock: list[float]) -> None:
    def work(path: str) -> int:
        for blobs in (1_000_000, 1):
            clock.append(clock[-1] + 2)
            console.on_progress(Progress("survey", blobs, 0))
        return 0

    with Terminal() as terminal:
        console = make_console()
        console.each(["cache"], work)
        _, first, second, blank, end = terminal.read().split("\r")
    assert len(second) >= len(first)
    assert len(blank) >= len(second.rstrip())
    assert (blank.strip(), end) == ("", "")


def test_each_dir_has_its_own_second(clock: list[float]) -> None:
    with Terminal() as terminal:
        console = make_console()
        for path in ("a", "b"):
            progress(console, clock, [0.9], path)
        assert terminal.read() == ""


@pytest.mark.parametrize("columns", [40, 80])
def test_the_line_never_wraps(clock: list[float], columns: int) -> None:
    """A wrapped line cannot be drawn over: each redraw would leave one behind."""
    with Terminal() as terminal:
        termios.tcsetwinsize(terminal.stream.fileno(), (24, columns))
        progress(make_console(), clock, [1.0], "/a/long/path" * 20)
        assert max(map(len, terminal.read().split("\r"))) < columns


def test_what_is_drawn_is_printable_and_is_erased_whole(clock: list[float]) -> None:
    with Terminal() as terminal:
        progress(make_console(), clock, [1.0], "\x1b[31m\u202e")
        _, line, blank, _ = terminal.read().split("\r")
    assert line.isprintable()
    assert len(blank) >= len(line)


@pytest.mark.parametrize("reason", ["quiet", "dumb"])
def test_nothing_is_drawn_where_nobody_wants_it(
    clock: list[float], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    with Terminal() as terminal:
        progress(make_console(is_quiet=reason == "quiet"), clock, [2.0, 3.0])
        assert terminal.read() == ""


def test_nothing_is_drawn_into_a_pipe(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress(make_console(), clock, [2.0, 3.0])
    assert capsys.readouterr() == ("", "")
