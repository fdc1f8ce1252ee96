"""A command that ends before any of its requests leaves garbage at most, and runs again.

From that request on every request fails, as after SIGKILL, so no cleanup happens either.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import pytest

import kitcache
from kitcache.errors import NotFound
from kitcache.store.objects.client import RequestKind
from tests.objects.buckets import digest_of
from tests.objects.exporter import finish, run_until
from tests.objects.world import CONFIRMED, HOUR_NS, World

LAYERS = [b"layer %d" % number * 1000 for number in range(4)]
GARBAGE = [b"garbage", b"more garbage"]
KINDS = ("plain", "versioned", "azure")


class Command(NamedTuple):
    """A command, and the roots that it leaves."""

    run: Callable[[World], object]
    roots: set[str]


DROP_MAIN = kitcache.PrunePolicy(drop_tags=("main",))
TRIM_BYTES = 15_000
COMMANDS = {
    "reset": Command(
        lambda world: kitcache.reset(world.address, options=CONFIRMED), {"main", "dev"}
    ),
    "prune": Command(
        lambda world: kitcache.prune(world.address, DROP_MAIN, options=CONFIRMED), {"dev"}
    ),
    "untag": Command(lambda world: kitcache.untag(world.address, ["main"]), {"dev"}),
    "tag": Command(lambda world: kitcache.tag(world.address, "dev", "new"), {"main", "dev", "new"}),
    "trim": Command(
        lambda world: kitcache.trim(world.address, "main", TRIM_BYTES, options=CONFIRMED),
        {"main", "dev"},
    ),
    "repair": Command(lambda world: kitcache.repair(world.address), {"main", "dev"}),
}


class End(NamedTuple):
    """The state after a command that was killed, and after later runs (`again`, all keys)."""

    requests: int
    missing: dict[str, set[str]]
    roots: set[str]
    again: set[str]


class Killed(BaseException):
    """The process was killed."""


def make_world(kind: str) -> World:
    """Return two roots that share a blob, garbage, and a run of kitcache before the garbage."""
    world = World(kind)
    finish(world.export(["main"], LAYERS[:3]))
    finish(world.export(["dev"], LAYERS[2:]))
    kitcache.reset(world.address, options=CONFIRMED)
    run_until(world.export(["never"], [b"garbage", b"more garbage"]), "root")
    world.wait(60 * HOUR_NS)
    return world


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_every_root_complete(kind: str, name: str) -> None:
    command = COMMANDS[name]
    whole = played(kind, command, None)
    assert whole.roots == command.roots
    assert not whole.again & {f"blobs/{digest_of(data)}" for data in GARBAGE}
    ends = [played(kind, command, number) for number in range(whole.requests)]
    assert [end.missing for end in ends] == [{}] * whole.requests
    assert {frozenset(end.roots) for end in ends} <= {
        frozenset({"main", "dev"}),
        frozenset(command.roots),
    }
    for end in ends:
        assert end.again == whole.again


def played(kind: str, command: Command, number: int | None) -> End:
    world = World(kind)
    with world.opened():
        finish(world.export(["main"], LAYERS[:3]))
        finish(world.export(["dev"], LAYERS[2:]))
        kitcache.reset(world.address, options=CONFIRMED)
        run_until(world.export(["never"], GARBAGE), "root")
        world.wait(60 * HOUR_NS)
        requests = run_until_request(world, command, number)
        missing, roots = world.missing(), roots_of(world)
        # Of a command that was done before the kill, the second run finds nothing to do.
        with suppress(NotFound):
            command.run(world)
        assert world.missing() == {}
        assert roots_of(world) == command.roots
        world.wait(60 * HOUR_NS)
        kitcache.reset(world.address, options=CONFIRMED)
        world.wait(60 * HOUR_NS)
        kitcache.reset(world.address, options=CONFIRMED)
        again = {key for key in sorted(world.bucket.keys()) if "/self-test-" not in key}
        return End(requests, missing, roots, again)


def roots_of(world: World) -> set[str]:
    keys = sorted(world.bucket.keys())
    return {key.removeprefix("manifests/") for key in keys if key.startswith("manifests/")}


def run_until_request(world: World, command: Command, number: int | None) -> int:
    """Run a command, killed before its request of that number. Return how many it has sent."""
    sent = 0

    def kill(kind: RequestKind, key: str) -> None:
        nonlocal sent
        if number is not None and sent >= number:
            raise Killed
        sent += 1

    world.client.hooks.append(kill)
    try:
        command.run(world)
    except Killed:
        pass
    finally:
        world.client.hooks.remove(kill)
    return sent
