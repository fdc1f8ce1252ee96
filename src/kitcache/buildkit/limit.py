"""The cancellation of a build by an event or a time limit."""

import time
from threading import Event


class Limit(Event):
    """The caller's event, which is also set timeout_s seconds from now."""

    def __init__(self, cancel: Event | None, timeout_s: float | None) -> None:
        super().__init__()
        self.timeout_s = timeout_s
        self._cancel = cancel or Event()
        self._end_s: float | None = None
        if timeout_s is not None:
            self._end_s = time.monotonic() + timeout_s

    @property
    def is_late(self) -> bool:
        """True if only the time limit ends the build."""
        return not self._cancel.is_set() and self._remaining_s() == 0

    def is_set(self) -> bool:
        """Return True if the build has to end."""
        return self._cancel.is_set() or self._remaining_s() == 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the build has to end, at most timeout seconds. Return True if it has to."""
        bounds = [seconds for seconds in (timeout, self._remaining_s()) if seconds is not None]
        self._cancel.wait(min(bounds, default=None))
        return self.is_set()

    def _remaining_s(self) -> float | None:
        return None if self._end_s is None else max(0.0, self._end_s - time.monotonic())
