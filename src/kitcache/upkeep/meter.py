"""The progress of a command that copies or reads blobs: merge, copy, verify."""

import time
from typing import Literal

from kitcache.gc.control import Control
from kitcache.gc.values import Progress


class Meter:
    """Reports progress, in the thread of the caller. Every method raises Cancelled."""

    def __init__(
        self, phase: Literal["merge", "copy", "verify"], total_bytes: int, control: Control
    ) -> None:
        self._phase: Literal["merge", "copy", "verify"] = phase
        self._total_bytes = total_bytes
        self._control = control
        self._started_s = time.monotonic()
        self._blobs = self._bytes = 0

    def advance(self, size: int) -> None:
        """Count bytes of a blob that is not complete yet."""
        self._bytes += size
        self.report()

    def finish(self, size: int = 0) -> None:
        """Count a blob as complete, and those of its bytes that were not counted before."""
        self._blobs += 1
        self.advance(size)

    def report(self) -> None:
        """Report the progress so far."""
        self._control.check()
        seconds = time.monotonic() - self._started_s
        self._control.report(
            Progress(self._phase, self._blobs, self._bytes, self._total_bytes, seconds)
        )
