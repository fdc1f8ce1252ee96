"""The standard streams: the width of a terminal, results on stdout, messages on stderr."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

WIDTH = 80


def terminal_width(piped: int = WIDTH) -> int:
    """Return the width of stdout: COLUMNS, else the columns of the terminal, at least 80.

    Args:
        piped: Returned if stdout is not a terminal.
    """
    text = os.environ.get("COLUMNS", "")
    if text.isascii() and text.isdigit() and 0 < len(text) < 6 and int(text):
        return int(text)
    columns = columns_of(sys.stdout)
    return piped if columns is None else max(WIDTH, columns)


def columns_of(stream: TextIO | None) -> int | None:
    """Return the columns of a terminal; None if the stream is closed (None) or not a terminal."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream else None
    except (OSError, ValueError):
        return None


def is_terminal(stream: TextIO | None) -> bool:
    """Return True if the stream is a terminal."""
    return stream is not None and stream.isatty()


def print_stderr(line: str) -> None:
    """Print a line to stderr. If that fails, the work continues without the line."""
    if sys.stderr is not None:  # If file is None, print() writes to stdout.
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)


class StdoutError(OSError):
    """A write to stdout failed."""


@contextmanager
def writing_stdout() -> Iterator[None]:
    """Turn OSError into StdoutError, in a block that only writes to stdout."""
    try:
        yield
    except OSError as error:
        raise StdoutError(error.errno, error.strerror) from None


def print_stdout(text: str) -> None:
    """Print to stdout. Raises StdoutError."""
    with writing_stdout():
        print(text, flush=True)
