"""A cache export that has holes, or is cancelled: the cache is as importable as before."""

import json
from pathlib import Path
from threading import Event

import pytest

from kitcache.buildkit import solve as solving
from kitcache.errors import Cancelled
from tests.hostile.failing import FLAVOURS, LAYER, OTHER, building, success
from tests.hostile.fake_daemon import Answer, Solve, build_nothing
from tests.hostile.fake_session import WAIT_S
from tests.hostile.sound_cache import Cache
from tests.property import witness
from tests.property.disk import ingests


def test_a_solve_that_never_ends_is_cancelled(
    context: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solving, "_LAST_UPDATES_S", 3 * WAIT_S)  # giving up is no cancelling
    began, cancel = Event(), Event()

    def script(solve: Solve) -> Answer:
        solve.session.begin_upload(solve.store, LAYER)
        began.set()
        solve.wait()

    with building(script, context, cache, cancel=cancel) as build:
        assert began.wait(WAIT_S)
        cancel.set()
        error = build.exception(WAIT_S)
    assert isinstance(error, Cancelled)
    assert error.exit_code == 130
    cache.expect_unchanged()


def test_a_cancel_after_a_good_solve_publishes_nothing_and_is_told(
    context: Path, cache: Cache
) -> None:
    cancel = Event()

    def script(solve: Solve) -> Answer:
        solve.export_cache(LAYER)
        cancel.set()
        return {}

    with building(script, context, cache, cancel=cancel) as build:
        assert isinstance(build.exception(WAIT_S), Cancelled)
    cache.expect_unchanged()


@FLAVOURS
def test_a_cache_with_a_hole_is_not_published(context: Path, cache: Cache, is_engine: bool) -> None:
    def script(solve: Solve) -> Answer:
        solve.export_cache(LAYER, OTHER, without=OTHER)
        return {}

    result = success(script, context, cache, is_engine=is_engine)
    assert [(one.outcome, one.exit_code) for one in result.caches] == [("failed", 12)]
    assert "not published" in result.caches[0].problem
    assert result.exit_code == 12
    cache.expect_unchanged()


def test_a_good_build_with_uploads_under_way_publishes_what_is_whole(
    context: Path, cache: Cache
) -> None:
    def script(solve: Solve) -> Answer:
        solve.export_cache(LAYER)
        solve.session.begin_upload(solve.store, OTHER)
        return {}

    result = success(script, context, cache)
    assert [one.outcome for one in result.caches] == ["published"]
    assert ingests(cache.root) == frozenset()
    assert witness.holes(cache.root) == ()
    named = json.loads((cache.root / "index.json").read_bytes())["manifests"]
    assert len(named) == 2


def test_a_good_build_that_never_exported_its_cache(context: Path, cache: Cache) -> None:
    result = success(build_nothing, context, cache)
    assert [one.outcome for one in result.caches] == ["empty"]
    cache.expect_unchanged()
