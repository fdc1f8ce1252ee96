"""The set-up steps of expect.json: what an archive cannot hold, done to an unpacked cache."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

HOLDER = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX if sys.argv[2] == "ex" else fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.readline()
if len(sys.argv) > 3:
    time.sleep(float(sys.argv[3]))
else:
    sys.stdin.readline()
"""


class ImpossibleError(Exception):
    """This machine cannot do that step; str() says why."""


class Stage:
    """The set-up of one cache, and what must be undone after it.

    `start()` sets the clocks of held locks and later steps going; leaving the
    context ends every process and timer, and makes immutable files removable.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.holders: list[subprocess.Popen[str]] = []
        self.timers: list[threading.Timer] = []
        self.immutable: list[Path] = []
        self.trouble: list[Exception] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for timer in self.timers:
            timer.cancel()
        for timer in self.timers:
            if timer.ident is not None:
                timer.join()
        for holder in self.holders:
            holder.kill()
            holder.communicate()
        for path in self.immutable:
            subprocess.run(["chattr", "-i", path], check=True)

    def do(self, steps: list[list[Any]]) -> None:
        """Each step in turn. Raises ImpossibleError, or ValueError for an unknown step."""
        for name, *arguments in steps:
            step = STEPS.get(name)
            if step is None:
                raise ValueError(f"unknown step {name}")
            step(self, *arguments)

    def start(self) -> None:
        """The command is about to start: clocks run from here."""
        for holder in self.holders:
            assert holder.stdin is not None
            holder.stdin.write("go\n")
            holder.stdin.flush()
        for timer in self.timers:
            timer.start()

    def at(self, path: str) -> Path:
        """A step's path: relative to the cache."""
        return self.cache / path


def age(stage: Stage, path: str, seconds: float) -> None:
    then_ns = time.time_ns() - int(seconds * 10**9)
    top = stage.at(path)
    names = [top]
    if top.is_dir() and not top.is_symlink():
        names += sorted(top.rglob("*"))
    for name in reversed(names):
        os.utime(name, ns=(then_ns, then_ns), follow_symlinks=False)


def write(stage: Stage, path: str, text: str) -> None:
    target = stage.at(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text.encode())


def mkdir(stage: Stage, path: str) -> None:
    stage.at(path).mkdir(parents=True, exist_ok=True)


def symlink(stage: Stage, path: str, target: str) -> None:
    stage.at(path).parent.mkdir(parents=True, exist_ok=True)
    stage.at(path).symlink_to(target)


def hardlink(stage: Stage, source: str, target: str) -> None:
    stage.at(target).parent.mkdir(parents=True, exist_ok=True)
    os.link(stage.at(source), stage.at(target), follow_symlinks=False)


def rename(stage: Stage, source: str, target: str) -> None:
    stage.at(target).parent.mkdir(parents=True, exist_ok=True)
    stage.at(source).rename(stage.at(target))


def remove(stage: Stage, path: str) -> None:
    top = stage.at(path)
    if top.is_dir() and not top.is_symlink():
        for child in sorted(top.iterdir()):
            remove(stage, str(child))
        top.rmdir()
    else:
        top.unlink()


def fifo(stage: Stage, path: str) -> None:
    stage.at(path).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(stage.at(path))


def make_socket(stage: Stage, path: str) -> None:
    """A bound socket that outlives its owner.

    Bound through an open directory: a socket address holds no more than some 107 bytes.
    """
    target = stage.at(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{directory}/s")
        os.rename("s", target.name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(directory)


def chmod(stage: Stage, path: str, octal: str) -> None:
    stage.at(path).chmod(int(octal, 8))


def grow(stage: Stage, path: str, size: int) -> None:
    with opened(stage.at(path)) as file:
        file.truncate(size)


def pad(stage: Stage, path: str, size: int) -> None:
    """Append spaces until the file is that long."""
    with opened(stage.at(path)) as file:
        end = file.seek(0, os.SEEK_END)
        file.write(b" " * (size - end))


def opened(path: Path) -> BinaryIO:
    """A file open for writing in place, whatever its mode says; the mode stays."""
    mode = path.stat().st_mode
    path.chmod(mode | 0o200)
    try:
        return path.open("r+b")
    finally:
        path.chmod(mode)


def immutable(stage: Stage, path: str) -> None:
    target = stage.at(path)
    done = subprocess.run(["chattr", "+i", target], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise ImpossibleError(f"chattr +i cannot be had here: {done.stderr.strip()}")
    stage.immutable.append(target)


def flock(stage: Stage, path: str, kind: str, seconds: float | None = None) -> None:
    lasting = [] if seconds is None else [str(seconds)]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(stage.at(path)), kind, *lasting],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stage.holders.append(holder)
    assert holder.stdout is not None
    if holder.stdout.readline() != "held\n":
        raise RuntimeError(f"nobody could lock {path}")


def later(stage: Stage, seconds: float, *step: Any) -> None:
    def act() -> None:
        try:
            stage.do([list(step)])
        except (OSError, ImpossibleError) as error:
            stage.trouble.append(error)

    stage.timers.append(threading.Timer(seconds, act))


STEPS: dict[str, Callable[..., None]] = {
    "age": age,
    "write": write,
    "mkdir": mkdir,
    "symlink": symlink,
    "hardlink": hardlink,
    "rename": rename,
    "remove": remove,
    "fifo": fifo,
    "socket": make_socket,
    "chmod": chmod,
    "grow": grow,
    "pad": pad,
    "immutable": immutable,
    "flock": flock,
    "later": later,
}
