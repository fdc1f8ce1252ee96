"""What one command line prints where: answers to stdout, the conversation to stderr."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event
from types import FrameType, ModuleType

from kitcache.cli.terminal import (
    WIDTH,
    StdoutError,
    columns_of,
    is_terminal,
    print_stdout,
    print_stderr,
)
from kitcache.cli.text import progress_line, shorten, waiting_line, width_of
from kitcache.errors import (
    NOTHING_CHANGED,
    NOTHING_DELETED,
    NOTHING_MORE,
    Cancelled,
    KitcacheError,
    NotACache,
    UsageError,
    printable,
)
from kitcache.gc.values import Progress
from kitcache.masking import hide_password
from kitcache.store.ioerrors import io_error
from kitcache.store.protocol import Waiting

_QUIET_S = 1.0
_REDRAW_S = 0.1
_DAEMONS_OWN = ("/var/lib/docker/", "/var/lib/buildkit/")
_VOLUMES = "/var/lib/docker/volumes/"
_FOR_A_DAEMON = "docker buildx prune, where the daemon's own cache is meant"


class Console:
    """The voice of one command line."""

    def __init__(self, *, wants_json: bool, is_quiet: bool, only_reads: bool = False) -> None:
        """only_reads: the command changes nothing, so no error says that it did not."""
        self._only_reads = only_reads
        self._json = wants_json
        self._quiet = is_quiet
        self._path = ""
        self._draws = not is_quiet and is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
        self._next_draw_s = 0.0
        self._drawn = 0

    def each(
        self, paths: Iterable[str], work: Callable[[str], int], *, undone: str = NOTHING_CHANGED
    ) -> list[int]:
        """Do the work for each path; a failure of ours is printed, and the next one has its turn.

        Ctrl-C ends the list. undone: what to say where words were not understood.
        """
        codes = []
        for path in paths:
            self._path = path
            self._next_draw_s = time.monotonic() + _QUIET_S
            try:
                codes.append(work(path))
            except Cancelled as error:
                self.print_error(error)
                return [error.exit_code]
            except KitcacheError as error:
                if isinstance(error, UsageError):
                    error.effect = error.effect or undone
                self.print_error(error)
                codes.append(error.exit_code)
            except StdoutError:
                raise
            except OSError as error:
                failure = io_error(path, "failed", error, effect=NOTHING_MORE)
                self.print_error(failure)
                codes.append(failure.exit_code)
            finally:
                self._erase()
        return codes

    def print_result(self, value: object, lines: Iterable[str]) -> None:
        """Print the answer to stdout: one JSON object, or lines for people."""
        self._erase()
        if self._json:
            print_stdout(_json_shapes().encode_value(value))
        elif not self._quiet:
            print_stdout("\n".join(lines))

    def print_note(self, lines: Iterable[str]) -> None:
        """Print remarks to stderr, unless the user wants quiet."""
        if not self._quiet:
            self.warn(lines)

    def warn(self, lines: Iterable[str]) -> None:
        """Print warnings to stderr, escaped; with --json they are in the object already."""
        if not self._json:
            for line in lines:
                print_stderr(f"kitcache: {printable(hide_password(line))}")

    def print_error(self, error: KitcacheError) -> None:
        """Print an error: to stderr for people, to stdout as JSON."""
        self._erase()
        if self._only_reads and error.effect in (NOTHING_CHANGED, NOTHING_DELETED):
            error.effect = ""
        if _is_daemons_own(error):
            error.hints = (_FOR_A_DAEMON, *error.hints)
        if self._json:
            print_stdout(_json_shapes().encode_error(error))
        else:
            print_stderr(f"kitcache: {error}")

    def on_progress(self, event: Progress | Waiting) -> None:
        """Say whom we wait for, and on a terminal, after a second, how far we are."""
        if isinstance(event, Waiting):
            if not self._quiet:
                self._erase()
                print_stderr(f"kitcache: {waiting_line(event)}")
        elif self._draws and time.monotonic() >= self._next_draw_s:
            self._next_draw_s = time.monotonic() + _REDRAW_S
            self._draw(progress_line(self._path, event))

    def _draw(self, line: str) -> None:
        # One column stays free: a full line would wrap, and each redraw leave a line behind.
        shown = shorten(printable(line), (columns_of(sys.stderr) or WIDTH) - 1)
        width = width_of(shown)
        _draw("\r" + shown + " " * (self._drawn - width))
        self._drawn = width

    def _erase(self) -> None:
        if self._drawn:
            _draw("\r" + " " * self._drawn + "\r")
            self._drawn = 0


def _draw(text: str) -> None:
    """As say: on a terminal that has gone away the work goes on without."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _is_daemons_own(error: KitcacheError) -> bool:
    """Whether a daemon's own store was named, which is no cache, or cannot even be opened."""
    path = f"{error.path}/"
    is_kind = type(error) in (NotACache, KitcacheError)
    return is_kind and path.startswith(_DAEMONS_OWN) and not path.startswith(_VOLUMES)


def _json_shapes() -> ModuleType:
    from kitcache.cli import jsonout  # noqa: PLC0415 - people, who read no JSON, start faster

    return jsonout


def cancel_on_signals(cancel: Event) -> None:
    """The first Ctrl-C or SIGTERM sets cancel; the second of them ends the process at once.

    One that was ignored when we were started stays ignored.
    """
    heard = [
        each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN
    ]

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for each in heard:
            signal.signal(each, signal.SIG_DFL)
        cancel.set()

    for each in heard:
        signal.signal(each, stop)
