"""What kitcache itself does in ingest/ is nobody's export: no reset waits for it, or refuses.

Nor is what a stranger does taken for ours.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

import kitcache
from kitcache.errors import Busy, Cancelled
from kitcache.gc.values import Progress
from kitcache.store.ingest import Ingester
from kitcache.store.open import open_store
from kitcache.store.scan import next_tick_ns
from kitcache.store.values import Waiting
from tests.hostile import strangers
from tests.hostile.build import Sample, make_sample
from tests.hostile.pair import after, before
from tests.hostile.privilege import NOBODY, give, needs_root, reachable_box, run_as
from tests.property import disk


def settle(cache: Path) -> None:
    """As if the last export had been published an hour ago."""
    os.utime(cache / "index.json", (time.time() - 3600,) * 2)
    disk.settle(cache)


def waits(path: Path) -> list[Waiting]:
    """Whom a reset waits for; it is cancelled once it does."""
    told: list[Waiting] = []
    cancel = Event()

    def listen(event: Progress | Waiting) -> None:
        if isinstance(event, Waiting):
            told.append(event)
            cancel.set()

    with suppress(Cancelled):
        kitcache.reset(path, on_progress=listen, cancel=cancel)
    return told


def test_a_reset_that_removed_an_upload(sample: Sample) -> None:
    sample.box.ingest("left behind")
    settle(sample.dir)
    assert kitcache.reset(sample.dir).ingests_deleted.blobs == 1
    assert waits(sample.dir) == []


def test_a_prune_that_removed_an_upload(sample: Sample) -> None:
    sample.box.ingest("left behind")
    settle(sample.dir)
    kitcache.prune(sample.dir, kitcache.PrunePolicy(keep_tags=("main",)))
    assert waits(sample.dir) == []


def test_a_reset_that_could_remove_only_a_part_of_an_upload() -> None:
    """Some of its files are somebody else's, in a directory with the sticky bit."""
    needs_root()
    with reachable_box() as box:
        sample = make_sample(box)
        folder = sample.dir / "ingest" / sample.box.ingest("left behind")
        give(sample.dir, NOBODY)
        for path in (folder, folder / "data"):
            os.chown(path, 1, 1)
        dated = folder.stat()
        folder.chmod(0o1777)
        os.utime(folder, ns=(dated.st_atime_ns, dated.st_mtime_ns))
        settle(sample.dir)
        for _ in range(2):
            answer = run_as(NOBODY, box, "reset", "cache")
            assert answer.code == 3, answer
            assert "ingest/" in answer.err
            (left,) = (sample.dir / "ingest").iterdir()
            assert "data" in os.listdir(left)


@pytest.mark.parametrize("ends", ["abort", "close"])
def test_an_export_of_ours_that_failed(sample: Sample, ends: str) -> None:
    settle(sample.dir)
    with open_store(sample.dir) as layout:
        intake = Ingester(layout)
        upload = intake.begin("layer", "sha256", 3)
        upload.write(b"abc")
        if ends == "abort":
            upload.abort()
        intake.close()
        upload.abort()
    assert os.listdir(sample.dir / "ingest") == []
    assert waits(sample.dir) == []


@pytest.mark.parametrize("has_uploaded", [True, False])
def test_an_export_of_ours_hides_nobody_who_came_after_it(
    sample: Sample, has_uploaded: bool
) -> None:
    settle(sample.dir)
    with open_store(sample.dir) as layout:
        intake = Ingester(layout)
        if has_uploaded:
            intake.begin("layer", "sha256", 3).abort()
        with (sample.dir / "kitcache.lock").open("w") as lock:
            next_tick_ns(lock.fileno())
        strangers.push_cache(sample.dir, [b"layer of a stranger"], 1)
        intake.close()
    assert [event.waiting_for for event in waits(sample.dir)] == ["export"]


def test_who_uploads_while_a_reset_removes_uploads_is_waited_for(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer without its manifest, dated before our own last change of ingest/."""
    layer = (sample.dir, strangers.LAYER, b"layer of a stranger")
    sample.box.ingest("left behind")
    settle(sample.dir)
    before(
        monkeypatch,
        "kitcache.store.index.date_index",
        lambda: strangers.push_blob(*layer),
    )
    assert kitcache.reset(sample.dir).ingests_deleted.blobs == 1
    assert [event.waiting_for for event in waits(sample.dir)] == ["export"]


def test_an_upload_after_it_is_refused_as_ever(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample.box.ingest("left behind")
    settle(sample.dir)
    begin = lambda: sample.box.ingest("under way", age_s=0)  # noqa: E731
    after(monkeypatch, "kitcache.store.index.date_index", begin)
    kitcache.reset(sample.dir)
    with pytest.raises(Busy):
        kitcache.reset(sample.dir)
