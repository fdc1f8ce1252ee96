"""Runs a block in a directory, and compares what it says with what the page shows."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs.blocks import Block

BIN = Path(sys.executable).parent
_VARIES = re.compile(r"\b\d+ (?:d|h|min|s)\b|\(\d+\.\d s\)|\"seconds\": [\d.]+")
# Of a build also: sizes, since a layer holds the dates of its files.
_VARIES_IN_A_BUILD = re.compile(rf"{_VARIES.pattern}|\b\d+(?:\.\d)? k?B\b")


def mask(line: str, varies: re.Pattern[str]) -> str:
    """The line without what differs from day to day, and so without the columns' widths."""
    return re.sub(r" +", " ", varies.sub("#", line)).rstrip()


def matches(expected: list[str], printed: list[str], *, is_build: bool = False) -> bool:
    """Whether the output is as the page shows it; a last line `...` stands for any more lines."""
    varies = _VARIES_IN_A_BUILD if is_build else _VARIES
    if expected and expected[-1] == "...":
        expected, printed = expected[:-1], printed[: len(expected) - 1]
    return len(expected) == len(printed) and all(
        given.startswith(wanted[:-3]) if wanted.endswith("...") else given == wanted
        for wanted, given in (
            (mask(one, varies), mask(other, varies))
            for one, other in zip(expected, printed, strict=True)
        )
    )


def shell(
    command: str, directory: Path, bin_directory: Path = BIN, env: Mapping[str, str] = os.environ
) -> str:
    """What a shell command prints, on either stream."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={**env, "PATH": f"{bin_directory}:{env['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout


def check_transcript(
    block: Block, directory: Path, env: Mapping[str, str] = os.environ, *, is_build: bool = False
) -> None:
    """Each command of a transcript prints what the page shows."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *expected = part.splitlines()
        printed = shell(command, directory, env=env).splitlines()
        assert matches(expected, printed, is_build=is_build), f"$ {command}\n" + "\n".join(printed)


def check_python(block: Block, directory: Path, env: Mapping[str, str] = os.environ) -> None:
    """A program runs to its end without a warning, and says something."""
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
