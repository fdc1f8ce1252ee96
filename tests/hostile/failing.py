"""Builds on a fake daemon that does something wrong, with a cache that has to outlive it.

A thread that ends with an exception fails the test by itself: pytest makes an error of it.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kitcache.buildkit.client import Client
from kitcache.buildkit.result import BuildResult
from kitcache.errors import KitcacheError, NoDaemon
from tests.hostile.fake_daemon import FakeDaemon, Script
from tests.hostile.fake_session import WAIT_S
from tests.hostile.sound_cache import Cache

LAYER = b"a new layer " * 30_000
OTHER = b"another layer " * 100
FLAVOURS = pytest.mark.parametrize("is_engine", [False, True], ids=["buildkitd", "engine"])


@contextmanager
def building(
    script: Script,
    context: Path,
    cache: Cache | None = None,
    *,
    is_engine: bool = False,
    missing: tuple[str, ...] = (),
    answers: Mapping[str, bytes | None] | None = None,
    **more: Any,
) -> Iterator["Future[BuildResult]"]:
    """A build under way, in a thread: what waits for it does so for a bounded time."""
    more.setdefault("outputs", ["type=cacheonly"])
    if cache is not None:
        more["cache_to"] = [f"type=local,dest={cache.root},tag=new,reset=true"]
    with (
        FakeDaemon(script, is_engine=is_engine, missing=missing, answers=answers) as daemon,
        ThreadPoolExecutor(1) as pool,
        Client(daemon.address) as client,
    ):
        yield pool.submit(client.build, str(context), **more)


def failure(
    script: Script, context: Path, cache: Cache | None = None, **more: Any
) -> KitcacheError:
    """What a build comes to that fails, and leaves the cache as it was."""
    with building(script, context, cache, **more) as build:
        error = build.exception(WAIT_S)
    assert isinstance(error, KitcacheError), error
    if cache is not None:
        cache.expect_unchanged()
    return error


def success(script: Script, context: Path, cache: Cache | None = None, **more: Any) -> BuildResult:
    with building(script, context, cache, **more) as build:
        return build.result(WAIT_S)


def expect_lost(error: KitcacheError) -> None:
    assert isinstance(error, NoDaemon)
    assert error.exit_code == 20
    assert "the daemon was lost while it built" in str(error)
    assert "no tag was changed" in str(error)
