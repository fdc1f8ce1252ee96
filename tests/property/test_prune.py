"""Laws of prune on a disk: what is kept is whole, limits hold, dry runs agree, twice is once."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import kitcache
from kitcache.options.prunepolicy import find_contradictions
from tests.property import witness
from tests.property.disk import blobs, on_disk, settle, snapshot
from tests.property.model import Cache, reach, size_of, verdict
from tests.property.strategies import caches

limits = st.integers(0, 4000)
globs = st.lists(st.sampled_from(["main", "latest", "pr*", "*", "nosuch"]), max_size=2)


@st.composite
def policies(draw: st.DrawFn) -> kitcache.PrunePolicy:
    """A limit, tags to keep, an age: some of them."""
    limit = draw(st.none() | limits)
    rule = kitcache.PruneRule(
        keep_last=draw(st.none() | st.integers(1, 3)),
        unused_for_ns=draw(st.none() | st.sampled_from([0, 7200 * 10**9])),
    )
    policy = kitcache.PrunePolicy(
        keep_tags=tuple(dict.fromkeys(draw(globs))),
        rules=(rule,) if rule.fields else (),
        max_used=None if limit is None else kitcache.DiskSpace(bytes=limit),
        allow_empty=draw(st.booleans()),
        drop_tags=tuple(dict.fromkeys(draw(globs))),
    )
    assume(not list(find_contradictions(policy)))
    return policy


def left_of(cache: Cache, pruned: kitcache.PruneResult) -> Cache:
    gone = {p for decision in pruned.tags if not decision.keep for p in decision.positions}
    return cache._replace(entries=tuple(e for n, e in enumerate(cache.entries) if n not in gone))


def keeps_none(cache: Cache, policy: kitcache.PrunePolicy) -> bool:
    """Whether tags would go for a name alone that none of them has."""
    names = {entry.ref_name for entry in cache.entries if entry.ref_name is not None}
    return (
        bool(policy.keep_tags)
        and policy.max_used is None
        and not policy.rules
        and not policy.drop_tags
        and len(names) > (0 if policy.allow_empty else 1)
        and not any(fnmatchcase(name, glob) for name in names for glob in policy.keep_tags)
    )


@given(caches(min_roots=1), policies())
def test_what_is_kept_is_whole_and_all_else_is_gone(
    cache: Cache, policy: kitcache.PrunePolicy
) -> None:
    with on_disk(cache) as root:
        before, holes = snapshot(root), witness.holes(root)
        if keeps_none(cache, policy):
            for dry_run in (True, False):
                with pytest.raises(kitcache.UsageError, match="no tag matches"):
                    kitcache.prune(root, policy, dry_run=dry_run)
            assert snapshot(root) == before
            return
        dry = kitcache.prune(root, policy, dry_run=True)
        assert snapshot(root) == before
        pruned = kitcache.prune(root, policy)
        if policy.is_empty:
            assert (pruned.outcome, snapshot(root)) == ("no-policy", before)
            return
        after = left_of(cache, pruned)
        assert blobs(root) == verdict(after).keep
        listed = [tag.ref_name for tag in kitcache.ls(root).tags]
        assert listed == [entry.ref_name for entry in after.entries]
        # What was missing before may be missing still.
        assert {h.digest for h in witness.holes(root)} <= {h.digest for h in holes}
        settle(root)  # the uploads that went a moment ago are nobody's trace
        again = kitcache.prune(root, policy)
    same = pruned.reset._replace(outcome="dry-run", seconds=dry.reset.seconds)
    assert dry == pruned._replace(outcome="dry-run", reset=same)
    assert again.reset.deleted == kitcache.Tally()
    assert all(decision.keep for decision in again.tags)


@given(caches(with_ingests=False, min_roots=1), limits)
def test_a_limit_holds_or_it_is_said_what_is_needed(cache: Cache, limit: int) -> None:
    policy = kitcache.PrunePolicy(max_used=kitcache.DiskSpace(bytes=limit))
    with on_disk(cache) as root:
        pruned = kitcache.prune(root, policy)
    after = left_of(cache, pruned)
    held = size_of(cache, reach(after) & cache.present)
    assert pruned.reset.kept.bytes == held
    assert (pruned.needed_bytes, pruned.exit_code) == ((None, 0) if held <= limit else (held, 14))
    # One tag stays, and what costs nothing beside it.
    names = {entry.ref_name for entry in after.entries} - {None}
    alone = [[e for e in after.entries if e.ref_name in (None, name)] for name in names]
    least = [size_of(cache, reach(cache, entries) & cache.present) for entries in alone]
    assert held <= limit or not least or held in least


@given(caches(with_ingests=False, min_roots=1), limits, limits)
def test_a_tighter_limit_never_keeps_more(cache: Cache, one: int, other: int) -> None:
    kept = []
    for limit in sorted((one, other)):
        policy = kitcache.PrunePolicy(max_used=kitcache.DiskSpace(bytes=limit))
        with on_disk(cache) as root:
            decisions = kitcache.prune(root, policy, dry_run=True).tags
        kept.append({decision.positions for decision in decisions if decision.keep})
    held = [
        {
            digest
            for positions in each
            for p in positions
            for digest in reach(cache, [cache.entries[p]])
        }
        for each in kept
    ]
    assert held[0] <= held[1]
