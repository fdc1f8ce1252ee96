"""gc/control.py: telling and stopping."""

from threading import Event

import pytest

from kitcache.errors import Cancelled
from kitcache.gc.control import Control
from kitcache.gc.values import Progress

EVENT = Progress("survey", 1, 2)


def set_event() -> Event:
    event = Event()
    event.set()
    return event


def test_events_are_told_to_who_listens() -> None:
    told: list[object] = []
    Control("cache", told.append, None).report(EVENT)
    Control("cache", None, None).report(EVENT)
    assert told == [EVENT]


def test_nobody_is_stopped_without_an_event_that_is_set() -> None:
    for cancel in (None, Event()):
        control = Control("cache", None, cancel)
        assert not control.is_cancelled
        control.check()
        control.pause(0)


def test_the_event_stops_a_call_and_names_the_directory() -> None:
    control = Control("cache", None, set_event())
    assert control.is_cancelled
    for stop in (control.check, lambda: control.pause(0)):
        with pytest.raises(Cancelled, match="cache: stopped on request"):
            stop()


def test_a_pause_ends_as_soon_as_the_event_is_set() -> None:
    waited = []

    class Recorder(Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            return super().wait(0)

    Control("cache", None, Recorder()).pause(0.01)
    assert waited == [0.01], "a wait for the event, which setting it ends"


def test_patience_is_the_same_for_locks() -> None:
    told: list[object] = []
    control = Control("cache", told.append, set_event())
    patience = control.wait_policy(7.0)
    assert patience.timeout_s == 7.0
    patience.on_wait(EVENT)  # type: ignore[arg-type]
    assert told == [EVENT]
    with pytest.raises(Cancelled):
        patience.pause(0)
