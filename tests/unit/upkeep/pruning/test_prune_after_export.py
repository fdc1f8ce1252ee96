"""pruning/prune.py after an export: nothing is raised, and what was just published stays."""

from kitcache.gc.control import Control
from kitcache.options.prunepolicy import PrunePolicy, PruneRule
from kitcache.store.layout import Layout
from kitcache.store.locks import lock_store
from kitcache.store.open import open_store
from kitcache.store.state import read_skipped_sweeps
from kitcache.upkeep.pruning.prune import prune_after_export
from kitcache.upkeep.results import PruneResult
from tests.hostile.build import Sample
from tests.unit.gc.prunekit import IMPATIENT, below, blobs, kept, most, tags


class TestAfterExport:
    def after_export(
        self, layout: Layout, policy: PrunePolicy, *published: str, timeout_s: float = 0
    ) -> PruneResult:
        control = Control(layout.path, None, None)
        return prune_after_export(layout, published, policy, control, lock_timeout_s=timeout_s)

    def test_it_is_a_prune(self, sample: Sample, layout: Layout) -> None:
        pruned = self.after_export(layout, most(1100), "main")
        assert (pruned.outcome, pruned.exit_code, pruned.reason) == ("done", 0, "")
        assert (tags(sample), blobs(sample)) == (["main"], below(sample, sample.main))

    def test_what_was_just_published_stays(self, sample: Sample, layout: Layout) -> None:
        """Also where it is the oldest, or no rule keeps it."""
        unused = PrunePolicy(rules=(PruneRule(unused_for_ns=0),))
        for policy in (most(1100), unused, PrunePolicy(keep_tags=("nothing",))):
            assert "main" in kept(self.after_export(layout, policy, "main"))
        assert tags(sample) == ["main"]

    def test_a_limit_that_is_not_reached_is_told_and_no_failure(
        self, sample: Sample, layout: Layout
    ) -> None:
        pruned = self.after_export(layout, most(100), "main", "dev")
        assert (pruned.outcome, pruned.reset.outcome, pruned.reset.exit_code) == (
            "done",
            "done",
            0,
        )
        assert pruned.reason.startswith("the kept tags need 2.0 kB, 1.9 kB more than")
        assert blobs(sample) == sample.live

    def test_while_others_export_it_is_left_to_them(self, sample: Sample, layout: Layout) -> None:
        with open_store(sample.dir) as other, lock_store(other, "shared", IMPATIENT):
            pruned = self.after_export(layout, most(1100), "main")
        assert (pruned.outcome, pruned.tags, pruned.exit_code) == ("skipped", (), 0)
        assert "kitcache.lock is held by" in pruned.reason
        assert (tags(sample), read_skipped_sweeps(layout)) == (["main", "dev"], 1)

    def test_damage_of_others_is_refused_and_ours_is_lost(
        self, sample: Sample, layout: Layout
    ) -> None:
        sample.box.damage(sample.main["digest"], None)
        for published, outcome, code in (("dev", "refused", 0), ("main", "damaged", 12)):
            pruned = self.after_export(layout, most(1100), published)
            assert (pruned.outcome, pruned.exit_code) == (outcome, code)
        assert tags(sample) == ["main", "dev"]

    def test_an_empty_policy_sweeps(self, sample: Sample, layout: Layout) -> None:
        pruned = self.after_export(layout, PrunePolicy(), "main")
        assert (pruned.outcome, pruned.reset.deleted.blobs) == ("done", 4)
        assert blobs(sample) == sample.live
