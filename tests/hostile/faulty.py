"""Commands of which one call of the C library fails: built, started, recorded, run."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

HERE = Path(__file__).parent

ERRNOS = {
    "open": (errno.EIO, errno.EACCES, errno.EMFILE),
    "create": (errno.EIO, errno.EACCES, errno.EMFILE, errno.ENOSPC),
    "stat": (errno.EIO, errno.EACCES),
    "list": (errno.EIO, errno.EMFILE),
    "read": (errno.EIO,),
    "fstat": (errno.EIO,),
    "readlink": (errno.EIO, errno.EACCES),
    "lock": (errno.EIO,),
    "utime": (errno.EIO, errno.EACCES),
    "chmod": (errno.EIO, errno.EACCES),
    "chown": (errno.EIO, errno.EACCES),
    "unlink": (errno.EIO, errno.EACCES),
    "sync": (errno.EIO, errno.ENOSPC),
    "write": (errno.EIO, errno.ENOSPC),
    "mkdir": (errno.EIO, errno.EACCES, errno.ENOSPC),
    "link": (errno.EIO, errno.EACCES, errno.ENOSPC),
    "rename": (errno.EIO, errno.EACCES, errno.ENOSPC),
}
"""With what a call of each kind may fail."""


class Call(NamedTuple):
    """A recorded call. at: its number, from 1. name: of the file, below the root."""

    at: int
    kind: str
    name: str


class Fault(NamedTuple):
    """A call that is to fail, and with what."""

    call: Call
    errno: int

    def __str__(self) -> str:
        at, kind, name = self.call
        return f"call {at}: {kind} {name}: {errno.errorcode[self.errno]}"


class Ended(NamedTuple):
    """How a command ended. code: negative for a signal. said: what it wrote to both streams."""

    code: int
    said: str
    calls: tuple[Call, ...]


def compiler() -> str | None:
    """A C compiler, None where there is none."""
    return shutil.which("gcc") or shutil.which("cc")


class Server:
    """A process that runs commands; a context manager. scratch: a directory for its files."""

    def __init__(self, scratch: Path, **environ: str) -> None:
        self._scratch = scratch
        library = scratch / "faults.so"
        source = HERE / "faults.c"
        subprocess.run(
            [compiler() or "cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"],
            check=True,
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.fault_server"],
            cwd=HERE.parents[1],
            env=os.environ | environ | {"LD_PRELOAD": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def run(self, argv: Sequence[str], root: Path, fault: Fault | None = None) -> Ended:
        """Run kitcache with these words; the fault is counted among calls below root."""
        out, log = self._scratch / "out", self._scratch / "log"
        out.write_bytes(b"")
        job = {
            "argv": list(argv),
            "root": str(root),
            "at": fault.call.at if fault else 0,
            "errno": fault.errno if fault else 0,
            "log": str(log),
            "out": str(out),
        }
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        calls = tuple(map(_read_call, log.read_text().splitlines()))
        return Ended(code, out.read_text(errors="replace"), calls)


def _read_call(line: str) -> Call:
    at, kind, name = line.split(" ", 2)
    return Call(int(at), kind, name)


def faults_of(calls: Sequence[Call]) -> list[Fault]:
    """Each call, with all that it may fail with."""
    return [Fault(call, number) for call in calls for number in ERRNOS[call.kind]]
