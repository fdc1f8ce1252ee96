"""upkeep/edit.py, by way of prune: one edit of index.json, a sweep, and others who come between."""

import fcntl
import os
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Busy, Cancelled, Damaged, KitcacheError
from kitcache.gc import collect as collect_module
from kitcache.gc.control import Control
from kitcache.gc.reset import reset
from kitcache.gc.values import Progress
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.store import commit as commit_module
from kitcache.store.directory import DirectoryStore
from kitcache.upkeep.pruning.prune import prune
from tests.caches.snapshot import take_snapshot
from tests.hostile.build import Sample
from tests.unit.gc.prunekit import KEEP_MAIN, below, blobs, kept, most, tags


def at_the_first(
    module: Any, name: str, act: Callable[[], object], patch: pytest.MonkeyPatch
) -> list[int]:
    """Something that others do right before `name` is called for the first time."""
    real, calls = getattr(module, name), [0]

    def call(*args: Any, **how: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            act()
        return real(*args, **how)

    patch.setattr(module, name, call)
    return calls


def settle(sample: Sample, waited: list[float]) -> None:
    """The seconds have gone by."""
    waited.append(0)
    os.utime(sample.dir / "ingest", ns=(0, 0))


class TestOthers:
    def test_who_publishes_before_the_edit_is_heard(
        self, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        new = sample.box.manifest([sample.box.blob(b"new")])
        calls = at_the_first(
            DirectoryStore, "commit_roots", lambda: sample.box.tag("new", new), monkeypatch
        )
        pruned = prune(sample.dir, PrunePolicy(keep_tags=("main", "new")))
        assert calls[0] == 2
        assert tags(sample) == kept(pruned) == ["main", "new"]
        assert below(sample, new) <= blobs(sample)

    def test_who_publishes_while_the_lock_is_waited_for_is_heard(
        self, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The new index.json has been written beside it by then."""
        new = sample.box.manifest([sample.box.blob(b"new")])
        real = commit_module.lock_index

        def hold(*args: Any) -> Any:
            monkeypatch.setattr(commit_module, "lock_index", real)

            class Late:
                def __enter__(self) -> None:
                    sample.box.tag("new", new)

                def __exit__(self, *_: object) -> None:
                    pass

            return Late()

        monkeypatch.setattr(commit_module, "lock_index", hold)
        prune(sample.dir, PrunePolicy(keep_tags=("main", "new")))
        assert tags(sample) == ["main", "new"]

    def test_an_upload_that_ends_before_the_edit_is_waited_for(
        self, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def upload() -> None:
            os.utime(sample.dir / "index.json", ns=(0, 0))
            os.utime(sample.dir / "ingest")

        waited: list[float] = []
        monkeypatch.setattr(Control, "pause", lambda self, seconds: settle(sample, waited))
        at_the_first(DirectoryStore, "commit_roots", upload, monkeypatch)
        prune(sample.dir, KEEP_MAIN)
        assert waited
        assert tags(sample) == ["main"]

    def test_who_publishes_during_the_sweep_is_heard(
        self, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = collect_module.apply

        def publish(*args: Any) -> Any:
            swept = real(*args)
            if tags(sample) == ["main"]:
                sample.box.entries.pop()
                sample.box.tag("again", sample.main)
            return swept

        monkeypatch.setattr(collect_module, "apply", publish)
        pruned = prune(sample.dir, KEEP_MAIN)
        assert tags(sample) == ["main", "again"]
        assert (pruned.reset.entry_count, pruned.reset.deleted.blobs) == (2, 7)

    def test_a_dropped_tag_that_is_published_again_meanwhile_is_named(
        self, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = collect_module.apply

        def publish(*args: Any) -> Any:
            swept = real(*args)
            sample.box.tag("dev", sample.dev)
            return swept

        monkeypatch.setattr(collect_module, "apply", publish)
        with pytest.raises(Damaged, match="tag 'dev' was published during the sweep") as caught:
            prune(sample.dir, KEEP_MAIN)
        assert caught.value.kind == "lost"
        assert caught.value.effect == (
            "1 entry of index.json had been removed; 7 unreachable blobs had been deleted"
        )

    def test_an_index_that_never_rests_is_busy(
        self, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = DirectoryStore.commit_roots

        def publish(*args: Any, **more: Any) -> Any:
            sample.box.tag(f"tag {len(sample.box.entries)}", sample.main)
            return real(*args, **more)

        monkeypatch.setattr(DirectoryStore, "commit_roots", publish)
        with pytest.raises(Busy, match=r"index.json changed 8 times") as caught:
            prune(sample.dir, KEEP_MAIN)
        assert caught.value.effect == "nothing was changed"
        assert sample.garbage <= blobs(sample)

    def test_buildkits_lock_is_needed_for_the_edit_alone(self, sample: Sample) -> None:
        before = take_snapshot(sample.dir / "index.json")
        with (sample.dir / "index.json.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(Busy, match=r"index.json.lock is held by") as caught:
                prune(sample.dir, KEEP_MAIN, lock_timeout_s=0)
            assert take_snapshot(sample.dir / "index.json") == before
            assert sample.garbage <= blobs(sample)
            assert prune(sample.dir, most(10**9), lock_timeout_s=0).outcome == "done"
        assert caught.value.effect == "nothing was changed"

    def test_cancelled_in_the_sweep_it_says_what_had_gone(self, sample: Sample) -> None:
        for n in range(2000):
            sample.box.blob(b"garbage %d" % n)
        cancel = Event()

        def stop(event: object) -> None:
            if isinstance(event, Progress) and event.phase == "sweep":
                cancel.set()

        with pytest.raises(Cancelled) as caught:
            prune(sample.dir, KEEP_MAIN, on_progress=stop, cancel=cancel)
        assert tags(sample) == ["main"]
        assert caught.value.effect.startswith("1 entry of index.json had been removed; ")
        assert caught.value.hints[-1] == "the next reset deletes the unreachable blobs"
        reset(sample.dir)
        assert blobs(sample) == below(sample, sample.main)

    def test_a_disk_that_is_full_gets_room_from_the_garbage(
        self, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        full = KitcacheError("cache", "cannot write index.json: No space left on device")

        def write() -> None:
            assert sample.garbage <= blobs(sample)
            raise full

        calls = at_the_first(DirectoryStore, "commit_roots", write, monkeypatch)
        pruned = prune(sample.dir, KEEP_MAIN)
        assert calls[0] == 2
        assert (tags(sample), blobs(sample)) == (["main"], below(sample, sample.main))
        assert pruned.reset.deleted.blobs == 7

    def test_without_garbage_there_is_no_room_to_be_had(
        self, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def write(*_: object) -> None:
            raise KitcacheError("cache", "cannot write index.json: No space left on device")

        monkeypatch.setattr(DirectoryStore, "commit_roots", write)
        with pytest.raises(KitcacheError, match="No space left") as caught:
            prune(sample.dir, KEEP_MAIN)
        assert caught.value.effect == "4 unreachable blobs had been deleted"
        assert (tags(sample), blobs(sample)) == (["main", "dev"], set(sample.live))

    def test_an_index_that_may_be_undone_is_not_followed_by_a_sweep(
        self, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is in place, but its directory is not synced: a power cut brings back the old."""
        real = DirectoryStore.commit_roots

        def write(*args: Any) -> None:
            real(*args)
            raise KitcacheError("cache", "cannot sync the directory of index.json")

        monkeypatch.setattr(DirectoryStore, "commit_roots", write)
        with pytest.raises(KitcacheError, match="cannot sync"):
            prune(sample.dir, KEEP_MAIN)
        assert tags(sample) == ["main"]
        assert blobs(sample) == sample.live | sample.garbage
