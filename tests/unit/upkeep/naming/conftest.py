"""What the tests of merge merge with, and into."""

from pathlib import Path

import pytest

from tests.hostile.build import Box


@pytest.fixture
def other(tmp_path: Path) -> Box:
    """A cache with the tag `extra`, which shares a layer with the sample."""
    (tmp_path / "two").mkdir()
    box = Box(tmp_path / "two")
    layers = [box.blob(b"layer 0" * 20), box.blob(b"a layer of its own" * 20)]
    box.tag("extra", box.manifest(layers))
    return box


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "all"
