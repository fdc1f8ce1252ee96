"""The end of a build that its caller asks for: by an event, or by a limit of its time."""

import time
from threading import Event

from kitcache.errors import UsageError

# Thirty years. What is longer overflows in the clocks of sockets and locks.
_LONGEST_S = 1e9


def check_seconds(name: str, seconds: float) -> float:
    """Return the timeout, at most 30 years. Raises UsageError if it is not one."""
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number:
        raise UsageError(f"{name} is of type {type(seconds).__name__}, not a number of seconds")
    if not seconds >= 0:  # not a number, too
        raise UsageError(f"{name} is {seconds}, not a number of seconds of at least 0")
    return float(min(seconds, _LONGEST_S))


class Limit(Event):
    """The caller's event, which is also set once the time is over.

    timeout_s: seconds from now; None: no limit. Raises UsageError where it is no number of seconds.
    """

    def __init__(self, cancel: Event | None, timeout_s: float | None) -> None:
        super().__init__()
        self.timeout_s = timeout_s
        self._cancel = cancel or Event()
        self._ends_s: float | None = None
        if timeout_s is not None:
            self._ends_s = time.monotonic() + check_seconds("timeout_s", timeout_s)

    @property
    def is_late(self) -> bool:
        """Whether it is the time alone that ends the build."""
        return not self._cancel.is_set() and self._left_s() == 0

    def is_set(self) -> bool:
        """Whether the build is to end."""
        return self._cancel.is_set() or self._left_s() == 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the build is to end, at most so long; whether it is."""
        bounds = [seconds for seconds in (timeout, self._left_s()) if seconds is not None]
        self._cancel.wait(min(bounds, default=None))
        return self.is_set()

    def _left_s(self) -> float | None:
        return None if self._ends_s is None else max(0.0, self._ends_s - time.monotonic())
