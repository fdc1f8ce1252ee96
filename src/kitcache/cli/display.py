"""The display of a build's progress: its modes, their common protocol, and the ticker.

    mode = choose_mode(None, sys.stderr, os.environ)
    with showing(make_display(mode, sys.stderr, os.environ)) as shown:
        client.build(..., on_update=shown.update)

If writing to the display fails, the build continues without it.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, RLock, Thread
from typing import Literal, Protocol, TextIO

from kitcache.buildkit.status import BuildUpdate
from kitcache.cli.plain import Plain
from kitcache.cli.rawjson import RawJson
from kitcache.cli.steptext import wants_colour
from kitcache.cli.terminal import WIDTH, is_terminal
from kitcache.errors import UsageError
from kitcache.masking import hide_password

Mode = Literal["plain", "tty", "rawjson", "quiet"]

MODES = ("auto", "plain", "tty", "rawjson", "quiet")
_TICK_S = 0.1
_LINES = 24


class Display(Protocol):
    """A way to show progress. One thread at a time calls its methods."""

    def update(self, update: BuildUpdate) -> None:
        """Add an update of the build."""

    def tick(self) -> None:
        """Redraw or print if it is time; called about every tenth of a second."""

    def note(self, text: str) -> None:
        """Print a remark between the lines about steps."""

    def close(self) -> None:
        """Show the remaining updates. It is the last call."""


class Quiet:
    """A display that shows nothing."""

    def update(self, update: BuildUpdate) -> None: ...

    def tick(self) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class Guarded:
    """A display for several threads. After a failed write it shows nothing."""

    def __init__(self, display: Display) -> None:
        self._display: Display = display
        self._lock = RLock()

    def update(self, update: BuildUpdate) -> None:
        self._do(lambda: self._display.update(update))

    def tick(self) -> None:
        self._do(self._display.tick)

    def note(self, text: str) -> None:
        self._do(lambda: self._display.note(hide_password(text)))

    def close(self) -> None:
        self._do(self._display.close)

    def _do(self, action: Callable[[], None]) -> None:
        with self._lock:
            try:
                action()
            except (OSError, UnicodeEncodeError):
                self._display = Quiet()


def choose_mode(
    requested: str | None,
    stream: TextIO | None,
    environ: Mapping[str, str],
    *,
    is_quiet: bool = False,
) -> Mode:
    """Return the mode of the display on `stream`.

    Args:
        requested: An item of MODES; None for BUILDKIT_PROGRESS, else auto: tty on a terminal
            that can be redrawn, else plain.
        is_quiet: True for --quiet.

    Raises:
        UsageError: The mode is unknown, contradicts --quiet, or needs a terminal.
    """
    if is_quiet and requested not in (None, "auto", "quiet"):
        raise UsageError(f"progress={requested} and quiet cannot be used together")
    mode = "quiet" if is_quiet else requested or environ.get("BUILDKIT_PROGRESS") or "auto"
    match mode:
        case "auto":
            can_draw = is_terminal(stream) and environ.get("TERM") != "dumb"
            return "tty" if can_draw else "plain"
        case "tty":
            if not is_terminal(stream):
                raise UsageError(
                    "--progress tty needs a terminal on stderr", hints=("--progress plain",)
                )
            return mode
        case "plain" | "rawjson" | "quiet":
            return mode
    raise UsageError(
        f"BUILDKIT_PROGRESS: invalid progress mode {mode}",
        hints=(f"set it to one of {', '.join(MODES)}",),
    )


def make_display(
    mode: Mode,
    stream: TextIO | None,
    environ: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
) -> Display:
    """Return the display for a mode. Without a stream nothing is shown."""
    if stream is None or mode == "quiet":
        return Quiet()
    colour = wants_colour(environ.get("NO_COLOR"))
    match mode:
        case "tty":
            from kitcache.cli.live import Live, Size  # noqa: PLC0415 - for terminals alone

            return Live(stream, clock, lambda: Size(*_size_of(stream)), colour=colour)
        case "rawjson":
            return RawJson(stream)
        case "plain":
            return Plain(stream, clock, colour=colour)


@contextmanager
def showing(display: Display) -> Iterator[Guarded]:
    """Tick a display while the block runs, then close it.

    Yields:
        The display for several threads; its `update` is the on_update of a build.
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
    # A terminal without a size reports 0.
    return size.columns or WIDTH, size.lines or _LINES
