"""A home of its own for each test that asks for one."""

from pathlib import Path

import pytest

from tests.unit.buildkit.daemon.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home directory."""
    return Home(tmp_path / "home")
