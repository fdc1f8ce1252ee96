"""kitcache.lock and BuildKit's index.json.lock: acquired by flock, never unlinked.

BuildKit unlinks its lock file after use, so after a flock the inode of the file is compared with
that of its path. A lock file is opened read-only, because it can belong to another user.
Source: BuildKit, client/ociindex.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import TypeVar

from kitcache.errors import NOTHING_CHANGED, Busy
from kitcache.store.files import copy_owner_and_mode, reference_stat
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import Layout, look_at, look_at_open, open_file
from kitcache.store.values import HeldLock, LockHolder, LockKind, Waiting, WaitPolicy

KITCACHE_LOCK = "kitcache.lock"
INDEX_LOCK = "index.json.lock"

L = TypeVar("L", bound=Layout)

_CREATE_FLAGS = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_PAUSE_S = 0.1
_RENAMED_S = 1.0
"""If other processes keep unlinking the lock file, retry for this time after the timeout."""
_COMMAND_BYTES = 1024
_CLIENT = frozenset(("bake", "build", "buildx", "builder", "compose", "image", "up"))
_KITCACHE = frozenset(
    (
        *("build", "completion", "copy", "du", "exec", "ls", "merge", "plugin", "prune", "reset"),
        *("tag", "trim", "untag", "verify", "why"),
    )
)
_SUBCOMMANDS = {
    "kitcache": _KITCACHE,
    "docker-kitcache": _KITCACHE,
    **dict.fromkeys(("docker", "docker-buildx", "docker-compose", "buildx", "buildctl"), _CLIENT),
    **dict.fromkeys(("nerdctl", "podman", "buildah"), _CLIENT),
}
"""The subcommands that a message may show, by program."""


@contextmanager
def lock_store(layout: L, kind: LockKind, wait_policy: WaitPolicy) -> Iterator[HeldLock[L]]:
    """Hold kitcache.lock. Exporters and importers hold it shared.

    Raises:
        Busy: It was not acquired within the timeout. Names the holder.
    """
    with _hold(layout, KITCACHE_LOCK, kind, wait_policy) as fd:
        yield HeldLock(layout, kind, fd)


@contextmanager
def lock_index(layout: Layout, wait_policy: WaitPolicy) -> Iterator[None]:
    """Hold BuildKit's index.json.lock. BuildKit does not wait for it: hold it for milliseconds.

    Raises:
        Busy: It was not acquired within the timeout.
    """
    with _hold(layout, INDEX_LOCK, "exclusive", wait_policy):
        yield


@contextmanager
def _hold(layout: Layout, name: str, kind: LockKind, wait_policy: WaitPolicy) -> Iterator[int]:
    operation = fcntl.LOCK_EX if kind == "exclusive" else fcntl.LOCK_SH
    deadline = time.monotonic() + wait_policy.timeout_s
    pause_s, is_reported = 0.005, False
    while True:
        fd = _open_lock(layout, name)
        try:
            is_locked = _try_lock(layout, fd, name, operation)
            if is_locked and _is_named(layout, fd, name):
                yield fd
                return
            left_s = deadline - time.monotonic()
            if left_s <= (-_RENAMED_S if is_locked else 0):
                holder = LockHolder(None, None) if is_locked else find_holder(fd)
                raise _busy(layout, name, holder, wait_policy.timeout_s)
            if not is_reported and not is_locked:
                is_reported = True
                wait_policy.on_wait(Waiting(layout.path, name, find_holder(fd), left_s))
        finally:
            os.close(fd)
        wait_policy.pause(max(0.0, min(pause_s, left_s)))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _try_lock(layout: Layout, fd: int, name: str, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise io_error(layout.path, f"cannot lock {name}", error) from None
    return True


def _is_named(layout: Layout, fd: int, name: str) -> bool:
    named = look_at(layout, name)
    return named is not None and os.path.samestat(named, look_at_open(layout, fd, name))


def _open_lock(layout: Layout, name: str) -> int:
    while True:
        fd = open_file(layout, name)
        if fd is not None:
            return fd
        reference = reference_stat(layout)
        try:
            fd = os.open(name, _CREATE_FLAGS, 0o600, dir_fd=layout.root_fd)
        except FileExistsError:
            continue
        except OSError as error:
            raise io_error(layout.path, f"cannot create the lock file {name}", error) from None
        with suppress(OSError):
            copy_owner_and_mode(fd, reference)
            if os.fstat(fd).st_uid != reference.st_uid:
                # The owner could not be set, and the owner of the cache has to open it.
                os.fchmod(fd, 0o444 | reference.st_mode & 0o666)
        return fd


def _busy(layout: Layout, name: str, holder: LockHolder, waited_s: float) -> Busy:
    return Busy(
        layout.path,
        f"{name} is held by {describe_holder(holder)}"
        + (f"; waited {waited_s:.3g} s" if waited_s else ""),
        holder_pid=holder.pid,
        holder_command=holder.command,
        effect=NOTHING_CHANGED,
        hints=("try again when it has ended", "wait longer"),
    )


def unlock(fd: int) -> None:
    """Release a lock, even if a child process has inherited its fd and keeps it open."""
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)


def is_locked_elsewhere(layout: Layout) -> bool:
    """Return True if another process holds kitcache.lock, False if that is unknown."""
    fd = open_file(layout, KITCACHE_LOCK)
    if fd is None:
        return False
    try:
        return any(pid != os.getpid() for pid in list_takers(fd))
    finally:
        os.close(fd)


def describe_holder(holder: LockHolder) -> str:
    """Return the holder for a message."""
    if holder.pid is None:
        return "another process"
    return f"process {holder.pid}" + (f" ({holder.command})" if holder.command else "")


def find_holder(fd: int) -> LockHolder:
    """Return a process that holds a flock on this file; unknown if /proc does not name one.

    A child process can hold the lock after its parent has ended; /proc does not name it.
    """
    pid = next(filter(_is_alive, list_takers(fd)), None)
    return LockHolder(pid, None if pid is None else _command_of(pid))


def list_takers(fd: int) -> list[int]:
    """Return the processes that acquired a flock of this file, ended processes too.

    The list is empty if /proc does not name them. A process of another container is 0.
    """
    try:
        status = os.fstat(fd)
        wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        with open("/proc/locks", encoding="ascii", errors="replace") as table:
            lines = [line.split() for line in table if wanted in line]
        # "->" marks a process that waits for the lock.
        held = [words for words in lines if "FLOCK" in words and "->" not in words]
        return [int(words[words.index(wanted) - 1]) for words in held if wanted in words]
    except (OSError, ValueError):
        return []


def _is_alive(pid: int) -> bool:
    """Return False if the process has ended or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] not in b"ZX"
    except OSError:
        return False


def _command_of(pid: int) -> str | None:
    """Return the program and the subcommand of a process, None if the system does not name them.

    An argument can be a secret, so only words in _SUBCOMMANDS are shown.
    """
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            program = file.read().decode("utf-8", "replace").strip()
    except OSError:
        return None
    if program not in _SUBCOMMANDS and not program.startswith("python"):
        return program or None
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(_COMMAND_BYTES).decode("utf-8", "replace").split("\0")
    except OSError:
        return program
    return _name_command(program, words)


def _name_command(program: str, words: list[str]) -> str:
    if program.startswith("python"):
        # The name of a Python program is an argument of its interpreter, perhaps after -m.
        del words[: 2 if words[1:2] == ["-m"] else 1]
        script = os.path.basename(words[0]) if words else ""
        if script not in _SUBCOMMANDS:
            return program
        program = script
    elif os.path.basename(words[0]) != program:
        # The interpreter of a script is its first word.
        del words[:1]
    known = _SUBCOMMANDS[program]
    named = list(takewhile(known.__contains__, words[1:3]))
    return " ".join((program, *named))
