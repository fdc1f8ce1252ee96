"""Cancellation of work that does not check the cancel event itself."""

import io
import os
import select
import sys
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import BinaryIO, TypeVar

from kitcache.errors import Cancelled

Answer = TypeVar("Answer")

GLANCE_S = 0.1


def unless_cancelled(work: Callable[[], Answer], cancel: Event) -> Answer:
    """Do the work in a thread and return its result.

    Raises:
        Cancelled: `cancel` was set before the work ended; the thread is not waited for.
    """
    outcome: SimpleQueue[Callable[[], Answer]] = SimpleQueue()

    def run() -> None:
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            failure = error

            def fail() -> Answer:
                raise failure

            outcome.put(fail)
        else:
            outcome.put(lambda: answer)

    Thread(target=run, name="kitcache-waiting", daemon=True).start()
    while True:
        try:
            return outcome.get(timeout=GLANCE_S)()
        except Empty:
            if cancel.is_set():
                raise Cancelled("", effect="nothing was built") from None


def open_stdin(cancel: Event) -> BinaryIO | None:
    """Return stdin as a stream whose reads raise Cancelled once `cancel` is set; None if closed."""
    if sys.stdin is None:
        return None
    try:
        fd = sys.stdin.fileno()
    except (OSError, ValueError):  # A replacement of stdin without an fd does not block.
        return sys.stdin.buffer
    return io.BufferedReader(_Input(fd, cancel), 256 * 1024)


class _Input(io.RawIOBase):
    def __init__(self, fd: int, cancel: Event) -> None:
        self._fd = fd
        self._cancel = cancel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview", /) -> int:  # type: ignore[override]
        while not select.select([self._fd], [], [], GLANCE_S)[0]:
            if self._cancel.is_set():
                raise Cancelled("", effect="nothing was built")
        return os.readv(self._fd, [buffer])
