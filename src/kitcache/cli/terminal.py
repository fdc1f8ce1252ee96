"""The terminal: how wide it is."""

import os
import sys

WIDTH = 80


def terminal_width() -> int:
    """Columns of the terminal on stdout, at least 80; 80 where there is none."""
    try:
        return max(WIDTH, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (AttributeError, OSError, ValueError):  # a closed stdout is None
        return WIDTH
