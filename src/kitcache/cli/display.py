"""Who shows a build's progress: the displays have one shape, and are chosen here.

    display = choose_display(None, sys.stderr, os.environ)
    with showing(display) as shown:
        client.build(..., on_update=shown.update)

A display that cannot be written to any more is left alone: the build goes on without it.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, RLock, Thread
from typing import Protocol, TextIO

from kitcache.buildkit.status import BuildUpdate
from kitcache.cli.plain import Plain
from kitcache.cli.rawjson import RawJson
from kitcache.cli.steptext import wants_colour
from kitcache.cli.terminal import WIDTH, is_terminal
from kitcache.errors import UsageError
from kitcache.masking import hide_password

MODES = ("auto", "plain", "tty", "rawjson", "quiet")
_TICK_S = 0.1
_LINES = 24


class Display(Protocol):
    """A way to show progress. Its methods are called by one thread at a time."""

    def update(self, update: BuildUpdate) -> None:
        """Take news of the build."""

    def tick(self) -> None:
        """Show what is due by now; called about every tenth of a second."""

    def note(self, text: str) -> None:
        """Print a remark for people, in its place among the rest."""

    def close(self) -> None:
        """Show what is left; nothing is called after it."""


class Quiet:
    """A display that shows nothing."""

    def update(self, update: BuildUpdate) -> None:
        """Nothing."""

    def tick(self) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Guarded:
    """A display for several threads, which stays silent once it cannot be written to."""

    def __init__(self, display: Display) -> None:
        self._display: Display = display
        self._lock = RLock()

    def update(self, update: BuildUpdate) -> None:
        """Take news of the build."""
        self._do(lambda: self._display.update(update))

    def tick(self) -> None:
        """Show what is due by now."""
        self._do(self._display.tick)

    def note(self, text: str) -> None:
        """Print a remark."""
        self._do(lambda: self._display.note(hide_password(text)))

    def close(self) -> None:
        """Show what is left."""
        self._do(self._display.close)

    def _do(self, action: Callable[[], None]) -> None:
        with self._lock:
            try:
                action()
            except (OSError, UnicodeEncodeError):
                self._display = Quiet()


def choose_display(
    mode: str | None,
    stream: TextIO | None,
    environ: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
) -> Display:
    """The display for a mode: one of MODES, None for BUILDKIT_PROGRESS or else auto.

    auto is tty on a terminal that can be drawn on, else plain. Without a stream nothing is shown.
    Raises UsageError for an unknown mode, and for tty where the stream is no terminal.
    """
    mode = environ.get("BUILDKIT_PROGRESS", "") or "auto" if mode is None else mode
    if mode not in MODES:
        raise UsageError(f"invalid progress mode '{mode}'", hints=(f"one of {', '.join(MODES)}",))
    if mode == "tty" and not is_terminal(stream):
        raise UsageError("--progress tty needs a terminal on stderr", hints=("--progress plain",))
    if mode == "auto":
        mode = "tty" if is_terminal(stream) and environ.get("TERM") != "dumb" else "plain"
    if stream is None:
        return Quiet()
    colour = wants_colour(environ.get("NO_COLOR"))
    match mode:
        case "tty":
            from kitcache.cli.live import Live, Size  # noqa: PLC0415 - rich, for terminals alone

            return Live(stream, clock, lambda: Size(*_size_of(stream)), colour=colour)
        case "rawjson":
            return RawJson(stream)
        case "quiet":
            return Quiet()
    return Plain(stream, clock, colour=colour)


@contextmanager
def showing(display: Display) -> Iterator[Guarded]:
    """Keep a display going for as long as the block runs.

    Yields it in a form that any thread may call; `.update` is what a build wants as its on_update.
    """
    guarded = Guarded(display)
    ended = Event()

    def tick() -> None:
        while not ended.wait(_TICK_S):
            guarded.tick()

    ticker = Thread(target=tick, name="kitcache-display", daemon=True)
    ticker.start()
    try:
        yield guarded
    finally:
        ended.set()
        ticker.join()
        guarded.close()


def _size_of(stream: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return WIDTH, _LINES
    # A terminal that does not know its size says 0.
    return size.columns or WIDTH, size.lines or _LINES
