"""gc/collect.py: survey, plan, apply, look again; and what is said when something comes between."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from kitcache.errors import Busy, Cancelled, Damaged, KitcacheError
from kitcache.gc import collect as module
from kitcache.gc.reset import reset
from kitcache.store import index as index_module
from kitcache.store.directory import DirectoryStore
from tests.hostile.build import LAYER, Sample


def blobs(sample: Sample) -> set[str]:
    return set(os.listdir(sample.dir / "blobs" / "sha256"))


def at_the_second(name: str, act: Callable[[], None], patch: pytest.MonkeyPatch) -> list[int]:
    """Something that others do right before a store's `name` is called for the second time."""
    real, calls = getattr(DirectoryStore, name), [0]

    def call(*args: Any, **how: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            act()
        return real(*args, **how)

    patch.setattr(DirectoryStore, name, call)
    return calls


def test_an_index_that_changed_before_the_sweep_is_planned_again(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = sample.box.document({"layers": [sample.box.blob(b"saved")]}, LAYER)
    root = sample.box.manifest([sample.box.blob(b"saved")])
    calls = at_the_second("read_roots", lambda: sample.box.tag("new", root), monkeypatch)
    report = reset(sample.dir)
    assert calls[0] >= 3
    assert report.entry_count == 3
    assert root["digest"].partition(":")[2] in blobs(sample)
    assert saved["digest"].partition(":")[2] not in blobs(sample)


def test_an_index_that_changed_during_the_sweep_is_planned_again_and_counts_add_up(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.apply

    def publish(*args: Any) -> Any:
        swept = real(*args)
        if len(sample.box.entries) == 2:
            sample.box.blob(b"fresh garbage")
            sample.box.tag("new", sample.main)
        return swept

    monkeypatch.setattr(module, "apply", publish)
    report = reset(sample.dir)
    assert (report.entry_count, report.deleted.blobs) == (3, 5)
    assert blobs(sample) == sample.live


def test_a_tag_that_was_published_meanwhile_and_lost_a_blob_is_named(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = sample.box.blob(b"reused by a stranger")
    real = module.apply

    def publish(*args: Any) -> Any:
        swept = real(*args)
        sample.box.tag("stranger", sample.box.manifest([layer]))
        return swept

    monkeypatch.setattr(module, "apply", publish)
    with pytest.raises(Damaged, match="tag 'stranger' was published during the sweep") as caught:
        reset(sample.dir)
    assert caught.value.kind == "lost"
    assert layer["digest"] in str(caught.value)
    assert caught.value.effect == "5 unreachable blobs had been deleted"


def test_an_index_that_never_rests_is_busy(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.apply

    def publish(*args: Any) -> Any:
        swept = real(*args)
        sample.box.tag(f"tag {len(sample.box.entries)}", sample.main)
        return swept

    monkeypatch.setattr(module, "apply", publish)
    with pytest.raises(Busy, match=r"index.json changed 8 times") as caught:
        reset(sample.dir)
    assert caught.value.effect == "4 unreachable blobs had been deleted"


def test_a_failure_in_mid_sweep_tells_what_had_gone(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(layout: object) -> Any:
        raise KitcacheError("cache", "cannot list blobs: Input/output error")

    monkeypatch.setattr(DirectoryStore, "foreign_names", fail)
    with pytest.raises(KitcacheError, match="4 unreachable blobs had been deleted"):
        reset(sample.dir)
    assert blobs(sample) == sample.live


def test_index_json_is_on_the_disk_before_the_first_blob_goes(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BuildKit does not sync it: a power cut would bring back an index whose blobs have gone."""
    synced = []
    real = os.fsync

    def watch(fd: int) -> None:
        synced.append((os.fstat(fd).st_ino, len(blobs(sample))))
        real(fd)

    monkeypatch.setattr(index_module.os, "fsync", watch)
    before = len(blobs(sample))
    reset(sample.dir)
    inodes = [(sample.dir / "index.json").stat().st_ino, sample.dir.stat().st_ino]
    assert synced[:2] == [(inode, before) for inode in inodes]
    assert len(blobs(sample)) < before


def test_a_reset_that_slept_on_the_way_plans_again(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was written since would be dated beyond what a sweep's course spares."""
    real = module.make_plan
    plans = []

    def plan(*args: Any) -> Any:
        made = real(*args)
        plans.append(made)
        return made if len(plans) > 1 else made._replace(valid_until_ns=0)

    monkeypatch.setattr(module, "make_plan", plan)
    assert reset(sample.dir).deleted.blobs == 4
    assert len(plans) == 2


def test_cancelled_after_uploads_had_gone_it_says_so(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset(sample.dir)
    sample.box.ingest("left behind")
    real = module.apply

    def stop(*args: Any) -> Any:
        swept = real(*args)
        return swept._replace(failure=Cancelled("cache"))

    monkeypatch.setattr(module, "apply", stop)
    with pytest.raises(Cancelled) as caught:
        reset(sample.dir)
    assert caught.value.effect == "unfinished uploads had been deleted (1), and no blob"
