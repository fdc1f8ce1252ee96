"""Caches that the tests of verify, repair and mend damage."""

import pytest

from tests.hostile.build import Box
from tests.hostile.importable import Cached, add_cache, grow, layer
from tests.property.disk import settle
from tests.unit.upkeep.health.shelf import Shelf


@pytest.fixture
def main(box: Box) -> Cached:
    """Three steps under the tag main."""
    return grow(box)


@pytest.fixture
def cut(box: Box) -> Cached:
    """A whole tag, and one whose last layer is bad."""
    grow(box, "whole", 2)
    cached = add_cache(box, "cut", [layer(box, "0"), layer(box, "cut")])
    box.damage(cached.layers[1]["digest"], b"bad")
    settle(box.dir)
    return cached


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()
