"""A sound cache for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kitcache.gc.control import Control
from kitcache.store.directory import DirectoryStore
from kitcache.store.open import open_store
from tests.hostile.build import Box, Sample, make_sample


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """An empty cache in tmp_path/cache: without index.json until something is tagged."""
    return Box(tmp_path)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Two tags that share a layer, and four dead blobs, in tmp_path/cache."""
    return make_sample(tmp_path)


@pytest.fixture
def layout(sample: Sample) -> Iterator[DirectoryStore]:
    """The sample, opened, its directories too."""
    with open_store(sample.dir) as opened:
        opened.open_directories()
        yield opened


@pytest.fixture
def control() -> Control:
    """A caller who listens to nothing and never cancels."""
    return Control("cache", None, None)
