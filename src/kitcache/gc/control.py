"""How a caller hears of a long call, and how it stops one."""

import time
from collections.abc import Callable
from threading import Event
from typing import NamedTuple

from kitcache.errors import Cancelled
from kitcache.gc.values import Progress
from kitcache.store.protocol import Waiting, WaitPolicy

OnProgress = Callable[[Progress | Waiting], None]
Warn = Callable[[str], None]


class Control(NamedTuple):
    """A caller's wishes: tell these events, stop when this is set."""

    path: str
    on_progress: OnProgress | None
    cancel: Event | None

    def report(self, event: Progress | Waiting) -> None:
        """Call on_progress, in the caller's own thread."""
        if self.on_progress is not None:
            self.on_progress(event)

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller wants this call to end."""
        return self.cancel is not None and self.cancel.is_set()

    def check(self) -> None:
        """Raises Cancelled once the caller has set the event."""
        if self.is_cancelled:
            raise Cancelled(self.path)

    def pause(self, seconds: float) -> None:
        """Wait; raises Cancelled as soon as the caller has set the event."""
        if self.cancel is None:
            time.sleep(seconds)
        else:
            self.cancel.wait(seconds)
        self.check()

    def wait_policy(self, timeout_s: float) -> WaitPolicy:
        """The same, as the locks want it."""
        return WaitPolicy(timeout_s, self.pause, self.report)
