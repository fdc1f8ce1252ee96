"""pruning/prune.py: names that no tag has, the index's own subject, what is noted of tags."""

import json

import pytest

from kitcache.errors import UsageError
from kitcache.gc.control import Control
from kitcache.gc.reset import reset
from kitcache.gc.values import Tally
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy, PruneRule
from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from kitcache.store.state import read_tag_uses, record_use
from kitcache.upkeep.health.repair import repair
from kitcache.upkeep.pruning.prune import limit_error, prune, prune_after_export
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import REF_NAME, Json, Sample, encode
from tests.unit.gc.prunekit import KEEP_MAIN, below, blobs, kept, most, tags

CONTROL = Control("cache", None, None)

DAY_NS = 86_400 * 10**9
CONTROL = Control("cache", None, None)


class TestKeepTag:
    @pytest.mark.parametrize("dry_run", [True, False])
    @pytest.mark.parametrize("rules", [(), (PruneRule(keep_within_ns=1),)])
    @pytest.mark.parametrize("allow_empty", [True, False])
    def test_where_nothing_is_kept_by_name_nothing_goes(
        self, sample: Sample, dry_run: bool, rules: tuple[PruneRule, ...], allow_empty: bool
    ) -> None:
        before = take_snapshot(sample.dir)
        policy = PrunePolicy(("mian", "x*"), rules=rules, allow_empty=allow_empty)
        with pytest.raises(UsageError, match=r"no tag matches keep-tag mian, keep-tag x\*") as e:
            prune(sample.dir, policy, dry_run=dry_run)
        (sample.dir / "kitcache.lock").unlink(missing_ok=True)
        assert differences(before, take_snapshot(sample.dir)) == []
        assert (e.value.exit_code, e.value.effect) == (2, "nothing was changed")
        assert f"prune would remove {2 if allow_empty else 1} of 2 tags" in str(e.value)
        assert e.value.hints == (
            "did you mean 'main'?",
            "to remove them anyway, add unused-for 0s",
        )

    def test_in_a_file_too(self, sample: Sample) -> None:
        with pytest.raises(UsageError, match=r"no tag matches keep-tag mian: prune") as caught:
            prune(sample.dir, PrunePolicy(("mian",), source="policy.toml"))
        assert caught.value.hints[1] == 'to remove them anyway, add unused-for = "0s"'

    @pytest.mark.parametrize(
        ("policy", "stay"),
        [
            (PrunePolicy(("release-*", "main")), ["main"]),
            (PrunePolicy(rules=(PruneRule(keep_within_ns=1),)), ["dev"]),
            (PrunePolicy(("release-*",), rules=(PruneRule(keep_last=1),)), ["dev"]),
            (
                PrunePolicy(("release-*",), rules=(PruneRule(keep_within_ns=DAY_NS),)),
                ["main", "dev"],
            ),
            (PrunePolicy(("release-*",), rules=(PruneRule(unused_for_ns=0),)), ["dev"]),
            (most(1100, keep_tags=("release-*",)), ["dev"]),
        ],
    )
    def test_where_anything_else_decides_it_is_no_mistake(
        self, sample: Sample, policy: PrunePolicy, stay: list[str]
    ) -> None:
        assert kept(prune(sample.dir, policy)) == stay

    def test_where_nothing_would_go_it_is_none_either(self, sample: Sample) -> None:
        prune(sample.dir, KEEP_MAIN)
        assert kept(prune(sample.dir, PrunePolicy(("mian",)))) == ["main"]

    def test_after_an_export_it_is_refused_and_what_was_exported_stays(
        self, sample: Sample, layout: Layout
    ) -> None:
        policy = PrunePolicy(("mian",))
        refused = prune_after_export(layout, ("dev",), policy, CONTROL)
        assert (refused.outcome, tags(sample)) == ("refused", ["main", "dev"])
        assert refused.reason.startswith(
            "no tag matches keep-tag mian: prune would remove 1 of 2 tags"
        )
        done = prune_after_export(layout, ("main",), KEEP_MAIN, CONTROL)
        assert (done.outcome, tags(sample)) == ("done", ["main"])


class TestSubject:
    """index.json's own subject is no entry, though it may have a name: `dev` here."""

    @pytest.fixture(params=["a name of its own", "the name of an entry"])
    def named(self, sample: Sample, request: pytest.FixtureRequest) -> Json:
        document = sample.box.index_document()
        entries = document["manifests"]
        if request.param == "a name of its own":
            document["manifests"] = [entries[0]]
        document["subject"] = entries[1]
        assert document["subject"]["annotations"] == {REF_NAME: "dev"}
        sample.box.write_index(encode(document))
        return dict(document)

    def test_it_is_neither_dropped_nor_taken_for_an_entry(
        self, sample: Sample, named: Json
    ) -> None:
        pruned = prune(sample.dir, KEEP_MAIN)
        after = json.loads((sample.dir / "index.json").read_bytes())
        assert after == named | {"manifests": named["manifests"][:1]}
        assert blobs(sample) == sample.live
        own = pruned.tags[-1]
        assert (own.ref_name, own.positions, own.keep) == (None, (-1,), True)
        assert own.reason == "it is the subject of index.json itself and never removed"
        assert reset(sample.dir).deleted == Tally()

    def test_untag_is_no_way_out_of_it(self, sample: Sample, named: Json) -> None:
        policy = most(10)
        error = limit_error(prune(sample.dir, policy), policy)
        assert error is not None
        assert "kitcache untag" not in str(error)
        assert blobs(sample) >= below(sample, sample.dev)

    def test_a_trim_moves_entries_alone(self, sample: Sample, named: Json) -> None:
        policy = PrunePolicy(("*",), max_used=DiskSpace(bytes=10), trim=True)
        prune(sample.dir, policy)
        after = json.loads((sample.dir / "index.json").read_bytes())
        assert after["subject"] == named["subject"]
        assert blobs(sample) >= below(sample, sample.dev)


def test_what_is_noted_of_a_tag_goes_with_it(sample: Sample, layout: Layout) -> None:
    digests = {"main": sample.main["digest"], "dev": sample.main["digest"]}
    record_use(layout, digests, "exported", 5, digests=digests)
    prune(sample.dir, KEEP_MAIN, dry_run=True)
    assert set(read_tag_uses(layout)) == {"main", "dev"}
    prune(sample.dir, KEEP_MAIN)
    assert set(read_tag_uses(layout)) == {"main"}
    (sample.dir / "index.json").write_bytes(b'{"manifests": [')
    repair(sample.dir)
    assert tags(sample) == ["main"], "a note would have brought it back"


def test_what_is_noted_of_a_tag_goes_after_an_export_too(sample: Sample) -> None:
    with open_store(sample.dir) as layout:
        record_use(layout, ["main", "dev"], "exported", 5)
        prune_after_export(layout, ("main",), KEEP_MAIN, CONTROL)
        assert set(read_tag_uses(layout)) == {"main"}
