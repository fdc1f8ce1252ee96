"""The library in several threads at once, on different directories and on the same one."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any, TypeVar

import pytest

import kitcache
from tests.hostile.build import Sample, make_sample

THREADS = 8
Answer = TypeVar("Answer")

FIRST_USE = """
import sys, threading
import kitcache
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(16)
seen = []
def use(name):
    barrier.wait()
    seen.append((name, getattr(kitcache, name)))
names = sorted(set(kitcache.__all__) - {"__version__"})[:16]
threads = [threading.Thread(target=use, args=(name,)) for name in names]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(seen) == 16
assert all(value is getattr(kitcache, name) for name, value in seen)
"""


def at_once(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """All calls in threads of their own, begun together; their answers in order."""
    barrier = Barrier(len(calls))

    def begin(call: Callable[[], Answer]) -> Answer:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


def add_garbage(sample: Sample, count: int) -> int:
    for n in range(count):
        sample.box.blob(b"garbage %d" % n)
    return count + len(sample.garbage)


def blobs(sample: Sample) -> set[str]:
    return set(os.listdir(sample.dir / "blobs" / "sha256"))


def test_different_directories(tmp_path: Path) -> None:
    samples = []
    for n in range(THREADS):
        (tmp_path / f"{n}").mkdir()
        samples.append(make_sample(tmp_path / f"{n}"))
        add_garbage(samples[-1], 50 * n)
    reports = at_once([lambda s=s: kitcache.reset(s.dir) for s in samples])  # type: ignore[misc]
    assert [report.deleted.blobs for report in reports] == [50 * n + 4 for n in range(THREADS)]
    assert all(blobs(sample) == sample.live for sample in samples)


def test_resets_of_one_directory_take_turns(sample: Sample) -> None:
    count = add_garbage(sample, 1500)
    reports = at_once([lambda: kitcache.reset(sample.dir)] * THREADS)
    assert sum(report.deleted.blobs for report in reports) == count
    assert sorted(report.deleted.blobs for report in reports)[:-1] == [0] * (THREADS - 1)
    assert blobs(sample) == sample.live


def test_questions_beside_a_reset_see_what_lives(sample: Sample) -> None:
    add_garbage(sample, 1500)

    def ask() -> None:
        for _ in range(5):
            assert kitcache.du(sample.dir).live.blobs == 7
            assert [tag.size.blobs for tag in kitcache.ls(sample.dir).tags] == [4, 4]
            assert not kitcache.why(sample.dir, sample.layers[1]["digest"]).is_unreachable
            assert kitcache.reset(sample.dir, dry_run=True).kept.blobs == 7

    calls: list[Callable[[], Any]] = [ask] * (THREADS - 1)
    *_, report = at_once([*calls, lambda: kitcache.reset(sample.dir)])
    assert report.deleted.blobs == 1504
    assert blobs(sample) == sample.live


def test_each_untag_finds_the_others_work(sample: Sample) -> None:
    names = [f"tag {n}" for n in range(THREADS)]
    for name in names:
        sample.box.tag(name, sample.main)
    answers = at_once([lambda n=n: kitcache.untag(sample.dir, [n]) for n in names])  # type: ignore[misc]
    assert [answer.entries[0][0] for answer in answers] == names
    index = json.loads((sample.dir / "index.json").read_bytes())
    assert [entry["digest"] for entry in index["manifests"]] == [
        sample.main["digest"],
        sample.dev["digest"],
    ]


def test_untag_and_reset_together_lose_nothing(sample: Sample) -> None:
    for n in range(THREADS):
        sample.box.tag(f"tag {n}", sample.dev)
    calls: list[Callable[[], Any]] = []
    for n in range(THREADS):
        calls += [
            lambda n=n: kitcache.untag(sample.dir, [f"tag {n}"]),  # type: ignore[misc]
            lambda: kitcache.reset(sample.dir),
        ]
    at_once(calls)
    assert blobs(sample) == sample.live
    assert [tag.missing for tag in kitcache.ls(sample.dir).tags] == [0, 0]


def test_progress_comes_from_the_thread_that_called(sample: Sample) -> None:
    add_garbage(sample, 3000)

    def call() -> bool:
        heard: set[int] = set()
        kitcache.reset(
            sample.dir, dry_run=True, on_progress=lambda _: heard.add(threading.get_ident())
        )
        return heard == {threading.get_ident()}

    assert at_once([call] * THREADS) == [True] * THREADS


def test_a_cancelled_call_is_nobody_elses(sample: Sample) -> None:
    cancel = Event()
    cancel.set()

    def stopped() -> str:
        with pytest.raises(kitcache.Cancelled):
            kitcache.reset(sample.dir, cancel=cancel)
        return "stopped"

    def done() -> str:
        return kitcache.reset(sample.dir, cancel=Event()).outcome

    assert at_once([stopped, done] * 4) == ["stopped", "done"] * 4
    assert blobs(sample) == sample.live


def test_a_call_from_a_thread_can_be_cancelled_by_another(sample: Sample) -> None:
    cancel, waiting = Event(), Event()
    hold, held = Event(), Event()

    def holder() -> None:
        def stay(event: object) -> None:
            held.set()
            hold.wait()

        kitcache.reset(sample.dir, on_progress=stay)

    def waiter() -> None:
        held.wait()
        with pytest.raises(kitcache.Cancelled):
            kitcache.reset(sample.dir, on_progress=lambda _: waiting.set(), cancel=cancel)
        hold.set()

    def canceller() -> None:
        waiting.wait()
        cancel.set()

    at_once([holder, waiter, canceller])
    assert blobs(sample) == sample.live


def test_the_first_use_of_the_names_may_be_in_many_threads() -> None:
    subprocess.run([sys.executable, "-c", FIRST_USE], check=True, timeout=60)
