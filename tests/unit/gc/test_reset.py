"""gc/reset.py: what a reset and a dry run do, and what a report says."""

import fcntl
import os
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Busy, Cancelled, Damaged, NotACache
from kitcache.gc.control import Control
from kitcache.gc.reset import reset
from kitcache.gc.values import Progress, ResetResult, Tally
from kitcache.options.sweep import SweepOptions
from kitcache.store.values import Waiting
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import Sample, encode


def blobs(sample: Sample) -> set[str]:
    return set(os.listdir(sample.dir / "blobs" / "sha256"))


def size_of(sample: Sample, names: frozenset[str]) -> int:
    return sum((sample.dir / "blobs" / "sha256" / name).stat().st_size for name in names)


def test_a_report_says_all(sample: Sample) -> None:
    kept = Tally(7, size_of(sample, sample.live))
    removed = Tally(4, size_of(sample, sample.garbage))
    (sample.dir / "notes").touch()
    sample.box.ingest("a", data=b"half a blob")
    report = reset(sample.dir)
    assert report == ResetResult(
        path=str(sample.dir),
        outcome="done",
        entry_count=2,
        kept=kept,
        too_young=Tally(),
        deleted=removed,
        ingests_deleted=Tally(1, 15),
        ingests_kept=(),
        not_deleted=(),
        not_deleted_count=0,
        foreign=("notes",),
        foreign_count=1,
        missing_blobs=(),
        seconds=report.seconds,
    )
    assert report.exit_code == 0
    assert report.seconds >= 0
    assert blobs(sample) == sample.live


def test_a_second_reset_finds_nothing(sample: Sample) -> None:
    reset(sample.dir)
    again = reset(sample.dir)
    assert (again.deleted, again.kept.blobs) == (Tally(), 7)


def test_a_dry_run_says_the_same_and_touches_nothing(sample: Sample) -> None:
    before = take_snapshot(sample.box.top)
    dry = reset(sample.dir, dry_run=True)
    assert differences(before, take_snapshot(sample.box.top)) == []
    done = reset(sample.dir)
    assert dry.outcome == "dry-run"
    assert dry._replace(outcome="done", seconds=done.seconds) == done


def test_a_dry_run_takes_no_lock(sample: Sample) -> None:
    with (sample.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert reset(sample.dir, dry_run=True).deleted.blobs == 4
        with pytest.raises(Busy, match=r"kitcache.lock is held by"):
            reset(sample.dir, lock_timeout_s=0)
    assert len(blobs(sample)) == 11


def test_the_lock_is_held_while_it_works_and_given_back(sample: Sample) -> None:
    held = []

    def on_progress(event: object) -> None:
        with (sample.dir / "kitcache.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(event)

    reset(sample.dir, on_progress=on_progress)
    assert held
    held.clear()
    on_progress(None)
    assert held == []


def test_the_name_is_kept_as_given(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sample.box.top)
    assert reset("cache/.").path == "cache/."
    assert reset(Path("cache")).path == "cache"
    with pytest.raises(NotACache, match=r"^nowhere: not a cache"):
        reset("nowhere")


def test_a_refusal_removes_nothing(sample: Sample) -> None:
    sample.box.damage(sample.main["digest"], None)
    before = blobs(sample)
    for dry_run in (True, False):
        with pytest.raises(Damaged, match="tag 'main' cannot be read"):
            reset(sample.dir, dry_run=dry_run)
    assert blobs(sample) == before


def test_min_age_spares_and_the_report_counts_it_as_kept(sample: Sample) -> None:
    report = reset(sample.dir, options=SweepOptions(min_age_ns=24 * 3600 * 10**9))
    assert report.deleted == Tally()
    assert report.too_young == Tally(4, size_of(sample, sample.garbage))
    assert report.kept == Tally(11, size_of(sample, sample.live | sample.garbage))
    assert reset(sample.dir, options=SweepOptions(min_age_ns=60 * 10**9)).too_young == Tally()
    assert blobs(sample) == sample.live


def test_uploads_that_stay_are_named_with_the_reason(sample: Sample) -> None:
    name = sample.box.ingest("slow", age_s=600)
    assert reset(sample.dir).ingests_kept == ((name, "last written 10 min ago"),)
    report = reset(sample.dir, options=SweepOptions(ingest_age_ns=300 * 10**9))
    assert (report.ingests_kept, report.ingests_deleted.blobs) == ((), 1)


def test_missing_layers_are_told_and_no_hindrance(sample: Sample) -> None:
    sample.box.damage(sample.layers[0]["digest"], None)
    report = reset(sample.dir)
    assert [str(leaf.digest) for leaf in report.missing_blobs] == [sample.layers[0]["digest"]]
    assert report.exit_code == 0


def test_an_export_under_way_is_left_alone_at_once(sample: Sample) -> None:
    name = sample.box.ingest("busy", age_s=10)
    with pytest.raises(Busy, match="another client is exporting") as caught:
        reset(sample.dir)
    assert caught.value.retry_after_s == pytest.approx(50, abs=5)
    assert len(blobs(sample)) == 11
    assert os.listdir(sample.dir / "ingest") == [name]


def touch_ingest(sample: Sample) -> None:
    """As if an upload had left ingest/ just now, and index.json were older."""
    os.utime(sample.dir / "index.json", ns=(0, 0))
    os.utime(sample.dir / "ingest")


def test_a_tag_that_is_about_to_be_published_is_waited_for(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    layer = sample.box.blob(b"its layer")
    manifest = sample.box.manifest([layer])

    def publish(event: object) -> None:
        events.append(event)
        if isinstance(event, Waiting):
            sample.box.entries.append(manifest)
            (sample.dir / "index.json").write_bytes(encode(sample.box.index_document()))

    def no_longer(control: Control, seconds: float) -> None:
        raise AssertionError("the wait goes on although the tag is there")

    monkeypatch.setattr(Control, "pause", no_longer)
    touch_ingest(sample)
    report = reset(sample.dir, on_progress=publish)
    (waiting,) = [event for event in events if isinstance(event, Waiting)]
    assert waiting.waiting_for == "export"
    assert 0 < waiting.seconds <= 5
    assert (report.entry_count, report.kept.blobs, report.deleted.blobs) == (3, 10, 4)


def test_that_wait_can_be_cancelled_and_a_dry_run_does_not_wait(sample: Sample) -> None:
    cancel = Event()

    def stop(event: object) -> None:
        if isinstance(event, Waiting):
            cancel.set()

    touch_ingest(sample)
    with pytest.raises(Cancelled):
        reset(sample.dir, on_progress=stop, cancel=cancel)
    touch_ingest(sample)
    told: list[object] = []
    reset(sample.dir, dry_run=True, on_progress=told.append)
    assert not [event for event in told if isinstance(event, Waiting)]
    assert len(blobs(sample)) == 11


def test_progress_is_told_in_the_callers_thread(sample: Sample) -> None:
    events: list[Any] = []
    reset(sample.dir, on_progress=events.append)
    assert events[-1] == Progress("sweep", 4, events[-1].bytes)


def test_cancelled_before_it_begins(sample: Sample) -> None:
    cancel = Event()
    cancel.set()
    with pytest.raises(Cancelled) as caught:
        reset(sample.dir, cancel=cancel)
    assert caught.value.deleted_blobs == 0
    assert len(blobs(sample)) == 11


def test_cancelled_halfway_leaves_the_lock_free_and_the_rest_for_later(sample: Sample) -> None:
    for n in range(6000):
        sample.box.blob(b"garbage %d" % n)
    cancel = Event()

    def stop(event: object) -> None:
        if isinstance(event, Progress) and event.phase == "sweep":
            cancel.set()

    with pytest.raises(Cancelled):
        reset(sample.dir, on_progress=stop, cancel=cancel)
    assert sample.live < blobs(sample)
    reset(sample.dir, lock_timeout_s=0)
    assert blobs(sample) == sample.live


def test_no_descriptor_stays_open(sample: Sample) -> None:
    before = os.listdir("/proc/self/fd")
    reset(sample.dir)
    sample.box.damage(sample.main["digest"], None)
    with pytest.raises(Damaged):
        reset(sample.dir)
    assert os.listdir("/proc/self/fd") == before


def test_a_cancelled_dry_run_claims_no_removal(sample: Sample) -> None:
    cancel = Event()

    def stop(event: object) -> None:
        if isinstance(event, Progress) and event.phase == "sweep":
            cancel.set()

    with pytest.raises(Cancelled) as caught:
        reset(sample.dir, dry_run=True, on_progress=stop, cancel=cancel)
    assert caught.value.deleted_blobs == 0
    assert "nothing was deleted" in str(caught.value)
