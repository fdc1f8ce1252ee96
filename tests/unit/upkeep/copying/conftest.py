"""Caches to copy from, and buckets to copy to."""

from pathlib import Path

import pytest

from kitcache.store.objects import open as opening
from tests.hostile.build import Box
from tests.unit.upkeep.copying.copykit import Buckets, make_cache


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> Buckets:
    """Buckets in memory, which every address of S3 names."""
    buckets = Buckets()
    monkeypatch.setattr(opening, "_open_client", buckets.open)
    return buckets


@pytest.fixture
def cache(tmp_path: Path) -> Box:
    """A directory with the tags main and dev, which share a layer."""
    tags = {"main": [b"base" * 20, b"main" * 30], "dev": [b"base" * 20, b"dev" * 40]}
    return make_cache(tmp_path / "source", tags)
