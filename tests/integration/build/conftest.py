"""Fixtures of the build tests."""

from pathlib import Path

import pytest

from tests.integration.build.kit import Kit
from tests.integration.daemon import Daemon


@pytest.fixture
def kit(daemon: Daemon, tmp_path: Path) -> Kit:
    """Both clients on the private daemon, which has the base image."""
    daemon.base_image()
    return Kit(daemon, tmp_path / "home")
