"""Several runs on one bucket: what each counts, refuses and remembers. A dry run agrees."""

from collections.abc import Iterator
from itertools import count

import pytest

import kitcache
from kitcache import Busy, PrunePolicy, PruneResult, ResetResult, SweepOptions, Unsafe
from kitcache.store.objects.client import Page
from tests.objects.buckets import digest_of
from tests.objects.exporter import finish
from tests.objects.world import CONFIRMED, HOUR_NS, World

UNCONFIRMED = SweepOptions()
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


def remove_blob(world: World, data: bytes) -> None:
    world.bucket.remove(world.bucket.blob_key(digest_of(data)))


def codes(world: World, options: SweepOptions = UNCONFIRMED) -> list[int]:
    """Return the exit codes of reset and prune: the dry runs first."""
    everything = PrunePolicy(keep_tags=("*",))
    results: list[ResetResult | PruneResult] = []
    for dry_run in (True, False):
        results.append(kitcache.reset(world.address, options=options, dry_run=dry_run))
        pruned = kitcache.prune(world.address, everything, options=options, dry_run=dry_run)
        results.append(pruned)
    return [result.exit_code for result in results]


@pytest.mark.parametrize("kind", ["plain", "azure"])
def test_a_blob_that_a_root_lacks_is_12_in_every_run(kind: str) -> None:
    world = make_world("main", "pr-1", kind=kind)
    with world.opened():
        kitcache.reset(world.address, options=CONFIRMED)
        remove_blob(world, b"main")
        assert codes(world) == [12] * 4
        assert kitcache.du(world.address).exit_code == 12


def test_a_run_that_needs_a_confirmation_is_15_and_so_is_its_dry_run() -> None:
    world = make_world("main", "pr-1")
    with world.opened():
        assert codes(world) == [15] * 4
        assert codes(world, CONFIRMED) == [0] * 4
        for tag in ("a", "b", "c"):
            finish(world.export([tag], [tag.encode(), tag.encode() * 2]))
        assert kitcache.reset(world.address).exit_code == 0
        for tag in ("a", "b", "c"):
            world.bucket.remove(world.bucket.root_key(tag))
        result = kitcache.reset(world.address)
        assert (result.exit_code, result.reason.split(":")[0]) == (
            15,
            "far fewer blobs are live than in the last run",
        )
        # The run that was not confirmed does not become the run to compare with.
        assert kitcache.reset(world.address, dry_run=True).exit_code == 15


def test_a_dry_run_refuses_roots_of_another_prefix_as_a_run_does() -> None:
    world = make_world("main")
    root = f'{{"layers":[{{"blob":"{digest_of(b"other")}"}}]}}'.encode()
    world.bucket.put(world.bucket.blob_key(digest_of(b"other")), b"other")
    world.bucket.put("team/main", root)
    for dry_run in (True, False):
        for options in (CONFIRMED, UNCONFIRMED):
            with world.opened(), pytest.raises(Unsafe, match="team/main looks like a root"):
                kitcache.reset(world.address, options=options, dry_run=dry_run)
            with world.opened(), pytest.raises(Unsafe, match="team/main looks like a root"):
                kitcache.prune(world.address, KEEP_MAIN, options=options, dry_run=dry_run)


def test_a_blob_that_a_listing_lacks_is_looked_up() -> None:
    """A listing can be late; then the blob is not missing."""
    world = make_world("main")
    key = world.bucket.blob_key(digest_of(b"main"))
    list_pages = world.client.list_pages

    def list_late(prefix: str, *, after: str = "", versions: bool = False) -> Iterator[Page]:
        for page in list_pages(prefix, after=after, versions=versions):
            yield page._replace(objects=[info for info in page.objects if info.key != key])

    world.client.list_pages = list_late  # type: ignore[method-assign]
    with world.opened():
        usage = kitcache.du(world.address)
        assert (usage.exit_code, usage.missing_blobs, usage.live.blobs) == (0, (), 3)
        assert kitcache.reset(world.address, options=CONFIRMED).exit_code == 0
        remove_blob(world, b"main")
        assert kitcache.du(world.address).exit_code == 12


def test_listings_that_differ_each_time_are_named_as_a_cause() -> None:
    world = make_world("main", "pr-1")
    world.wait(60 * HOUR_NS)
    key, list_pages = world.bucket.root_key("pr-1"), world.client.list_pages
    turns = count()

    def list_some(prefix: str, *, after: str = "", versions: bool = False) -> Iterator[Page]:
        is_short = prefix == "manifests/" and next(turns) % 2
        for page in list_pages(prefix, after=after, versions=versions):
            objects = [info for info in page.objects if not (is_short and info.key == key)]
            yield page._replace(objects=objects)

    world.client.list_pages = list_some  # type: ignore[method-assign]
    with world.opened(), pytest.raises(Busy, match="or each listing of the store is different"):
        kitcache.reset(world.address, options=CONFIRMED)
    keys = world.bucket.keys()
    assert len([key for key in keys if "/sha256:" in key]) == 3


@pytest.mark.parametrize("command", ["reset", "prune"])
@pytest.mark.parametrize("days", [1, 7])
def test_a_running_import_keeps_its_blobs(command: str, days: int) -> None:
    """An import reads a root that is replaced or removed just before a run of the collector.

    The first run is not confirmed; the next one is days later.
    """
    world = make_world("main", "pr-1")
    with world.opened():
        assert kitcache.reset(world.address).exit_code == 15
        world.wait(days * 24 * HOUR_NS)
        finish(world.export(["main"], [b"base", b"new"]))
        if command == "reset":
            world.bucket.remove(world.bucket.root_key("pr-1"))
            kitcache.reset(world.address, options=CONFIRMED)
        else:
            kitcache.prune(world.address, KEEP_MAIN, options=CONFIRMED)
        old = {world.bucket.blob_key(digest_of(data)) for data in (b"main", b"pr-1")}
        assert world.bucket.keys() >= old
        for _ in range(3):
            world.wait(24 * HOUR_NS)
            kitcache.reset(world.address)
        assert not world.bucket.keys() & old


def test_a_root_that_no_run_has_recorded_is_protected_when_prune_removes_it() -> None:
    world = make_world("main")
    with world.opened():
        kitcache.reset(world.address, options=CONFIRMED)
        world.wait(HOUR_NS)
        finish(world.export(["pr-1"], [b"pr-1"]))
        world.wait(100 * HOUR_NS)
        result = kitcache.prune(world.address, KEEP_MAIN, dry_run=True).reset
        assert kitcache.prune(world.address, KEEP_MAIN).reset.too_young == result.too_young
        assert (result.too_young.blobs, result.deleted.blobs) == (1, 0)
        world.wait(49 * HOUR_NS)
        assert kitcache.reset(world.address).deleted.blobs == 1
