"""A sound cache to damage, for every hostile test."""

from pathlib import Path

import pytest

from tests.hostile import privilege
from tests.hostile.build import Sample, make_sample


@pytest.fixture(autouse=True, scope="session")
def _loud_skips(request: pytest.FixtureRequest) -> None:
    privilege.capture = request.config.pluginmanager.getplugin("capturemanager")


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Two tags and four dead blobs in tmp_path/cache, bystanders beside it."""
    return make_sample(tmp_path)
