"""pruning/limits.py: what of a cache frees room on its disk, and what a limit makes of it."""

import os
import time
from pathlib import Path

import pytest

from kitcache.options.prunepolicy import DiskSpace, PrunePolicy
from kitcache.options.sweep import SweepOptions
from kitcache.store.directory import DirectoryStore
from kitcache.store.layout import Layout
from kitcache.store.state import record_use
from kitcache.upkeep.pruning.prune import limit_error, prune
from tests.hostile import stages
from tests.hostile.build import Sample
from tests.hostile.stages import LAYER_BYTES
from tests.unit.gc.prunekit import below, kept, most, size_of, tags

MINUTE_NS = 60 * 10**9


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk of 1,000,000 bytes: how many of them are free."""
    free = [0]
    monkeypatch.setattr(DirectoryStore, "disk_size", lambda layout: (1_000_000, free[0]))
    return free


def link(top: Path, root: Path, *names: str) -> None:
    """Give these blobs a second name outside the cache, as merge does."""
    (top / "elsewhere").mkdir(exist_ok=True)
    for name in names:
        os.link(root / "blobs" / "sha256" / name, top / "elsewhere" / name)


def touch(sample: Sample, *names: str) -> None:
    """Written ten seconds ago."""
    for name in names:
        os.utime(sample.dir / "blobs" / "sha256" / name, (time.time() - 10,) * 2)


def at_least(count: int, **more: object) -> PrunePolicy:
    return PrunePolicy(min_free=DiskSpace(bytes=count), **more)  # type: ignore[arg-type]


def test_a_tag_whose_files_have_other_names_is_not_dropped_in_vain(
    sample: Sample, free: list[int]
) -> None:
    garbage = size_of(sample, set(sample.garbage))
    link(sample.box.top, sample.dir, *sample.live)
    pruned = prune(sample.dir, at_least(garbage + 500))
    assert tags(sample) == ["main", "dev"]
    assert (pruned.exit_code, kept(pruned)) == (14, ["main", "dev"])
    assert (pruned.needed_bytes, pruned.limit_bytes) == (0, -500)
    assert pruned.reason.startswith("the kept tags need 0 B, 500 B more than min-free-space ")
    assert pruned.reason.endswith(
        " allows; another 2.0 kB would free nothing, because it is linked elsewhere or young"
    )
    error = limit_error(pruned)
    assert error is not None
    assert error.hints == (
        "free 500 B elsewhere on the disk: an empty cache is not enough",
        "loosen the limit by 500 bytes",
    )


def test_a_tag_that_frees_room_goes_for_those_that_do_not(sample: Sample, free: list[int]) -> None:
    """dev is the last used; main frees what only it has, but for what is linked."""
    own = below(sample, sample.main) - below(sample, sample.dev)
    layer = sample.layers[0]["digest"].partition(":")[2]
    link(sample.box.top, sample.dir, layer)
    gain = size_of(sample, own - {layer}) + size_of(sample, set(sample.garbage))
    assert prune(sample.dir, at_least(gain + 1), dry_run=True).exit_code == 14
    pruned = prune(sample.dir, at_least(gain))
    assert (pruned.exit_code, kept(pruned)) == (0, ["dev"])


def test_garbage_with_other_names_frees_nothing(sample: Sample, free: list[int]) -> None:
    link(sample.box.top, sample.dir, *sample.garbage)
    free[0] = 300
    assert kept(prune(sample.dir, at_least(300), dry_run=True)) == ["main", "dev"]
    assert kept(prune(sample.dir, at_least(301), dry_run=True)) == ["dev"]


def test_what_is_too_young_frees_nothing(sample: Sample, layout: Layout, free: list[int]) -> None:
    """A manifest that was just written shelters its layers, too."""
    touch(sample, sample.main["digest"].partition(":")[2])
    record_use(layout, ["dev"], "imported", time.time_ns())
    policy = SweepOptions(min_age_ns=MINUTE_NS)
    garbage = size_of(sample, set(sample.garbage))
    pruned = prune(sample.dir, at_least(garbage + 1), options=policy)
    assert (pruned.exit_code, tags(sample)) == (14, ["main", "dev"])
    old = prune(sample.dir, at_least(1), dry_run=True)
    assert (old.exit_code, kept(old)) == (0, ["dev"]), "without the age it is free to go"


def test_what_is_dated_ahead_is_not_young(sample: Sample, free: list[int]) -> None:
    """A sweep takes it, so it frees its room."""
    tomorrow = time.time() + 86_400
    for name in sample.live:
        os.utime(sample.dir / "blobs" / "sha256" / name, (tomorrow, tomorrow))
    garbage = size_of(sample, set(sample.garbage))
    pruned = prune(sample.dir, at_least(garbage + 1), dry_run=True)
    assert (pruned.exit_code, len(kept(pruned))) == (0, 1)


def test_young_garbage_is_not_counted_as_room(sample: Sample, free: list[int]) -> None:
    touch(sample, *sample.garbage)
    young = SweepOptions(min_age_ns=MINUTE_NS)
    assert kept(prune(sample.dir, at_least(1), options=young, dry_run=True)) == ["dev"]
    assert kept(prune(sample.dir, at_least(1), dry_run=True)) == ["main", "dev"]


def test_each_of_two_limits_is_kept_to(sample: Sample, free: list[int]) -> None:
    """Linked files count for the cache's size, and not for what the disk has left."""
    link(sample.box.top, sample.dir, *sample.live)
    live = size_of(sample, set(sample.live))
    garbage = size_of(sample, set(sample.garbage))
    free[0] = 10**6
    both = most(live - 1)._replace(min_free=DiskSpace(bytes=10))
    assert (kept(done := prune(sample.dir, both, dry_run=True)), done.exit_code) == (["dev"], 0)
    free[0] = 0
    both = both._replace(min_free=DiskSpace(bytes=garbage + 10))
    pruned = prune(sample.dir, both)
    assert (kept(pruned), pruned.exit_code) == (["dev"], 14)
    assert "min-free-space" in pruned.reason


def test_a_cut_that_frees_nothing_is_none(tmp_path: Path, free: list[int]) -> None:
    cache = stages.make_stages(tmp_path)
    policy = at_least(10 * LAYER_BYTES, keep_tags=("*",), trim=True)
    some = prune(cache.dir, policy, dry_run=True)
    assert {each.ref_name for each in some.trimmed} == {"main", "dev"}
    link(tmp_path, cache.dir, *cache.live)
    none = prune(cache.dir, policy)
    assert (none.trimmed, none.exit_code) == ((), 14)


def test_sizes_that_look_the_same_are_told_apart(sample: Sample) -> None:
    live = size_of(sample, set(sample.live))
    pruned = prune(sample.dir, most(live - 2, keep_tags=("*",)))
    assert pruned.reason == (
        f"the kept tags need {live:,} B, 2 B more than max-used-space {live - 2:,} B allows"
    )


def test_a_way_out_can_be_pasted_into_the_file_that_named_the_limit(sample: Sample) -> None:
    policy = most(100, source="policy.toml")
    error = limit_error(pruned := prune(sample.dir, policy), policy)
    assert error is not None
    assert error.hints == (
        f'allow that much: max-used-space = "{pruned.needed_bytes}B"',
        "make the kept tags smaller: trim = true",
        "allow the last tag to be removed: allow-empty = true",
    )
