"""gc/reset.py after an export: others go first, nothing is raised, a hole of ours is told.

What surrounds it, the shared lock and the published tag, is buildkit/test_caches.py's.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitcache.errors import Busy
from kitcache.gc.control import Control
from kitcache.gc.du import du
from kitcache.gc.reset import MAX_SKIPPED_SWEEPS, reset, reset_after_export, unswept_result
from kitcache.gc.survey import check_reachable
from kitcache.gc.values import ResetResult, Root, Tally
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import parse_digest
from kitcache.store.layout import Layout
from kitcache.store.locks import lock_store
from kitcache.store.open import open_store
from kitcache.store.state import count_skipped_sweep, read_skipped_sweeps
from kitcache.store.values import WaitPolicy
from tests.hostile.build import MANIFEST, Json, Sample

IMPATIENT = WaitPolicy(0, lambda _: None, lambda _: None)
CONTROL = Control("cache", None, None)


def after_export(layout: Layout, *published: str) -> ResetResult:
    return reset_after_export(layout, published, CONTROL, lock_timeout_s=0)


def blobs(sample: Sample) -> set[str]:
    return set(os.listdir(sample.dir / "blobs" / "sha256"))


def test_it_is_a_reset(sample: Sample, layout: Layout) -> None:
    report = after_export(layout, "main")
    assert (report.outcome, report.reason, report.exit_code) == ("done", "", 0)
    assert report.deleted.blobs == len(sample.garbage)
    assert blobs(sample) == sample.live


def test_the_open_directories_stay_open(sample: Sample, layout: Layout) -> None:
    """A daemon may still read from them."""
    before = dict(layout.blobs)
    fds = os.listdir("/proc/self/fd")
    after_export(layout, "main")
    assert layout.blobs == before
    assert os.listdir("/proc/self/fd") == fds
    assert layout.read_blob(parse_digest(sample.main["digest"]), None)


@pytest.fixture
def other(sample: Sample) -> Iterator[Layout]:
    """Another export runs."""
    with open_store(sample.dir) as opened, lock_store(opened, "shared", IMPATIENT):
        yield opened


@pytest.mark.usefixtures("other")
def test_while_others_export_it_is_left_to_them(sample: Sample, layout: Layout) -> None:
    report = after_export(layout, "main")
    assert (report.outcome, report.exit_code, report.deleted) == ("skipped", 0, Tally())
    assert f"kitcache.lock is held by process {os.getpid()}" in report.reason
    assert report.path == str(sample.dir)
    assert blobs(sample) == sample.live | sample.garbage
    assert read_skipped_sweeps(layout) == 1


def test_a_strangers_upload_is_seen_too(sample: Sample, layout: Layout) -> None:
    sample.box.ingest("busy", age_s=10)
    report = after_export(layout, "main")
    assert report.outcome == "skipped"
    assert "another client is exporting" in report.reason


def test_blobs_that_a_skipped_sweep_had_deleted_are_reported(layout: Layout) -> None:
    error = Busy("c", "index.json changed 8 times", effect="7 unreachable blobs had been deleted")
    reason = unswept_result(open_store(layout.path), error, (), 0.0).reason
    assert reason == f"{error.problem}; {error.effect}; the next export sweeps"


@pytest.mark.usefixtures("other")
def test_only_after_ten_in_a_row_it_waits(sample: Sample, layout: Layout) -> None:
    waited: list[object] = []
    control = Control(layout.path, waited.append, None)
    for _ in range(MAX_SKIPPED_SWEEPS + 1):
        reset_after_export(layout, (), control, lock_timeout_s=0.02)
        assert len(waited) == (1 if read_skipped_sweeps(layout) == MAX_SKIPPED_SWEEPS + 1 else 0)
    assert read_skipped_sweeps(layout) == MAX_SKIPPED_SWEEPS + 1


def test_du_shows_what_was_left_out_until_any_reset(sample: Sample, layout: Layout) -> None:
    assert du(sample.dir).skipped_sweeps == 0
    count_skipped_sweep(layout)
    count_skipped_sweep(layout)
    assert du(sample.dir).skipped_sweeps == 2
    assert reset(sample.dir, dry_run=True).outcome == "dry-run"
    assert du(sample.dir).skipped_sweeps == 2
    reset(sample.dir)
    assert du(sample.dir).skipped_sweeps == 0


def test_damage_of_others_is_refused_and_ours_is_lost(sample: Sample, layout: Layout) -> None:
    sample.box.damage(sample.main["digest"], None)
    for published, outcome, code in ((("dev",), "refused", 0), (("dev", "main"), "damaged", 12)):
        report = after_export(layout, *published)
        assert (report.outcome, report.exit_code) == (outcome, code)
        assert "tag 'main' cannot be read" in report.reason
        assert "nothing was deleted" in report.reason
        assert f"kitcache verify {sample.dir} --repair" in report.reason
    assert blobs(sample) >= sample.garbage


def test_a_missing_layer_is_lost_where_a_tag_of_ours_has_it(sample: Sample, layout: Layout) -> None:
    """Also a shared one, which the report calls by another tag."""
    sample.box.damage(sample.layers[1]["digest"], None)
    report = after_export(layout, "dev")
    assert report.missing_blobs[0].ref_name == "main"
    assert (report.outcome, report.exit_code) == ("damaged", 12)
    assert report.reason.startswith("tag 'dev' has lost a blob to another process: sha256:")
    assert report.deleted.blobs == len(sample.garbage)
    sample.box.blob(b"layer 1" * 20)
    sample.box.damage(sample.layers[0]["digest"], None)
    assert after_export(layout, "dev").outcome == "done"


def test_a_lock_that_cannot_be_had_is_a_refusal(sample: Sample, layout: Layout) -> None:
    (sample.dir / "kitcache.lock").mkdir()
    report = after_export(layout, "main")
    assert (report.outcome, report.exit_code) == ("refused", 0)
    assert "kitcache.lock is not a regular file" in report.reason


class TestLookBelow:
    def look(self, sample: Sample, layout: Layout, what: Json) -> list[str]:
        digest = parse_digest(what["digest"])
        root = Root(0, None, Descriptor(MANIFEST, digest, what["size"]))
        damage, missing = check_reachable(layout, Control("cache", None, None), [root])
        return [d.problem for d in damage] + [leaf.problem for leaf in missing]

    def test_what_is_whole_has_no_fault(self, sample: Sample, layout: Layout) -> None:
        assert self.look(sample, layout, sample.main) == []

    def test_it_need_not_be_in_the_index(self, sample: Sample, layout: Layout) -> None:
        (sample.dir / "index.json").unlink()
        assert self.look(sample, layout, sample.main) == []

    def test_each_fault_below_it_and_none_beside_it(
        self, sample: Sample, layout: Layout, tmp_path: Path
    ) -> None:
        sample.box.damage(sample.layers[2]["digest"], None)
        assert self.look(sample, layout, sample.main) == []
        assert self.look(sample, layout, sample.dev) == ["is missing"]
        sample.box.damage(sample.layers[1]["digest"], b"cut")
        assert sorted(self.look(sample, layout, sample.dev)) == [
            "is missing",
            "is truncated (3 of 140 bytes)",
        ]
        sample.box.damage(sample.dev["digest"], None)
        assert self.look(sample, layout, sample.dev) == ["is missing"]
