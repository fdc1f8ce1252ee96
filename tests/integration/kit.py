"""Runs kitcache as a user would: a process, its two streams, its exit code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT_S = 60.0


class Answer(NamedTuple):
    """What one run said and how it ended."""

    command: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    def __str__(self) -> str:
        return f"kitcache {' '.join(self.command)}: exit {self.code}\n{self.out}{self.err}"


def command(*args: str | Path) -> list[str]:
    """The command line of a run, with the interpreter that runs the tests."""
    return [sys.executable, "-m", "kitcache", *map(str, args)]


def kitcache(*args: str | Path) -> Answer:
    """Runs kitcache to its end, whatever comes of it; a traceback fails the test at once."""
    done = subprocess.run(
        command(*args), check=False, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    answer = Answer(tuple(map(str, args)), done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in answer.out + answer.err, answer
    return answer


def must(*args: str | Path) -> Answer:
    """Like `kitcache`, and exit code 0 is expected."""
    answer = kitcache(*args)
    assert answer.code == 0, answer
    return answer
