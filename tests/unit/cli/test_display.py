"""cli/display.py: which display, and how it is kept going."""

import io
import os
import pty
import termios
import threading
from collections.abc import Iterator
from threading import Event
from typing import TextIO

import pytest

from kitcache.buildkit.status import BuildUpdate
from kitcache.cli.display import MODES, Guarded, Mode, Quiet, choose_mode, make_display, showing
from kitcache.cli.live import Live
from kitcache.cli.plain import Plain
from kitcache.cli.rawjson import RawJson
from kitcache.errors import UsageError
from tests.unit.cli.progress import Clock, begun, ended


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    """A terminal of 50 columns and 9 lines."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (9, 50))
    with open(slave, "w") as stream:
        yield stream
    os.close(master)


@pytest.mark.parametrize(
    ("mode", "kind"), [("plain", Plain), ("tty", Live), ("rawjson", RawJson), ("quiet", Quiet)]
)
def test_each_mode_has_its_display(terminal: TextIO, mode: Mode, kind: type) -> None:
    assert choose_mode(mode, terminal, {}) == mode
    assert type(make_display(mode, terminal, {})) is kind


def test_auto_draws_on_a_terminal_only(terminal: TextIO) -> None:
    assert choose_mode("auto", terminal, {}) == "tty"
    assert choose_mode("auto", terminal, {"TERM": "dumb"}) == "plain"
    assert choose_mode("auto", io.StringIO(), {}) == "plain"


def test_the_environment_counts_where_no_mode_is_given(terminal: TextIO) -> None:
    environ = {"BUILDKIT_PROGRESS": "rawjson"}
    assert choose_mode(None, terminal, environ) == "rawjson"
    assert choose_mode("auto", terminal, environ) == "tty"
    assert choose_mode(None, terminal, {"BUILDKIT_PROGRESS": ""}) == "tty"


def test_quiet_is_a_mode_of_its_own(terminal: TextIO) -> None:
    assert choose_mode(None, terminal, {"BUILDKIT_PROGRESS": "plain"}, is_quiet=True) == "quiet"
    with pytest.raises(UsageError, match="progress=plain and quiet cannot be used together"):
        choose_mode("plain", terminal, {}, is_quiet=True)


def test_an_unknown_mode_names_those_that_there_are() -> None:
    with pytest.raises(
        UsageError, match="BUILDKIT_PROGRESS: invalid progress mode fancy"
    ) as caught:
        choose_mode(None, io.StringIO(), {"BUILDKIT_PROGRESS": "fancy"})
    assert all(mode in str(caught.value) for mode in MODES)


def test_tty_needs_a_terminal() -> None:
    with pytest.raises(UsageError, match="needs a terminal"):
        choose_mode("tty", io.StringIO(), {})


@pytest.mark.parametrize(("environ", "has_colour"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_the_picture_has_the_terminals_size_and_colours(
    terminal: TextIO, environ: dict[str, str], has_colour: bool
) -> None:
    class Recorder(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return terminal.fileno()

    out = Recorder()
    display = make_display("tty", out, environ, Clock())
    for number in range(20):
        display.update(ended(f"{number}"))
    display.note("")
    assert "\n => RUN 19".ljust(46) in out.getvalue().replace("\x1b[34m", "")
    assert "RUN 0 " in out.getvalue()
    assert out.getvalue().rpartition("[+]")[2].count("\n") == 8
    assert ("\x1b[34m" in out.getvalue()) == has_colour


class Witness(Quiet):
    """Writes down what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ticked = Event()

    def update(self, update: BuildUpdate) -> None:
        self.calls.append("update")

    def tick(self) -> None:
        self.ticked.set()

    def note(self, text: str) -> None:
        self.calls.append(text)

    def close(self) -> None:
        self.calls.append("close")


def test_a_display_that_is_shown_ticks_by_itself_and_is_closed() -> None:
    witness = Witness()
    with showing(witness) as shown:
        shown.update(begun("a"))
        shown.note("note")
        assert witness.ticked.wait(10)
    assert witness.calls == ["update", "note", "close"]
    assert "kitcache-display" not in [thread.name for thread in threading.enumerate()]


def test_it_is_closed_after_an_error_too() -> None:
    witness = Witness()
    with pytest.raises(KeyError), showing(witness):
        raise KeyError
    assert witness.calls == ["close"]


def test_a_stream_that_is_gone_does_not_stop_the_build() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        guarded = Guarded(RawJson(stream))
        for _ in range(3):
            guarded.update(begun("a"))
        guarded.close()
        with pytest.raises(BrokenPipeError):
            stream.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)


def test_without_a_stream_nothing_is_shown() -> None:
    assert type(make_display(choose_mode("plain", None, {}), None, {})) is Quiet
