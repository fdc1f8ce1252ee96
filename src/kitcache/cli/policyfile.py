"""Reading the file that --policy or --prune-policy names."""

import os
import select
import stat
import time
from threading import Event

from kitcache.cli.interrupt import open_stdin, unless_cancelled
from kitcache.errors import Cancelled, UsageError
from kitcache.options.policyfile import read_policy
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.store.ioerrors import io_error

STDIN = "-"
LIMIT_BYTES = 64 * 1024
"""The largest policy. A hostile policy of 1 MiB would take minutes to check."""
WRITER_TIMEOUT_S = 30.0
"""How long to wait for the writer of a pipe."""
_GLANCE_MS = 100


def read_file(path: str, cancel: Event | None = None) -> PrunePolicy:
    """Return the policy in a file or a pipe; "-" is stdin.

    Raises:
        UsageError: The policy is wrong, too large or not UTF-8, or a pipe has no writer.
        Cancelled: `cancel` was set.
        KitcacheError: The file cannot be read.
    """
    cancel = cancel or Event()
    name = "stdin" if path == STDIN else path
    try:
        data = unless_cancelled(lambda: _read(path, cancel), cancel)
    except Cancelled as error:
        error.path, error.effect = name, "nothing was done"
        raise
    except OSError as error:
        failure = io_error(name, "cannot read the policy", error, effect="nothing was done")
        failure.hints = ("name the file that holds it",)
        raise failure from None
    if len(data) > LIMIT_BYTES:
        raise UsageError(f"a policy has at most {LIMIT_BYTES:,} bytes", path=name)
    try:
        # Some editors on Windows begin a file with a byte order mark.
        return read_policy(data.decode("utf-8-sig"), name)
    except UnicodeDecodeError:
        raise UsageError("it is not UTF-8: this is not TOML", path=name) from None


def _read(path: str, cancel: Event) -> bytes:
    if path == STDIN:
        stdin = open_stdin(cancel)
        if stdin is None:
            raise UsageError("it is closed: no policy can be read from it", path="stdin")
        return stdin.read(LIMIT_BYTES + 1)
    # Without O_NONBLOCK, opening a pipe waits forever for its other end.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        head = _wait_for_writer(fd, path) if stat.S_ISFIFO(os.fstat(fd).st_mode) else b""
        os.set_blocking(fd, True)
        return head + file.read(LIMIT_BYTES + 1 - len(head))


def _wait_for_writer(fd: int, path: str) -> bytes:
    """Wait until a process has opened the pipe to write. Return the bytes read by then.

    Raises:
        UsageError: No process opened the other end in time.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    ends = time.monotonic() + WRITER_TIMEOUT_S
    while not poll.poll(_GLANCE_MS):
        try:
            data = os.read(fd, LIMIT_BYTES + 1)
        except BlockingIOError:  # A read blocks only if the pipe has a writer.
            return b""
        if data:
            return data
        if time.monotonic() > ends:
            raise UsageError(
                f"it is a pipe, and no process writes to it; waited {WRITER_TIMEOUT_S:g} s",
                path=path,
            )
    return b""
