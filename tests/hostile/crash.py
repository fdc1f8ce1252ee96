"""Kills a command at a chosen system call, for real: SIGKILL from strace, in a child.

strace counts calls a thread, so a count alone cannot name a call of a threaded program. A call is
named by what it is about instead: the file name that it removes or renames, and the how-maniest
call about that name it is. First the whole command is recorded, then it is killed before each
recorded call in turn: nothing of that call has happened, everything before it has.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

REMOVING = ("unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2")
NAMING = (*REMOVING, "link", "linkat", "mkdir", "mkdirat")
NAMING = (*REMOVING, "link", "linkat", "mkdir", "mkdirat")
WRITING = (*REMOVING, "write", "pwrite64", "fsync", "fdatasync", "fchmod", "fchown", "ftruncate")

_CALL = re.compile(r"^\d+\s+(\w+)\((.*)$")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Call(NamedTuple):
    """A system call of the recorded run. name: the last path it is given, "" where it has none."""

    syscall: str
    name: str
    nth: int


def missing_tool() -> str | None:
    """What is missing to kill by system call here, None where nothing is."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "strace may not trace here (ptrace is forbidden)"


def record(argv: Sequence[str], syscalls: Sequence[str], log: Path) -> list[Call]:
    """Run to the end, and return every such call that succeeded or failed, in order."""
    done = _strace(argv, ["-e", f"trace={','.join(syscalls)}"], log)
    assert done.returncode == 0, done.stderr
    seen: Counter[tuple[str, str]] = Counter()
    calls = []
    for line in log.read_text().splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        syscall, arguments = found.groups()
        names = _QUOTED.findall(arguments) if syscall in NAMING else []
        name = names[-1] if names else ""
        seen[syscall, name] += 1
        calls.append(Call(syscall, name, seen[syscall, name]))
    return calls


def unnamed(calls: Sequence[Call]) -> list[Call]:
    """The same calls, each by how many of its kind came before it: for a program of one thread,
    whose files have random names."""
    seen: Counter[str] = Counter()
    found = []
    for call in calls:
        seen[call.syscall] += 1
        found.append(Call(call.syscall, "", seen[call.syscall]))
    return found


def kill_before(argv: Sequence[str], call: Call, log: Path) -> bool:
    """Run and kill before that call; whether it came to that."""
    about = ["-P", call.name] if call.name else []
    inject = f"inject={call.syscall}:signal=SIGKILL:when={call.nth}"
    done = _strace(argv, [*about, "-e", f"trace={call.syscall}", "-e", inject], log)
    return done.returncode == -signal.SIGKILL


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "kitcache", *map(str, args)]


def _strace(
    argv: Sequence[str], options: Sequence[str], log: Path
) -> subprocess.CompletedProcess[str]:
    # The interpreter's own renames (of .pyc files) are none of ours.
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["strace", "-f", "-qq", "-o", str(log), *options, *argv],
        capture_output=True,
        check=False,
        env=env,
        text=True,
    )
