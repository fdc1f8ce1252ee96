"""naming/merge.py: what is said where it ends early: which tags have changed, what stays."""

import fcntl
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Busy, Cancelled, KitcacheError, UsageError
from kitcache.gc.values import Progress
from kitcache.store.directory import DirectoryStore
from kitcache.store.open import open_store
from kitcache.store.state import read_tag_uses, write_tag_uses
from kitcache.store.values import TagUse
from kitcache.upkeep.naming.merge import merge
from tests.hostile.build import Box, Sample
from tests.unit.upkeep.naming.mergekit import blobs, tags

BLOBS_STAY = "no tag was changed; copied blobs are kept for the next merge or reset"


def test_whoever_has_buildkits_lock_at_the_end(sample: Sample, other: Box) -> None:
    before = tags(other.dir)
    with (other.dir / "index.json.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match=r"index.json.lock is held by") as caught:
            merge([sample.dir], other.dir, lock_timeout_s=0)
    assert (caught.value.effect, tags(other.dir)) == (BLOBS_STAY, before)
    assert sample.live <= blobs(other.dir)


def test_a_failure_after_the_new_index_is_in_place_says_so(
    sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "the new index.json is in place, but a power cut may undo it"

    def met(*_: Any, **more: Any) -> Any:
        raise KitcacheError(str(other.dir), "cannot sync", effect=told)

    monkeypatch.setattr(DirectoryStore, "commit_roots", met)
    with pytest.raises(KitcacheError, match="cannot sync") as caught:
        merge([sample.dir], other.dir)
    assert caught.value.effect == told


def test_a_cancel_after_the_last_blob_still_changes_no_tag(sample: Sample, target: Path) -> None:
    cancel = Event()

    def hear(event: object) -> None:
        if isinstance(event, Progress) and event.phase == "merge":
            assert not cancel.is_set()
            if event.bytes == event.total_bytes:
                cancel.set()

    with pytest.raises(Cancelled) as caught:
        merge([sample.dir], target, on_progress=hear, cancel=cancel)
    assert cancel.is_set()
    assert (caught.value.effect, tags(target)) == (BLOBS_STAY, {})


def test_a_cancel_after_the_tags_have_come_says_that_they_have(
    sample: Sample, other: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with them what is noted of their uses."""
    with open_store(sample.dir) as layout:
        write_tag_uses(layout, {"main": TagUse(10)})
    cancel, real = Event(), DirectoryStore.commit_roots

    def met(*args: Any, **more: Any) -> Any:
        cancel.set()
        return real(*args, **more)

    monkeypatch.setattr(DirectoryStore, "commit_roots", met)
    with pytest.raises(Cancelled) as caught:
        merge([sample.dir], other.dir, cancel=cancel)
    assert caught.value.effect.startswith("all tags were published")
    assert tags(sample.dir).items() <= tags(other.dir).items()
    with open_store(other.dir) as layout:
        assert read_tag_uses(layout)["main"].exported_ns == 10
    assert merge([sample.dir], other.dir).outcome == "unchanged"


def test_a_target_without_a_name_is_none(sample: Sample) -> None:
    for dry_run in (True, False):
        with pytest.raises(UsageError, match="an empty name"):
            merge([sample.dir], "", dry_run=dry_run)
