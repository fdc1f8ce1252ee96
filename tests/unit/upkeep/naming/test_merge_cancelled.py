"""naming/merge.py: cancelled at any time, it leaves garbage at most."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from kitcache.errors import Cancelled
from kitcache.gc.values import Progress
from kitcache.upkeep.naming.merge import merge
from tests.hostile.build import Box, Sample
from tests.unit.upkeep.naming.mergekit import items, without_links


def stop_after(events: int) -> tuple[Event, Callable[[object], None]]:
    cancel, left = Event(), [events]

    def hear(event: object) -> None:
        if isinstance(event, Progress) and event.phase == "merge":
            left[0] -= 1
            if left[0] <= 0:
                cancel.set()

    return cancel, hear


@pytest.mark.parametrize("events", range(1, 6))
def test_between_blobs_it_leaves_garbage_only(sample: Sample, other: Box, events: int) -> None:
    cancel, hear = stop_after(events)
    before = items(other.dir)
    with pytest.raises(Cancelled) as caught:
        merge([sample.dir], other.dir, on_progress=hear, cancel=cancel)
    assert "no tag was changed" in caught.value.effect
    assert items(other.dir) == before
    assert merge([sample.dir], other.dir).outcome == "done"


def test_in_the_middle_of_a_copy(box: Box, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box.tag("big", box.manifest([box.blob(b"x" * (3 << 20))]))
    without_links(monkeypatch)
    cancel, seen = Event(), list[Progress]()

    def hear(event: object) -> None:
        if isinstance(event, Progress) and event.phase == "merge":
            seen.append(event)
            if 1 << 20 < event.bytes < 3 << 20:
                cancel.set()

    with pytest.raises(Cancelled):
        merge([box.dir], target, on_progress=hear, cancel=cancel)
    assert os.listdir(target / ".kitcache") == []
    assert {event.total_bytes for event in seen} == {
        sum(path.stat().st_size for path in (box.dir / "blobs").glob("*/*"))
    }
    assert [event.bytes for event in seen] == sorted(event.bytes for event in seen)
