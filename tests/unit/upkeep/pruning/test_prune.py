"""pruning/prune.py: what goes by which policy, what stays, and what is said of it."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from kitcache.errors import Busy, Damaged, NotACache, UsageError
from kitcache.gc.reset import reset
from kitcache.gc.values import Progress, Tally
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy
from kitcache.options.sweep import SweepOptions
from kitcache.store.directory import DirectoryStore
from kitcache.store.layout import Layout
from kitcache.store.locks import lock_store
from kitcache.store.open import open_store
from kitcache.store.state import read_skipped_sweeps, read_tag_uses, record_use
from kitcache.upkeep.pruning.prune import NO_POLICY, limit_error, prune
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import CACHECONFIG, Box, Json, Sample, encode
from tests.unit.gc.prunekit import IMPATIENT, KEEP_MAIN, below, blobs, kept, most, size_of, tags


class TestPrune:
    def test_the_entry_goes_and_what_only_it_reached(self, sample: Sample) -> None:
        stays, before = below(sample, sample.main), blobs(sample)
        gone = before - stays
        gone_bytes, kept_bytes = size_of(sample, gone), size_of(sample, stays)
        pruned = prune(sample.dir, KEEP_MAIN)
        assert blobs(sample) == stays
        assert tags(sample) == ["main"]
        assert (pruned.path, pruned.outcome, pruned.exit_code) == (str(sample.dir), "done", 0)
        assert [(d.ref_name, d.keep) for d in pruned.tags] == [("main", True), ("dev", False)]
        assert pruned.reset.deleted == Tally(len(gone), gone_bytes)
        assert pruned.reset.kept == Tally(len(stays), kept_bytes)
        assert pruned.reset.entry_count == 1
        assert (pruned.limit_bytes, pruned.needed_bytes, pruned.reason) == (None, None, "")

    def test_a_second_one_finds_nothing(self, sample: Sample) -> None:
        prune(sample.dir, KEEP_MAIN)
        again = prune(sample.dir, KEEP_MAIN)
        assert (kept(again), again.reset.deleted) == (["main"], Tally())

    def test_a_dry_run_says_the_same_touches_nothing_and_takes_no_lock(
        self, sample: Sample
    ) -> None:
        before = take_snapshot(sample.box.top)
        with (sample.dir / "oci-layout").open() as other, open_store(sample.dir) as layout:
            assert other
            with lock_store(layout, "exclusive", IMPATIENT):
                dry = prune(sample.dir, KEEP_MAIN, dry_run=True)
        (sample.dir / "kitcache.lock").unlink()
        assert differences(before, take_snapshot(sample.box.top)) == []
        done = prune(sample.dir, KEEP_MAIN)
        same = done.reset._replace(outcome="dry-run", seconds=dry.reset.seconds)
        assert dry == done._replace(outcome="dry-run", reset=same)

    @pytest.mark.parametrize("dry_run", [True, False])
    def test_without_a_policy_nothing_changes(self, sample: Sample, dry_run: bool) -> None:
        before = take_snapshot(sample.box.top)
        pruned = prune(sample.dir, PrunePolicy(), dry_run=dry_run)
        assert differences(before, take_snapshot(sample.box.top)) == []
        assert (pruned.outcome, pruned.reason, pruned.exit_code) == ("no-policy", NO_POLICY, 0)
        assert kept(pruned) == ["main", "dev"]

    def test_a_policy_that_contradicts_itself_is_no_policy(self) -> None:
        with pytest.raises(UsageError, match="needs a limit"):
            prune("nowhere", PrunePolicy(keep_tags=("main",), trim=True))

    def test_what_is_no_cache(self, tmp_path: Path) -> None:
        (tmp_path / "notes").touch()
        with pytest.raises(NotACache):
            prune(tmp_path, KEEP_MAIN)

    @pytest.mark.parametrize("dry_run", [True, False])
    def test_with_damage_nothing_is_decided(self, sample: Sample, dry_run: bool) -> None:
        sample.box.damage(sample.dev["digest"], None)
        before = take_snapshot(sample.box.top)
        with pytest.raises(Damaged, match="tag 'dev' cannot be read"):
            prune(sample.dir, KEEP_MAIN, dry_run=dry_run)
        (sample.dir / "kitcache.lock").unlink(missing_ok=True)
        assert differences(before, take_snapshot(sample.box.top)) == []

    def test_while_others_export_nothing_is_decided(self, sample: Sample) -> None:
        sample.box.ingest("busy", age_s=10)
        with pytest.raises(Busy, match="another client is exporting"):
            prune(sample.dir, KEEP_MAIN)
        assert tags(sample) == ["main", "dev"]

    def test_fields_that_nobody_knows_survive(self, sample: Sample) -> None:
        document = sample.box.index_document()
        document["manifests"][0]["org.example.entry"] = [1, {"a": None}]
        sample.box.write_index(encode(document | {"org.example": {"b": 2.5}}))
        prune(sample.dir, KEEP_MAIN)
        index = json.loads((sample.dir / "index.json").read_bytes())
        assert index == document | {
            "org.example": {"b": 2.5},
            "manifests": document["manifests"][:1],
        }

    def test_what_others_reach_too_stays(self, sample: Sample) -> None:
        sample.box.tag("alias", sample.dev)
        pruned = prune(sample.dir, PrunePolicy(keep_tags=("alias",)))
        assert blobs(sample) == below(sample, sample.dev)
        assert tags(sample) == kept(pruned) == ["alias"]

    def test_all_entries_of_a_tag_go_and_those_without_one_stay(self, sample: Sample) -> None:
        sample.box.tag("dev", sample.main)
        sample.box.tag(None, sample.dev)
        prune(sample.dir, KEEP_MAIN)
        assert tags(sample) == ["main", None]
        assert blobs(sample) == sample.live

    def test_uploads_left_behind_go_too(self, sample: Sample) -> None:
        sample.box.ingest("old")
        assert prune(sample.dir, KEEP_MAIN).reset.ingests_deleted.blobs == 1

    def test_what_is_too_young_stays_with_what_it_reaches(self, sample: Sample) -> None:
        """A manifest that was just written shelters its layers, though its tag has been dropped."""
        os.utime(sample.box.path_of(sample.dev["digest"]))
        policy = SweepOptions(min_age_ns=60 * 10**9)
        dry = prune(sample.dir, KEEP_MAIN, options=policy, dry_run=True)
        done = prune(sample.dir, KEEP_MAIN, options=policy)
        assert blobs(sample) == sample.live
        assert tags(sample) == ["main"]
        assert done.reset.too_young.blobs == len(below(sample, sample.dev)) - 1
        assert dry.reset.too_young == done.reset.too_young
        assert reset(sample.dir, options=policy).deleted == Tally()

    def test_progress_is_told(self, sample: Sample) -> None:
        told: list[Any] = []
        prune(sample.dir, KEEP_MAIN, on_progress=told.append)
        assert told[-1] == Progress("sweep", 7, told[-1].bytes)

    def test_no_descriptor_stays_open(self, sample: Sample) -> None:
        before = os.listdir("/proc/self/fd")
        prune(sample.dir, KEEP_MAIN)
        sample.box.damage(sample.main["digest"], None)
        with pytest.raises(Damaged):
            prune(sample.dir, KEEP_MAIN)
        assert os.listdir("/proc/self/fd") == before

    def test_left_out_resets_are_made_up_for(self, sample: Sample, layout: Layout) -> None:
        (sample.dir / ".kitcache").mkdir()
        (sample.dir / ".kitcache" / "skipped-sweeps").write_text("3\n")
        prune(sample.dir, KEEP_MAIN)
        assert read_skipped_sweeps(layout) == 0


class TestLimits:
    def test_the_least_recently_used_go_first(self, sample: Sample, layout: Layout) -> None:
        record_use(layout, ["main"], "imported", time.time_ns())
        pruned = prune(sample.dir, most(size_of(sample, set(sample.live)) - 1))
        assert kept(pruned) == ["main"]
        assert [d.last_used_from for d in pruned.tags] == ["import", "manifest"]

    def test_all_that_fits_stays(self, sample: Sample) -> None:
        pruned = prune(sample.dir, most(size_of(sample, set(sample.live))))
        assert (kept(pruned), blobs(sample)) == (["main", "dev"], set(sample.live))
        assert pruned.limit_bytes == size_of(sample, set(sample.live))

    def test_one_that_cannot_be_reached(self, sample: Sample) -> None:
        dry = prune(sample.dir, most(100), dry_run=True)
        pruned = prune(sample.dir, most(100))
        needed = size_of(sample, blobs(sample))
        assert (pruned.exit_code, pruned.limit_bytes, pruned.needed_bytes) == (14, 100, needed)
        assert (dry.exit_code, dry.needed_bytes) == (14, needed)
        assert blobs(sample) == below(sample, sample.dev)
        error = limit_error(pruned)
        assert error is not None
        assert (error.limit_bytes, error.needed_bytes) == (100, needed)
        assert "the kept tags need 1.0 kB, 948 B more than max-used-space 100 B" in str(error)
        assert "loosen the limit by 948 bytes" in str(error)
        asked = limit_error(pruned, most(100))
        assert asked is not None
        assert asked.hints == (
            f"allow that much: max-used-space {needed}B",
            "make the kept tags smaller: trim",
            "allow the last tag to be removed: allow-empty",
        )
        all_kept = prune(sample.dir, most(100, keep_tags=("*",), trim=True))
        kept_error = limit_error(all_kept, most(100, keep_tags=("*",), trim=True))
        assert kept_error is not None
        assert kept_error.hints[1:] == ("protect fewer tags",)
        assert error.effect == "every tag that may be removed was removed; other tags are unchanged"
        dry_error = limit_error(dry)
        assert dry_error is not None
        assert dry_error.effect == "nothing was changed"

    def test_what_has_no_tag_is_named_as_a_way_out(self, sample: Sample) -> None:
        sample.box.tag(None, sample.box.manifest([sample.box.blob(b"big" * 500)]))
        pruned = prune(sample.dir, most(100))
        error = limit_error(pruned)
        assert error is not None
        digest = str(pruned.tags[2].digest)
        assert f"{digest} has no tag; 2.0 kB belong to it alone" in str(error)
        assert f"kitcache untag {sample.dir} {digest}" in str(error)

    def test_a_reached_one_is_no_error(self, sample: Sample) -> None:
        assert limit_error(prune(sample.dir, most(10**9))) is None
        assert limit_error(prune(sample.dir, KEEP_MAIN)) is None

    def test_an_empty_cache_where_it_is_wanted(self, sample: Sample) -> None:
        pruned = prune(sample.dir, most(0, allow_empty=True))
        assert (blobs(sample), tags(sample), pruned.exit_code) == (set(), [], 0)

    @pytest.fixture
    def disk(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """A disk of 10,000 bytes: how many of them are free."""
        free = [0]
        monkeypatch.setattr(DirectoryStore, "disk_size", lambda _: (10_000, free[0]))
        return free

    @pytest.mark.parametrize("amount", [DiskSpace(percentage=11.0), DiskSpace(bytes=1100)])
    def test_a_part_of_the_disk(self, sample: Sample, disk: list[int], amount: DiskSpace) -> None:
        pruned = prune(sample.dir, PrunePolicy(max_used=amount))
        assert (kept(pruned), pruned.limit_bytes) == (["dev"], 1100)

    def test_free_space_counts_what_garbage_gives_back(
        self, sample: Sample, disk: list[int]
    ) -> None:
        sample.box.ingest("old", data=b"half")
        garbage = size_of(sample, set(sample.garbage)) + 4 + len("old") + len("100")
        live, disk[0] = size_of(sample, set(sample.live)), 300
        enough = PrunePolicy(min_free=DiskSpace(bytes=300 + garbage))
        assert kept(prune(sample.dir, enough, dry_run=True)) == ["main", "dev"]
        more = PrunePolicy(min_free=DiskSpace(bytes=301 + garbage))
        pruned = prune(sample.dir, more)
        assert (kept(pruned), pruned.limit_bytes) == (["dev"], live - 1)
        assert pruned.tags[0].reason == f"min-free-space {(301 + garbage) / 1000:.1f} kB"

    def test_more_than_an_empty_cache_would_leave(self, sample: Sample, disk: list[int]) -> None:
        pruned = prune(
            sample.dir, PrunePolicy(min_free=DiskSpace(percentage=90.0), allow_empty=True)
        )
        assert (tags(sample), pruned.exit_code, pruned.needed_bytes) == ([], 14, 0)
        assert pruned.limit_bytes == 3384 - 9000
        assert "5.6 kB more than min-free-space 90% (9.0 kB) allows" in pruned.reason

    def test_what_no_cache_can_reach_is_not_asked_of_it(
        self, sample: Sample, disk: list[int]
    ) -> None:
        """To trim, or to drop the last tag, would cost the cache and not be enough."""
        policy = PrunePolicy(min_free=DiskSpace(percentage=90.0), keep_tags=("main",))
        error = limit_error(prune(sample.dir, policy), policy)
        assert error is not None
        assert error.hints == (
            "free 6.7 kB elsewhere on the disk: an empty cache is not enough",
            "loosen the limit by 6,664 bytes",
        )

    def test_of_two_limits_the_tighter_one_counts(self, sample: Sample, disk: list[int]) -> None:
        disk[0] = 10_000
        both = PrunePolicy(max_used=DiskSpace(bytes=1100), min_free=DiskSpace(bytes=1))
        pruned = prune(sample.dir, both, dry_run=True)
        assert (pruned.limit_bytes, kept(pruned)) == (1100, ["dev"])
        disk[0] = 0
        tighter = both._replace(min_free=DiskSpace(bytes=3384))
        pruned = prune(sample.dir, tighter, dry_run=True)
        assert (pruned.limit_bytes, pruned.exit_code) == (0, 14)

    def test_a_policy_file_has_no_dashes(self, sample: Sample) -> None:
        pruned = prune(sample.dir, most(1100, source="policy.toml"))
        assert pruned.tags[0].reason == "max-used-space 1.1 kB"


class TestTrim:
    def grown(self, box: Box) -> Json:
        """A cache of two branches: an old layer and a new one, each a result of its own."""
        layers = [box.blob(b"old" * 1000), box.blob(b"new" * 1000)]
        records = [
            {
                "digest": f"sha256:{n:064}",
                "layers": [{"layer": n, "createdAt": f"20{n}0-01-01T00:00:00Z"}],
            }
            for n in (0, 1)
        ]
        config = {
            "layers": [{"blob": layer["digest"], "parent": -1} for layer in layers],
            "records": records,
        }
        return box.manifest(layers, box.document(config, CACHECONFIG))

    def test_what_stays_is_made_smaller_where_dropping_is_not_enough(self, box: Box) -> None:
        root = self.grown(box)
        box.tag("old", box.manifest([box.blob(b"another" * 100)]))
        box.tag("main", root)
        with open_store(box.dir) as layout:
            record_use(
                layout, ["main"], "exported", time.time_ns(), digests={"main": root["digest"]}
            )
        policy = PrunePolicy(max_used=DiskSpace(bytes=4500), keep_tags=("main",), trim=True)
        dry = prune(box.dir, policy, dry_run=True)
        pruned = prune(box.dir, policy)
        (trimmed,) = pruned.trimmed
        assert (trimmed.ref_name, trimmed.outcome, trimmed.reset) == ("main", "done", None)
        assert (len(trimmed.removed_steps), len(trimmed.kept_steps)) == (1, 1)
        assert (str(trimmed.before), pruned.exit_code) == (root["digest"], 0)
        (entry,) = json.loads((box.dir / "index.json").read_bytes())["manifests"]
        assert entry["digest"] == str(trimmed.after)
        names = set(os.listdir(box.dir / "blobs" / "sha256"))
        new = box.blob(b"new" * 1000)["digest"].partition(":")[2]
        assert len(names) == 3
        assert names >= {new, trimmed.after.hex}
        assert trimmed.after_size.bytes == pruned.reset.kept.bytes <= 4500
        assert dry.trimmed == (trimmed._replace(outcome="dry-run"),)
        with open_store(box.dir) as layout:
            assert read_tag_uses(layout)["main"].digest == str(trimmed.after)
        assert reset(box.dir).deleted == Tally()

    def test_without_the_word_nothing_is_trimmed(self, box: Box) -> None:
        box.tag("main", self.grown(box))
        pruned = prune(box.dir, most(4500))
        assert (pruned.exit_code, pruned.trimmed) == (14, ())
        assert pruned.reset.deleted == Tally()

    def test_what_has_no_tag_is_not_made_smaller(self, box: Box) -> None:
        root = self.grown(box)
        box.tag(None, root)
        box.tag("main", box.manifest([box.blob(b"another" * 100)]))
        pruned = prune(box.dir, most(4500, trim=True))
        assert (pruned.exit_code, [cut.ref_name for cut in pruned.trimmed]) == (14, [])
        (entry, _) = json.loads((box.dir / "index.json").read_bytes())["manifests"]
        assert entry["digest"] == root["digest"]

    def test_where_that_is_not_enough_either_it_says_what_is(self, box: Box) -> None:
        box.tag("main", self.grown(box))
        dry = prune(box.dir, most(100, trim=True), dry_run=True)
        pruned = prune(box.dir, most(100, trim=True))
        assert pruned.exit_code == 14
        assert dry.reason.endswith(
            "each tag that a trim makes smaller would be trimmed to one step"
        )
        assert pruned.reason.endswith("each tag that a trim makes smaller was trimmed to one step")
        assert pruned.needed_bytes == pruned.reset.kept.bytes
        assert len(pruned.trimmed[0].kept_steps) == 1
        again = prune(box.dir, most(100, trim=True))
        assert (again.exit_code, again.trimmed) == (14, ())
        assert again.reason.endswith("more than max-used-space 100 B allows")
