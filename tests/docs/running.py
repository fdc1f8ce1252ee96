"""Runs a block in a directory, and compares its output with the page."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs.blocks import Block

BIN = Path(sys.executable).parent
_VARIES = re.compile(
    r"\b\d+ (?:d|h|min|s)\b|\(\d+\.\d s\)|\"seconds\": [\d.]+|\b\d+ requests: [\w, ]+"
)
# In a build sizes vary too, because a layer contains the dates of its files.
_VARIES_IN_A_BUILD = re.compile(rf"{_VARIES.pattern}|\b\d+(?:\.\d)? k?B\b")


def mask(line: str, varies: re.Pattern[str]) -> str:
    """Return the line without values that differ from day to day, and without column widths."""
    return re.sub(r" +", " ", varies.sub("#", line)).rstrip()


def matches(expected: list[str], printed: list[str], *, is_build: bool = False) -> bool:
    """Return True if the output matches the page.

    A last line `...` stands for any further lines, `...` at the end of a line for any text.
    """
    varies = _VARIES_IN_A_BUILD if is_build else _VARIES
    if expected and expected[-1] == "...":
        expected, printed = expected[:-1], printed[: len(expected) - 1]
    return len(expected) == len(printed) and all(
        actual.startswith(wanted[:-3]) if wanted.endswith("...") else actual == wanted
        for wanted, actual in zip(
            (mask(line, varies) for line in expected),
            (mask(line, varies) for line in printed),
            strict=True,
        )
    )


def shell(
    command: str, directory: Path, bin_directory: Path = BIN, env: Mapping[str, str] = os.environ
) -> str:
    """Return what a shell command prints to stdout and stderr."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={**env, "PATH": f"{bin_directory}:{env['PATH']}", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        timeout=300,
        check=False,
    )
    return done.stdout


def check_transcript(
    block: Block, directory: Path, env: Mapping[str, str] = os.environ, *, is_build: bool = False
) -> None:
    """Check that each command of a transcript prints what the page shows."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *expected = part.splitlines()
        printed = shell(command, directory, env=env).splitlines()
        assert matches(expected, printed, is_build=is_build), f"$ {command}\n" + "\n".join(printed)


def check_python(block: Block, directory: Path, env: Mapping[str, str] = os.environ) -> None:
    """Check that a program ends without a warning, and prints something."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
