"""Several runs on one bucket: what each counts, refuses and remembers. A dry run agrees."""

import pytest

import kitcache
from kitcache import PrunePolicy
from tests.objects.exporter import finish
from tests.objects.world import CONFIRMED, HOUR_NS, World

KEEP_MAIN = PrunePolicy(keep_tags=("main",))


def make_world(*tags: str, kind: str = "plain") -> World:
    """A bucket with tags that share one blob; each has one of its own."""
    world = World(kind)
    for tag in tags:
        finish(world.export([tag], [b"base", tag.encode()]))
    return world


@pytest.mark.parametrize("age_hours", [0, 60])
@pytest.mark.parametrize("kind", ["plain", "versioned"])
def test_blobs_of_removed_tags_that_stay_are_counted(kind: str, age_hours: int) -> None:
    world = make_world("main", "pr-1", "pr-2", kind=kind)
    world.wait(age_hours * HOUR_NS)
    with world.opened():
        kitcache.reset(world.address, options=CONFIRMED)
        world.wait(HOUR_NS)
        counted = kitcache.prune(world.address, KEEP_MAIN, dry_run=True).reset
        pruned = kitcache.prune(world.address, KEEP_MAIN).reset
        usage = kitcache.du(world.address)
        later = kitcache.reset(world.address)
    assert pruned.too_young.blobs == 2
    for result in (counted, later):
        assert (result.kept, result.too_young) == (pruned.kept, pruned.too_young)
    assert (usage.live.plus(usage.too_young), usage.too_young) == (pruned.kept, pruned.too_young)
