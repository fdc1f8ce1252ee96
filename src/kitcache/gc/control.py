"""Progress and cancellation of a long call."""

import time
from collections.abc import Callable
from threading import Event
from typing import NamedTuple

from kitcache.errors import Cancelled
from kitcache.gc.values import Progress
from kitcache.store.values import Waiting, WaitPolicy

OnProgress = Callable[[Progress | Waiting], None]
Warn = Callable[[str], None]


class Control(NamedTuple):
    """The callbacks of a caller: one to report events to, and an event that cancels the call."""

    path: str
    on_progress: OnProgress | None
    cancel: Event | None

    def report(self, event: Progress | Waiting) -> None:
        """Call on_progress, in the thread of the caller."""
        if self.on_progress is not None:
            self.on_progress(event)

    @property
    def is_cancelled(self) -> bool:
        """True if the caller has cancelled this call."""
        return self.cancel is not None and self.cancel.is_set()

    def check(self) -> None:
        """Raise Cancelled if the caller has set the event."""
        if self.is_cancelled:
            raise Cancelled(self.path)

    def pause(self, seconds: float) -> None:
        """Wait, or raise Cancelled as soon as the caller has set the event."""
        if self.cancel is None:
            time.sleep(seconds)
        else:
            self.cancel.wait(seconds)
        self.check()

    def wait_policy(self, timeout_s: float) -> WaitPolicy:
        """Return a wait policy that uses these callbacks."""
        return WaitPolicy(timeout_s, self.pause, self.report)
