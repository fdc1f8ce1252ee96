"""cli/terminal.py: how wide the terminal is."""

import fcntl
import os
import pty
import struct
import sys
import termios

import pytest

from kitcache.cli.terminal import terminal_width


@pytest.fixture(autouse=True)
def _without_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


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
        assert terminal_width(piped=1000) == 1000


@pytest.mark.parametrize(
    ("columns", "width"),
    [("100", 100), ("20", 20), ("0", 80), ("-5", 80), ("", 80), ("wide", 80), ("9" * 400, 80)],
)
def test_the_environment_may_say_how_wide(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal_width() == width
