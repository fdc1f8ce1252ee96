"""cli/interrupt.py: what waits is left alone once somebody has had enough."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from threading import Event, Timer

import pytest

from kitcache.cli.interrupt import open_stdin, unless_cancelled
from kitcache.errors import Cancelled

WAIT_S = 20.0


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A pipe as stdin; the end that is written to."""
    reading, writing = os.pipe()
    with open(reading, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield writing
    os.close(writing)


def test_what_work_comes_to() -> None:
    assert unless_cancelled(lambda: 7, Event()) == 7
    with pytest.raises(KeyError, match="x"):
        unless_cancelled(lambda: {}["x"], Event())


def test_work_that_is_done_counts_although_it_was_cancelled() -> None:
    cancel = Event()
    assert unless_cancelled(lambda: cancel.set() or 7, cancel) == 7


def test_work_that_waits_is_left_to_itself() -> None:
    cancel, over = Event(), Event()

    def work() -> None:
        cancel.set()
        over.wait(WAIT_S)

    with pytest.raises(Cancelled) as caught:
        unless_cancelled(work, cancel)
    over.set()
    assert caught.value.exit_code == 130
    assert caught.value.effect == "nothing was built"


def test_stdin_is_read_as_it_comes(pipe: int) -> None:
    stdin = open_stdin(Event())
    assert isinstance(stdin, io.BufferedReader)
    os.write(pipe, b"some")
    assert stdin.read1(100) == b"some"
    os.write(pipe, b"more, and more")
    assert stdin.read(4) == b"more"
    assert stdin.read1(5) == b", and"


def test_stdin_that_says_nothing_ends_with_a_cancel(pipe: int) -> None:
    cancel = Event()
    stdin = open_stdin(cancel)
    assert stdin is not None
    os.write(pipe, b"some")
    Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        stdin.read(100)


def test_all_that_is_there_is_read_although_it_was_cancelled(pipe: int) -> None:
    cancel = Event()
    cancel.set()
    stdin = open_stdin(cancel)
    assert isinstance(stdin, io.BufferedReader)
    os.write(pipe, b"some")
    assert stdin.read1(100) == b"some"


def test_no_stdin_and_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert open_stdin(Event()) is None
    stand_in = io.TextIOWrapper(io.BytesIO(b"some"))
    monkeypatch.setattr(sys, "stdin", stand_in)
    found = open_stdin(Event())
    assert found is not None
    assert found.read() == b"some"


PROGRAM = """
import os, signal, sys
from kitcache.cli.signals import cancel_on_signals
cancel = cancel_on_signals([signal.SIGINT, signal.SIGTERM])
os.kill(os.getpid(), int(sys.argv[1]))
assert cancel.is_set()
print("on", flush=True)
os.kill(os.getpid(), int(sys.argv[2]))
print("and on")
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_cancels_and_the_second_ends(
    first: signal.Signals, second: signal.Signals
) -> None:
    words = [sys.executable, "-c", PROGRAM, str(first.value), str(second.value)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=WAIT_S)
    assert (done.returncode, done.stdout, done.stderr) == (-second, "on\n", "")


def test_what_was_ignored_stays_ignored() -> None:
    code = (
        "import signal as s\n"
        "from kitcache.cli.signals import cancel_on_signals\n"
        "cancel_on_signals([s.SIGINT, s.SIGTERM])\n"
        "print(*(s.getsignal(n) == s.SIG_IGN for n in (s.SIGINT, s.SIGTERM)))"
    )
    for ignored, said in (("INT TERM", "True True"), ("INT", "True False"), ("HUP", "False False")):
        script = f"trap '' {ignored}; exec \"$@\""
        words = ["sh", "-c", script, "sh", sys.executable, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == said
