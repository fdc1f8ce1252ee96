"""An export continues before each request of a reset, one request after the other.

In memory before every request; on real servers where it matters, with a proxy that holds requests.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

import kitcache
from kitcache.errors import Damaged
from kitcache.store.objects.client import RequestKind
from tests.objects.buckets import digest_of
from tests.objects.exporter import Export, finish, run_until
from tests.objects.world import CONFIRMED, HOUR_NS, World

OLD = b"a blob that no root reaches"
KINDS = ("plain", "versioned")


class Outcome(NamedTuple):
    """The result of a reset during which an export continued before request `number`.

    Attributes:
        request: The kind of that request, "" if there was none.
        built: The export published its root.
        missing: The blobs that roots lack in the end.
    """

    request: str
    built: bool
    missing: dict[str, set[str]]
    error: Damaged | None


def reset_during_export(
    kind: str, number: int, go_on: Callable[[Export], object], stop_before: str
) -> Outcome:
    """Run a reset. Before its request of that number, an export that was held continues.

    Args:
        stop_before: The kind of the export's request that is held when the reset begins.
    """
    world = World(kind)
    request = ""
    with world.opened():
        finish(world.export(["main"], [b"live"]))
        run_until(world.export(["never"], [OLD]), "root")
        # Older than the grace, unless the export does not touch it.
        world.wait((60 if stop_before == "touch" else 23) * HOUR_NS)
        export = world.export(["dev"], [OLD])
        run_until(export, stop_before)
        world.wait(0 if stop_before == "touch" else 23 * HOUR_NS)
        numbers = iter(range(10**6))

        def hook(sent: RequestKind, key: str) -> None:
            nonlocal request
            if next(numbers) == number:
                request = sent
                go_on(export)

        world.client.hooks.append(hook)
        error = run_reset(world)
        world.client.hooks.clear()
        try:
            finish(export)
        except LookupError:
            return Outcome(request, False, world.missing(), error)
        built = world.bucket.get(world.bucket.root_key("dev")) is not None
        return Outcome(request, built, world.missing(), error)


def run_reset(world: World) -> Damaged | None:
    try:
        kitcache.reset(world.address, options=CONFIRMED)
    except Damaged as error:
        return error
    return None


def send_one(export: Export) -> None:
    try:
        next(export)
    except LookupError:
        # The build fails, loudly: the blob was deleted between its HEAD and its touch.
        export.close()


def send_all(export: Export) -> None:
    try:
        finish(export)
    except LookupError:
        export.close()


def outcomes(kind: str, go_on: Callable[[Export], object], stop_before: str) -> list[Outcome]:
    """Return the outcome for each request of a reset."""
    found = []
    for number in range(100):
        outcome = reset_during_export(kind, number, go_on, stop_before)
        if not outcome.request:
            return found
        found.append(outcome)
    raise AssertionError("a reset sends that many requests for three blobs")


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_that_skips_the_touch_never_loses_a_blob(kind: str) -> None:
    for outcome in outcomes(kind, send_all, "root"):
        assert outcome.built
        assert (outcome.missing, outcome.error) == ({}, None)


def test_with_versions_no_touch_is_lost() -> None:
    for go_on in (send_one, send_all):
        found = outcomes("versioned", go_on, "touch")
        assert {outcome.request for outcome in found} >= {"list", "get", "put", "delete"}
        assert [outcome for outcome in found if outcome.missing or outcome.error] == []
        # A touch after the DELETE fails that build, and no root names the blob.
        assert {outcome.built for outcome in found} == {True, False}


def test_without_versions_only_a_touch_right_before_the_delete_is_lost() -> None:
    found = outcomes("plain", send_one, "touch")
    lost = [outcome for outcome in found if outcome.missing]
    assert [(outcome.request, outcome.missing) for outcome in lost] == [
        ("delete", {"dev": {digest_of(OLD)}})
    ]


def test_a_loss_that_is_published_during_the_reset_is_reported() -> None:
    lost = [outcome for outcome in outcomes("plain", send_all, "touch") if outcome.missing]
    assert len(lost) == 1
    error = lost[0].error
    assert error is not None
    assert error.exit_code == 12
    assert (error.tag, error.kind) == ("dev", "lost")
    assert digest_of(OLD) in str(error)
