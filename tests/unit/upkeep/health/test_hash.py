"""health/hash.py: every blob, small ones here, large ones in threads; few files open."""

import os
import threading
from collections.abc import Iterator
from math import inf
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Cancelled, KitcacheError
from kitcache.gc.control import Control
from kitcache.gc.values import Progress, Tally
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.directory import DirectoryStore
from kitcache.store.layout import Layout
from kitcache.upkeep.health import hash as module
from kitcache.upkeep.health.hash import hash_all, hash_some
from kitcache.upkeep.results import BadBlob
from tests.hostile.build import Sample

LARGE = 300 * 1024


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (files, threads)


def bytes_in(sample: Sample) -> int:
    return sum(path.stat().st_size for path in (sample.dir / "blobs" / "sha256").iterdir())


def count_in(sample: Sample) -> int:
    return len(os.listdir(sample.dir / "blobs" / "sha256"))


def add_large(sample: Sample, count: int = 5) -> list[Digest]:
    blobs = [sample.box.blob(bytes([n]) * LARGE) for n in range(count)]
    return [parse_digest(blob["digest"]) for blob in blobs]


def test_a_sound_cache(layout: Layout, sample: Sample, control: Control) -> None:
    found = hash_all(layout, control)
    assert found.blobs == Tally(count_in(sample), bytes_in(sample))
    assert (found.bad_blobs, found.symlinks) == ((), ())


def test_large_blobs_too(layout: Layout, sample: Sample, control: Control) -> None:
    add_large(sample)
    found = hash_all(layout, control)
    assert found.blobs == Tally(count_in(sample), bytes_in(sample))
    assert found.bad_blobs == ()


def test_every_bad_blob_is_named_in_order(layout: Layout, sample: Sample, control: Control) -> None:
    large = add_large(sample)
    for digest in large[1:3]:
        sample.box.damage(str(digest), b"x" * LARGE)
    small = sample.layers[1]["digest"]
    sample.box.damage(small, b"")
    found = hash_all(layout, control)
    bad = sorted([*large[1:3], parse_digest(small)])
    assert [one.digest for one in found.bad_blobs] == bad
    assert {one.size for one in found.bad_blobs} == {LARGE, 0}
    assert found.blobs.blobs == count_in(sample)


def test_what_has_a_blobs_name_and_is_none(
    layout: Layout, sample: Sample, control: Control
) -> None:
    where = sample.dir / "blobs" / "sha256"
    (where / ("a" * 64)).symlink_to("nowhere")
    (where / ("b" * 64)).mkdir()
    os.mkfifo(where / ("c" * 64))
    (where / ("d" * 64)).symlink_to("/dev/zero")
    (where / ("e" * 64)).symlink_to("e" * 64)
    (where / ("f" * 64)).symlink_to(sample.layers[0]["digest"].removeprefix("sha256:"))
    (where / "tmp-upload").touch()
    (where / "lost+found").mkdir()
    odd = [Digest("sha256", letter * 64) for letter in "abcdef"]
    nothing, other = "is a symlink that leads to nothing", "is not a regular file"
    for found in (hash_all(layout, control), hash_some(layout, odd, control)):
        assert [(one.digest.hex[0], one.problem, one.size) for one in found.bad_blobs] == [
            ("a", nothing, 0),
            ("b", other, 0),
            ("c", other, 0),
            ("d", other, 0),
            ("e", nothing, 0),
        ]
        assert found.symlinks == (odd[5],)
    assert hash_all(layout, control).blobs.blobs == count_in(sample) - 8


def test_some(layout: Layout, sample: Sample, control: Control) -> None:
    good, bad, gone = sample.layers[0]["digest"], sample.layers[1]["digest"], "sha256:" + "0" * 64
    sample.box.damage(bad, b"other")
    unknown = Digest("blake3", "0")
    digests = [*map(parse_digest, (good, bad, gone)), unknown]
    found = hash_some(layout, digests, control)
    assert found.blobs == Tally(2, sample.layers[0]["size"] + 5)
    assert [one.digest for one in found.bad_blobs] == [parse_digest(bad)]
    assert found.bad_blobs[0] == BadBlob(parse_digest(bad), found.bad_blobs[0].problem, 5)


def test_progress(layout: Layout, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    add_large(sample)
    monkeypatch.setattr(module, "_REPORT_S", 0.0)
    monkeypatch.setattr(module, "_COUNT_AFTER_S", 0.0)
    events: list[Any] = []
    here = threading.current_thread()

    def hear(event: Any) -> None:
        assert threading.current_thread() is here
        events.append(event)

    found = hash_all(layout, Control("cache", hear, None))
    assert {event.phase for event in events} == {"verify"}
    assert [e.bytes for e in events] == sorted(e.bytes for e in events)
    last = events[-1]
    assert last == Progress("verify", *found.blobs, bytes_in(sample), last.seconds)
    assert last.seconds > 0


def test_the_end_is_told_even_if_it_comes_at_once(layout: Layout, sample: Sample) -> None:
    """What there is in all is not worth counting then."""
    events: list[Any] = []
    found = hash_all(layout, Control("cache", events.append, None))
    assert events == [Progress("verify", *found.blobs, 0, events[0].seconds)]


def test_without_a_listener_nothing_is_counted(
    layout: Layout, sample: Sample, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REPORT_S", 0.0)
    monkeypatch.setattr(module, "_COUNT_AFTER_S", 0.0)
    monkeypatch.setattr(Layout, "stat_blob", lambda *_: pytest.fail("a stat for nobody"))
    hash_all(layout, control)


def test_cancel_before(layout: Layout, control: Control) -> None:
    cancel = Event()
    cancel.set()
    with pytest.raises(Cancelled):
        hash_all(layout, control._replace(cancel=cancel))


def test_cancel_inside_a_large_blob(
    layout: Layout, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that would take minutes, and takes no space."""
    monkeypatch.setattr(module, "_COUNT_AFTER_S", inf)
    path = sample.box.path_of("sha256:" + "0" * 64)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    cancel = Event()

    def stop_soon(event: Any) -> None:
        if event.bytes > LARGE:
            cancel.set()

    with pytest.raises(Cancelled):
        hash_all(layout, Control("cache", stop_soon, cancel))


def test_a_thread_that_fails_ends_the_call(
    layout: Layout, sample: Sample, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_large(sample, 20)
    real = module.BlobHasher.hash_blob

    def fail(self: Any, digest: Digest, *, largest: int | None = None) -> Any:
        if largest is None:
            raise MemoryError
        return real(self, digest, largest=largest)

    monkeypatch.setattr(module.BlobHasher, "hash_blob", fail)
    with pytest.raises(MemoryError):
        hash_all(layout, control)


def test_a_directory_that_cannot_be_listed(
    layout: Layout, sample: Sample, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Iterator[Any]:
        raise KitcacheError("cache", "cannot list blobs/sha256: Input/output error")

    monkeypatch.setattr(DirectoryStore, "scan_blobs", fail)
    with pytest.raises(KitcacheError, match="cannot list blobs/sha256"):
        hash_all(layout, control)


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_any_number_of_cores(
    layout: Layout, sample: Sample, control: Control, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    large = add_large(sample, 12)
    sample.box.damage(str(large[3]), b"x" * LARGE)
    monkeypatch.setattr(module, "count_cores", lambda: cores)
    found = hash_all(layout, control)
    assert found.blobs.blobs == count_in(sample)
    assert [one.digest for one in found.bad_blobs] == [large[3]]


def test_blobs_that_vanish_are_no_problem(
    layout: Layout, sample: Sample, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep of strangers removes names that have been listed."""
    listed = list(layout.scan_blobs())
    monkeypatch.setattr(DirectoryStore, "scan_blobs", lambda _: iter(listed))
    for name in sample.garbage:
        Path(sample.dir, "blobs", "sha256", name).unlink()
    found = hash_all(layout, control)
    assert found.blobs.blobs == len(sample.live)
    assert found.bad_blobs == ()


@pytest.mark.parametrize("granted", [0, 1])
def test_where_the_system_has_no_more_threads_fewer_do_it_all(
    layout: Layout,
    sample: Sample,
    control: Control,
    monkeypatch: pytest.MonkeyPatch,
    granted: int,
) -> None:
    add_large(sample)
    real, started = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if len(started) == granted:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    monkeypatch.setattr(module, "count_cores", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", start)
    found = hash_all(layout, control)
    assert (found.blobs, found.bad_blobs) == (Tally(count_in(sample), bytes_in(sample)), ())
