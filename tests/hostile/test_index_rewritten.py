"""index.json changes while a reset runs: before the first removal, in mid-sweep, after it.

A stranger's step is run at the exact moment, with real files. What it published is kept, or its
loss is named with exit 12.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kitcache
from tests.hostile import strangers
from tests.hostile.pair import (
    OLD,
    OLD_BLOBS,
    OLD_DIGESTS,
    ROUNDS,
    after,
    before,
    publish_old,
    real,
    remove,
    two_tags,
)
from tests.property import witness
from tests.property.disk import blobs, index_document, on_disk, put_blob, write_index
from tests.property.model import Cache, verdict

PLAN = "kitcache.gc.collect.make_plan"
APPLY = "kitcache.gc.collect.apply"


@pytest.fixture
def cache() -> Cache:
    return two_tags()


@pytest.fixture
def root(cache: Cache) -> Iterator[Path]:
    with on_disk(cache) as path:
        yield path


class TestBeforeTheFirstRemoval:
    @pytest.mark.parametrize("moment", ["planned", "about to apply"])
    def test_what_was_published_meanwhile_is_kept(
        self, cache: Cache, root: Path, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        if moment == "planned":
            after(monkeypatch, PLAN, lambda: publish_old(root))
        else:
            before(monkeypatch, APPLY, lambda: publish_old(root))
        report = kitcache.reset(root)
        assert report.entry_count == 3
        assert witness.holes(root) == ()
        assert blobs(root) == verdict(cache).keep | OLD_DIGESTS

    def test_what_was_untagged_meanwhile_goes(
        self, cache: Cache, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fewer = cache._replace(entries=cache.entries[1:])
        after(monkeypatch, PLAN, lambda: write_index(root, fewer.entries))
        assert kitcache.reset(root).entry_count == 1
        assert blobs(root) == verdict(fewer).keep
        assert verdict(fewer).keep < verdict(cache).keep

    def test_what_was_torn_meanwhile_stops_all(
        self, cache: Cache, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torn = json.dumps(index_document(cache.entries))[:-9]
        after(monkeypatch, PLAN, lambda: (root / "index.json").write_text(torn))
        with pytest.raises(kitcache.Damaged):
            kitcache.reset(root)
        assert blobs(root) == cache.present

    def test_an_index_that_never_rests_ends_with_busy(
        self, cache: Cache, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_plan = real(PLAN)
        entry = cache.entries[1]

        def while_others_publish(*args: Any) -> Any:
            plan = make_plan(*args)
            tag = f"tag-{time.monotonic_ns()}"
            assert strangers.publish(root, tag, entry.ref.digest, entry.size)
            return plan

        monkeypatch.setattr(PLAN, while_others_publish)
        with pytest.raises(kitcache.Busy):
            kitcache.reset(root)
        assert blobs(root) == cache.present


class TestInMidSweep:
    def test_a_tag_is_whole_or_its_loss_is_named(self) -> None:
        """The old export is published while batches are on their way to the workers."""
        outcomes = {self.publish_at(1 + n % 4) for n in range(max(4, ROUNDS // 4))}
        assert outcomes & {"kept", "named"}
        assert outcomes <= {"kept", "named", "ended before"}

    def publish_at(self, batch: int) -> str:
        cache = two_tags(garbage_blobs=4000)
        seen: list[object] = []

        with on_disk(cache) as root:

            def publish(event: object) -> None:
                if isinstance(event, kitcache.Progress) and event.phase == "sweep":
                    seen.append(event)
                    if len(seen) == batch:
                        publish_old(root)

            try:
                report = kitcache.reset(root, on_progress=publish)
                if len(seen) < batch:
                    outcome = "ended before"
                else:
                    outcome = "silent" if report.entry_count < 3 or witness.holes(root) else "kept"
            except kitcache.Damaged as error:
                lost = OLD_DIGESTS - blobs(root)
                is_named = error.tag == "again" and any(digest in str(error) for digest in lost)
                outcome = "named" if is_named else str(error)
            assert verdict(cache).keep <= blobs(root)
        return outcome

    def test_what_is_uploaded_meanwhile_is_there_when_it_is_published(
        self, cache: Cache, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An export of new layers begins when the survey is over, and publishes after the reset."""
        pushed: list[tuple[str, int]] = []
        new = [b"new layer 1", b"new layer 2"]
        before(monkeypatch, APPLY, lambda: pushed.append(strangers.push_cache(root, new, 9)))
        kitcache.reset(root)
        assert strangers.publish(root, "new", *pushed[0])
        assert witness.holes(root) == ()


class TestAfterTheSweep:
    def test_a_lost_manifest_is_named(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        after(monkeypatch, APPLY, lambda: publish_old(root))
        with pytest.raises(kitcache.Damaged) as caught:
            kitcache.reset(root)
        assert (caught.value.exit_code, caught.value.tag) == (12, "again")
        assert OLD.digest in str(caught.value)
        assert "nothing was deleted" not in str(caught.value)

    def test_a_lost_layer_of_a_new_manifest_is_named(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only a leaf is gone: that would stop no reset, but it is a loss."""
        layer = OLD_BLOBS[0]

        def export() -> None:
            put_blob(root, layer.digest, layer.data, time.time())
            pushed = strangers.push_cache(root, [layer.data, b"fresh"], 1)
            remove(root, [layer.digest])
            assert strangers.publish(root, "new", *pushed)

        after(monkeypatch, APPLY, export)
        with pytest.raises(kitcache.Damaged) as caught:
            kitcache.reset(root)
        assert caught.value.tag == "new"
        assert layer.digest in str(caught.value)

    def test_a_hole_that_was_there_before_is_no_loss(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two tags lack a shared layer all along; meanwhile their order changes."""
        shared = next(iter(cache.nodes))
        holed = cache._replace(absent=frozenset([shared]))
        with on_disk(holed) as root:
            assert {hole.ref_name for hole in witness.holes(root)} == {"main", "pr"}
            after(monkeypatch, APPLY, lambda: write_index(root, holed.entries[::-1]))
            report = kitcache.reset(root)
        assert [str(leaf.digest) for leaf in report.missing_blobs] == [shared]

    def test_damage_that_comes_after_removals_does_not_deny_them(
        self, cache: Cache, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stranger publishes a root that lies; 18 blobs were removed before."""
        lie = cache.entries[0].ref.digest
        after(monkeypatch, APPLY, lambda: strangers.publish(root, "lie", lie, 1))
        with pytest.raises(kitcache.Damaged) as caught:
            kitcache.reset(root)
        assert blobs(root) == verdict(cache).keep
        assert "nothing was deleted" not in str(caught.value)


class TestHalfWritten:
    @pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
    def test_it_is_read_again(self, cache: Cache, root: Path, part: float) -> None:
        """BuildKit writes in place: the reader that comes in the middle tries again."""
        whole = (root / "index.json").read_bytes()
        (root / "index.json").write_bytes(whole[: int(len(whole) * part)])
        pauses: list[float | None] = []

        class Writer(threading.Event):
            """Finishes its write while the reader pauses."""

            def wait(self, timeout: float | None = None) -> bool:
                pauses.append(timeout)
                (root / "index.json").write_bytes(whole)
                return False

        report = kitcache.reset(root, cancel=Writer())
        assert len(pauses) == 1
        assert report.entry_count == 2
        assert blobs(root) == verdict(cache).keep

    def test_one_that_stays_half_written_is_damage(self, cache: Cache, root: Path) -> None:
        os.truncate(root / "index.json", 100)
        with pytest.raises(kitcache.Damaged) as caught:
            kitcache.reset(root)
        assert "index.json" in str(caught.value)
        assert blobs(root) == cache.present
