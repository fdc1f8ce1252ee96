"""The terminal: how wide it is, the answer on stdout, and the conversation on stderr."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

WIDTH = 80


def terminal_width(piped: int = WIDTH) -> int:
    """Columns to fill on stdout: COLUMNS, else the terminal's, at least 80; piped without one."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and 0 < len(given) < 6 and int(given):
        return int(given)
    columns = columns_of(sys.stdout)
    return piped if columns is None else max(WIDTH, columns)


def columns_of(stream: TextIO | None) -> int | None:
    """Columns of the terminal that a stream is, None where it is none; a closed stream is None."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream else None
    except (OSError, ValueError):
        return None


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads it."""
    return stream is not None and stream.isatty()


def print_stderr(line: str) -> None:
    """Print a line to stderr, if there is one that takes it: else the work goes on without."""
    if sys.stderr is not None:  # print() would take stdout in its place
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)


class StdoutError(OSError):
    """Standard output does not take the answer."""


@contextmanager
def writing_stdout() -> Iterator[None]:
    """A block that writes to stdout, and does nothing else. Raises StdoutError."""
    try:
        yield
    except OSError as error:
        raise StdoutError(error.errno, error.strerror) from None


def print_stdout(text: str) -> None:
    """Print to stdout. Raises StdoutError."""
    with writing_stdout():
        print(text, flush=True)
