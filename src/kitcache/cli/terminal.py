"""The terminal: how wide it is, and the conversation on stderr."""

import os
import sys
from typing import TextIO

WIDTH = 80


def terminal_width() -> int:
    """Columns of the terminal on stdout, at least 80; 80 where there is none."""
    return max(WIDTH, columns_of(sys.stdout) or WIDTH)


def columns_of(stream: TextIO | None) -> int | None:
    """Columns of the terminal that a stream is, None where it is none; a closed stream is None."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream else None
    except (OSError, ValueError):
        return None


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads it."""
    return stream is not None and stream.isatty()


def say(line: str) -> None:
    """Print a line to stderr, if there is one: print() would take stdout in its place."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)
