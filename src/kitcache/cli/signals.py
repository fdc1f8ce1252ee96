"""Ctrl-C: the event that cancels a command."""

import signal
import time
from collections.abc import Iterable
from threading import Event
from types import FrameType

_POLL_S = 0.05


class Interrupt(Event):
    """An Event that a signal handler can set in the thread that waits for it.

    Event.set acquires a lock. If the handler interrupts Event.wait while it holds this lock, set
    never returns.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_set = False

    def set(self) -> None:
        """Set the event. A waiting thread notices it within 50 ms."""
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        end_s = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            rest_s = _POLL_S if end_s is None else min(_POLL_S, end_s - time.monotonic())
            if rest_s <= 0:
                break
            time.sleep(rest_s)
        return self._is_set


def cancel_on_signals(signals: Iterable[signal.Signals]) -> Event:
    """Return an event that the first of these signals sets; the second ends the process at once.

    A signal that this process ignores from its start remains ignored, also in its children.
    """
    cancel = Interrupt()
    handled = [each for each in signals if signal.getsignal(each) != signal.SIG_IGN]

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for each in handled:
            signal.signal(each, signal.SIG_DFL)
        cancel.set()

    for each in handled:
        signal.signal(each, stop)
    return cancel
