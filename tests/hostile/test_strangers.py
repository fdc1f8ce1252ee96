"""Writers that know none of our locks: seen by their traces, and never a silent loss."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import kitcache
from tests.hostile import strangers
from tests.hostile.pair import OLD_BLOBS, ROUNDS, two_tags
from tests.property import witness
from tests.property.disk import blobs, ingests, on_disk, put_ingest, settle, snapshot
from tests.property.model import Cache, Ingest, verdict


@pytest.fixture
def cache() -> Cache:
    return two_tags()


@pytest.fixture
def root(cache: Cache) -> Iterator[Path]:
    with on_disk(cache) as path:
        yield path


class TestTraces:
    @pytest.mark.parametrize("age_s", [0, 30, -30])
    def test_a_fresh_upload_means_busy_at_once(self, root: Path, age_s: int) -> None:
        put_ingest(root, Ingest("layer-x", age_s, b"half"), time.time())
        effect = snapshot(root)
        told: list[object] = []
        with pytest.raises(kitcache.Busy) as caught:
            kitcache.reset(root, on_progress=told.append)
        assert not any(isinstance(event, kitcache.Waiting) for event in told)
        retry_after_s = caught.value.retry_after_s
        assert retry_after_s is not None
        assert 0 < retry_after_s <= 60 - max(0, age_s)
        assert f"{retry_after_s:.0f} s" in str(caught.value)
        assert snapshot(root) == effect

    @pytest.mark.parametrize(("age_s", "reason"), [(-600, "future"), (600, "10 min ago")])
    def test_one_that_shows_no_life_stays_and_the_reset_goes_on(
        self, cache: Cache, root: Path, age_s: int, reason: str
    ) -> None:
        upload = Ingest("layer-x", age_s, b"half")
        put_ingest(root, upload, time.time())
        settle(root)
        ((name, told),) = kitcache.reset(root).ingests_kept
        assert name == upload.name
        assert reason in told
        assert ingests(root) == {upload.name}
        assert blobs(root) == verdict(cache).keep

    def test_an_upload_that_begins_while_we_wait_for_the_lock_is_seen(
        self, cache: Cache, root: Path
    ) -> None:
        """Even where there was no ingest/ before: a restored cache has none."""
        assert not (root / "ingest").exists()
        with strangers.lock_holder(root / "kitcache.lock", "sh") as holder:

            def begin(event: object) -> None:
                put_ingest(root, Ingest("layer-x", 0, b"half"), time.time())
                holder.communicate()

            with pytest.raises(kitcache.Busy) as caught:
                kitcache.reset(root, on_progress=begin)
        assert "another client is exporting" in str(caught.value)
        assert blobs(root) == cache.present

    def test_who_is_about_to_publish_is_waited_for(self, root: Path) -> None:
        """The last upload has left ingest/, the index comes some 50 ms later."""
        pushed = strangers.push_cache(root, [node.data for node in OLD_BLOBS[:3]], 5)
        told: list[str] = []

        def publish(event: object) -> None:
            if isinstance(event, kitcache.Waiting) and not told:
                told.append(event.waiting_for)
                assert strangers.publish(root, "late", *pushed)

        assert kitcache.reset(root, on_progress=publish).entry_count == 3
        assert told == ["export"]
        assert witness.holes(root) == ()

    def test_what_we_remove_from_ingest_ourselves_is_no_trace(self) -> None:
        """However often a reset looks again, it does not wait for itself."""
        cache = two_tags(garbage_blobs=1200)._replace(ingests=(Ingest("left", 7200, b"half"),))
        told: list[object] = []
        with on_disk(cache) as root:
            report = kitcache.reset(root, on_progress=told.append)
        assert report.ingests_deleted.blobs == 1
        assert not any(isinstance(event, kitcache.Waiting) for event in told)

    def test_who_goes_on_uploading_all_the_while_is_not_swept(
        self, cache: Cache, root: Path
    ) -> None:
        """Small blobs are in ingest/ for a moment only, but its own time tells of each."""

        class Uploading(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                time.sleep(timeout or 0)
                os.utime(root / "ingest")
                return False

        (root / "ingest").mkdir()
        with pytest.raises(kitcache.Busy):
            kitcache.reset(root, cancel=Uploading())
        assert blobs(root) == cache.present


class TestExportsBesideResets:
    """Exports in BuildKit's order in one process, resets in this one, until both are done."""

    def test_exports_of_new_blobs_lose_nothing(self) -> None:
        """All that such an export needs is written under a reset's eyes."""
        complaints, holes = export_beside_resets(reused=0)
        assert [said for said in complaints if "another client is exporting" not in said] == []
        assert holes == ()

    def test_a_loss_of_reused_blobs_is_named(self) -> None:
        """A blob that exists leaves no trace when an export counts on it.

        So one may go; then it has been named, with exit 12 by a reset that ran meanwhile, or by
        the first one afterwards.
        """
        complaints, holes = export_beside_resets(reused=2)
        named = "\n".join(complaints)
        assert {hole.digest for hole in holes if hole.digest not in named} == set()


def export_beside_resets(reused: int) -> tuple[list[str], tuple[witness.Hole, ...]]:
    """(what resets had to complain of, the holes in the end)."""
    complaints: list[str] = []
    done = 0
    with (
        on_disk(two_tags(garbage_blobs=300)) as root,
        strangers.exporter(root, 5 * ROUNDS, reused, seed=ROUNDS) as child,
    ):
        while child.poll() is None:
            said = complaint_of_a_reset(root)
            done += not said
            complaints += said
        assert child.returncode == 0
        assert done
        settle(root)
        complaints += complaint_of_a_reset(root)
        return complaints, witness.holes(root)


def complaint_of_a_reset(root: Path) -> list[str]:
    try:
        return [str(leaf.digest) for leaf in kitcache.reset(root).missing_blobs]
    except (kitcache.Busy, kitcache.Damaged) as error:
        return [str(error)]
