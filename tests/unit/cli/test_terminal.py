"""cli/terminal.py: how wide the terminal is."""

import fcntl
import os
import pty
import struct
import sys
import termios

import pytest

from kitcache.cli.terminal import terminal_width


@pytest.mark.parametrize(("columns", "width"), [(0, 80), (40, 80), (80, 80), (132, 132)])
def test_the_width_is_that_of_the_terminal_but_never_below_80(
    columns: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert terminal_width() == width
    os.close(master)


def test_without_a_terminal_it_is_80(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stdout", nowhere)
        assert terminal_width() == 80
