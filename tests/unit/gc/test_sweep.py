"""gc/sweep.py: what goes, what stays, what is counted; the dry run is the same walk."""

import os
import threading
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Cancelled
from kitcache.gc.control import Control
from kitcache.gc.plan import make_plan
from kitcache.gc.survey import take_survey
from kitcache.gc.sweep import apply, dry_run_sweep
from kitcache.gc.values import MAX_LISTED, Plan, Progress, SweepResult, Tally
from kitcache.options.sweep import SweepOptions
from kitcache.store.layout import Layout
from kitcache.store.values import BATCH_SIZE, HeldLock, Ingest
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import Sample, digest_of

NOW = 4_000_000_000 * 10**9


def always() -> bool:
    return True


def plan_for(layout: Layout, control: Control) -> Plan:
    return make_plan(take_survey(layout, control), SweepOptions(), NOW)


def sweep(layout: Layout, plan: Plan, is_current: Callable[[], bool] = always) -> SweepResult:
    return apply(plan, HeldLock(layout, "exclusive"), Control("cache", None, None), is_current)


def add_garbage(sample: Sample, count: int, algorithm: str = "sha256") -> int:
    """That many blobs which nobody reaches; the bytes of them all."""
    folder = sample.dir / "blobs" / algorithm
    folder.mkdir(exist_ok=True)
    for n in range(count):
        data = b"garbage %d" % n
        path = folder / digest_of(data, algorithm).partition(":")[2]
        path.write_bytes(data)
        os.utime(path, (0, 0))
    return sum(len(b"garbage %d" % n) for n in range(count))


def hold_back_helpers(patch: pytest.MonkeyPatch) -> Event:
    """Threads other than the caller's remove nothing until this event is set."""
    caller, go_on, real_unlink = threading.get_ident(), Event(), os.unlink

    def unlink(name: Any, **how: Any) -> None:
        if threading.get_ident() != caller:
            go_on.wait()
        real_unlink(name, **how)

    patch.setattr(os, "unlink", unlink)
    return go_on


def blobs(sample: Sample, algorithm: str = "sha256") -> set[str]:
    return set(os.listdir(sample.dir / "blobs" / algorithm))


def test_exactly_the_unreferenced_blobs_go(
    sample: Sample, layout: Layout, control: Control
) -> None:
    size = sum((sample.dir / "blobs" / "sha256" / n).stat().st_size for n in sample.garbage)
    before = take_snapshot(sample.box.top)
    swept = sweep(layout, plan_for(layout, control))
    assert swept == SweepResult(deleted=Tally(len(sample.garbage), size))
    assert differences(before, take_snapshot(sample.box.top)) == [
        f"gone: cache/blobs/sha256/{name}" for name in sorted(sample.garbage)
    ]


def test_the_plan_alone_decides(sample: Sample, layout: Layout, control: Control) -> None:
    plan = plan_for(layout, control)
    kept = sample.live | {min(sample.garbage)}
    sweep(layout, plan._replace(keep={**plan.keep, "sha256": frozenset(kept)}))
    assert blobs(sample) == kept


@pytest.mark.parametrize("count", [0, BATCH_SIZE, 3 * BATCH_SIZE + 1])
def test_a_dry_run_counts_what_the_run_removes(
    sample: Sample, layout: Layout, control: Control, count: int
) -> None:
    for name in sample.garbage:
        (sample.dir / "blobs" / "sha256" / name).unlink()
    size = add_garbage(sample, count)
    add_garbage(sample, 3, "sha512")
    sample.box.ingest("left behind")
    (sample.dir / "notes").touch()
    plan = plan_for(layout, control)
    before = take_snapshot(sample.box.top)
    counted = dry_run_sweep(plan, layout, control)
    assert differences(before, take_snapshot(sample.box.top)) == []
    assert counted.deleted == Tally(count + 3, size + 27)
    swept = sweep(layout, plan)
    assert sorted(swept.foreign) == sorted(counted.foreign)
    assert swept == counted
    assert blobs(sample) == set(sample.live)
    assert blobs(sample, "sha512") == set()


def test_age_spares(sample: Sample, layout: Layout, control: Control) -> None:
    ages = {name: n for n, name in enumerate(sorted(sample.garbage))}
    for name, mtime_ns in ages.items():
        os.utime(sample.dir / "blobs" / "sha256" / name, ns=(0, mtime_ns))
    plan = plan_for(layout, control)
    young = {name for name, mtime_ns in ages.items() if mtime_ns >= 2}
    size = sum((sample.dir / "blobs" / "sha256" / name).stat().st_size for name in young)
    swept = sweep(layout, plan._replace(young_since_ns=2))
    assert swept.too_young == Tally(2, size)
    assert swept.deleted.blobs == 2
    assert blobs(sample) == sample.live | young


def test_what_vanished_meanwhile_is_nothing(
    sample: Sample, layout: Layout, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_stat, victim = os.stat, min(sample.garbage)

    def vanish(name: Any, **how: Any) -> os.stat_result:
        found = real_stat(name, **how)
        if name == victim:
            os.unlink(sample.dir / "blobs" / "sha256" / victim)
        return found

    plan = plan_for(layout, control)
    monkeypatch.setattr(os, "stat", vanish)
    swept = sweep(layout, plan)
    assert (swept.deleted.blobs, swept.not_deleted_count) == (3, 0)


def test_what_another_process_removes_at_this_moment_is_not_spared(
    sample: Sample, layout: Layout, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stat that meets an unlink shows the file without a name, changed just now.

    Measured on ext4: 2,210 of 414,068 such stats.
    """
    plan = plan_for(layout, control)
    name = min(sample.garbage)
    path, real_stat = sample.dir / "blobs" / "sha256" / name, os.stat
    with path.open("rb") as file:
        path.unlink()
        late = os.fstat(file.fileno())
    assert late.st_nlink == 0
    plan = plan._replace(changed_from_ns=late.st_ctime_ns)
    path.touch()  # the scan has seen its name

    def stat(path: Any, **how: Any) -> os.stat_result:
        return late if path == name else real_stat(path, **how)

    monkeypatch.setattr(os, "stat", stat)
    swept = dry_run_sweep(plan, layout, control)
    assert (swept.deleted.blobs, swept.too_young) == (len(sample.garbage) - 1, Tally())


def test_one_file_that_stays_does_not_stop_the_rest(
    sample: Sample, layout: Layout, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may unlink anything, so the system call itself says no."""
    real_unlink, victim = os.unlink, min(sample.garbage)

    def refuse(name: Any, **how: Any) -> None:
        if name == victim:
            raise PermissionError(1, "Operation not permitted")
        real_unlink(name, **how)

    plan = plan_for(layout, control)
    monkeypatch.setattr(os, "unlink", refuse)
    swept = sweep(layout, plan)
    assert swept.not_deleted == ((f"blobs/sha256/{victim}", "Operation not permitted"),)
    assert (swept.not_deleted_count, swept.deleted.blobs) == (1, 3)
    assert blobs(sample) == sample.live | {victim}


def test_a_hundred_names_are_listed_and_all_are_counted(
    sample: Sample, layout: Layout, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_garbage(sample, 3 * BATCH_SIZE)
    for n in range(MAX_LISTED + 20):
        (sample.dir / f"foreign {n}").write_bytes(b"xy")
    plan = plan_for(layout, control)

    def refuse(name: Any, **how: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "unlink", refuse)
    swept = sweep(layout, plan)
    assert (len(swept.not_deleted), swept.not_deleted_count) == (MAX_LISTED, 3 * BATCH_SIZE + 4)
    assert (len(swept.foreign), swept.foreign_tally) == (MAX_LISTED, Tally(MAX_LISTED + 20, 0))
    assert (
        dry_run_sweep(plan, layout, control, with_foreign_bytes=True).foreign_tally.bytes == 2 * 120
    )


def test_a_changed_index_ends_the_walk_and_keeps_uploads(
    sample: Sample, layout: Layout, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_garbage(sample, 6 * BATCH_SIZE)
    name = sample.box.ingest("left behind")
    plan = plan_for(layout, control)
    helpers = hold_back_helpers(monkeypatch)

    def is_current() -> bool:
        helpers.set()
        return False

    swept = sweep(layout, plan, is_current)
    assert swept.stopped
    assert len(blobs(sample)) == 7 + 4 + 6 * BATCH_SIZE - swept.deleted.blobs
    assert swept.deleted.blobs <= 4 * BATCH_SIZE
    assert sample.live < blobs(sample)
    assert swept.ingests_deleted == Tally()
    assert os.listdir(sample.dir / "ingest") == [name]


def test_an_index_that_changes_at_the_very_end_keeps_uploads(
    sample: Sample, layout: Layout, control: Control
) -> None:
    name = sample.box.ingest("left behind")
    answers = iter([True, False])
    swept = sweep(layout, plan_for(layout, control), lambda: next(answers))
    assert swept.deleted.blobs == 4
    assert os.listdir(sample.dir / "ingest") == [name]


def test_uploads_that_the_plan_drops_go(sample: Sample, layout: Layout, control: Control) -> None:
    gone, stays = sample.box.ingest("a"), sample.box.ingest("b")
    plan = plan_for(layout, control)
    drop = tuple(ingest for ingest in plan.drop_ingests if ingest.name == gone)
    swept = sweep(layout, plan._replace(drop_ingests=drop))
    assert swept.ingests_deleted == Tally(1, 1 + 3 + len(b"half a blob"))
    assert os.listdir(sample.dir / "ingest") == [stays]


def test_an_upload_that_vanished_is_nothing_and_one_that_cannot_go_is_left(
    sample: Sample, layout: Layout, control: Control
) -> None:
    name = sample.box.ingest("a")
    plan = plan_for(layout, control)
    folder = sample.dir / "ingest" / name
    dated = folder.stat().st_mtime_ns
    (folder / "odd").mkdir()
    os.utime(folder / "odd", ns=(dated, dated))
    os.utime(folder, ns=(dated, dated))
    (upload,) = plan.drop_ingests
    upload = upload._replace(writes_ns=tuple(sorted((*upload.writes_ns, dated))))
    swept = sweep(layout, plan._replace(drop_ingests=(Ingest("0" * 64, (0,), 7), upload)))
    assert swept.ingests_deleted == Tally()
    assert swept.not_deleted == ((f"ingest/{name}", "odd in it is not a regular file"),)


def test_an_upload_that_was_taken_up_again_since_the_survey_stays(
    sample: Sample, layout: Layout, control: Control
) -> None:
    name = sample.box.ingest("a")
    plan = plan_for(layout, control)
    (sample.dir / "ingest" / name / "data").write_bytes(b"half a blob, and more")
    assert sweep(layout, plan).ingests_deleted == Tally()
    assert os.listdir(sample.dir / "ingest") == [name]


def test_nothing_odd_is_touched(sample: Sample, layout: Layout, control: Control) -> None:
    folder = sample.dir / "blobs" / "sha256"
    os.symlink(min(sample.garbage), folder / ("0" * 64))
    (folder / ("1" * 64)).mkdir()
    os.mkfifo(folder / ("2" * 64))
    (folder / "tmp-upload").touch()
    (sample.dir / "blobs" / "blake3").mkdir()
    odd = ["0" * 64, "1" * 64, "2" * 64, "tmp-upload"]
    swept = sweep(layout, plan_for(layout, control))
    assert sorted(swept.foreign) == ["blobs/blake3/", *(f"blobs/sha256/{name}" for name in odd)]
    assert swept.foreign_tally == Tally(5, 0)
    assert blobs(sample) == sample.live | set(odd)


def test_cancelled_before_the_first_blob_removes_nothing(
    sample: Sample, layout: Layout, control: Control
) -> None:
    plan = plan_for(layout, control)
    cancel = Event()
    cancel.set()
    before = take_snapshot(sample.dir)
    swept = apply(plan, HeldLock(layout, "exclusive"), Control("cache", None, cancel), always)
    assert isinstance(swept.failure, Cancelled)
    assert (swept.deleted, swept.stopped) == (Tally(), True)
    assert differences(before, take_snapshot(sample.dir)) == []


def test_cancelled_in_between_says_what_was_done(
    sample: Sample, layout: Layout, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_garbage(sample, 6 * BATCH_SIZE)
    total = len(blobs(sample))
    plan = plan_for(layout, control)
    helpers = hold_back_helpers(monkeypatch)
    cancel = Event()

    def on_progress(event: object) -> None:
        cancel.set()
        helpers.set()

    swept = apply(
        plan, HeldLock(layout, "exclusive"), Control("cache", on_progress, cancel), always
    )
    left = blobs(sample)
    assert isinstance(swept.failure, Cancelled)
    assert sample.live < left
    assert swept.deleted.blobs == total - len(left)
    assert swept.deleted.blobs <= BATCH_SIZE + 64, "one batch, and what a helper had in hand"


def test_progress_comes_from_the_calling_thread_and_grows(
    sample: Sample, layout: Layout, control: Control
) -> None:
    add_garbage(sample, 4 * BATCH_SIZE)
    plan = plan_for(layout, control)
    events: list[Progress] = []
    swept = apply(
        plan, HeldLock(layout, "exclusive"), Control("cache", events.append, None), always
    )
    counts = [event.blobs for event in events]
    assert counts == sorted(counts)
    assert {event.phase for event in events} == {"sweep"}
    assert swept.deleted.blobs == 4 * BATCH_SIZE + 4


def test_a_caller_whose_progress_raises_stops_the_sweep(
    sample: Sample, layout: Layout, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_garbage(sample, 6 * BATCH_SIZE)
    plan = plan_for(layout, control)
    helpers = hold_back_helpers(monkeypatch)

    def fail(event: object) -> None:
        helpers.set()
        raise KeyError

    threads = threading.active_count()
    with pytest.raises(KeyError):
        apply(plan, HeldLock(layout, "exclusive"), Control("cache", fail, None), always)
    assert threading.active_count() == threads
    assert sample.live < blobs(sample)


def test_a_helper_that_fails_is_heard(
    sample: Sample, layout: Layout, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_garbage(sample, 6 * BATCH_SIZE)
    plan = plan_for(layout, control)
    caller, real_stat, failed = threading.get_ident(), os.stat, Event()

    def stat(name: Any, **how: Any) -> os.stat_result:
        if threading.get_ident() != caller:
            failed.set()
            raise MemoryError
        # Only a helper that has work can fail: the caller waits for it.
        failed.wait(10)
        return real_stat(name, **how)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(MemoryError):
        sweep(layout, plan)


def test_where_the_system_has_no_second_thread_one_does_it_all(
    sample: Sample, layout: Layout, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_garbage(sample, 2 * BATCH_SIZE)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert sweep(layout, plan_for(layout, control)).deleted.blobs == 4 + 2 * BATCH_SIZE
