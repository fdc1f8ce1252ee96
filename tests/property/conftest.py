"""How many examples a law gets: enough for every test run, or KITCACHE_EXAMPLES (`make soak`)."""

import os
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings

from kitcache.gc.control import Control

EXAMPLES = int(os.environ.get("KITCACHE_EXAMPLES", "60"))

settings.register_profile(
    "kitcache",
    deadline=None,
    max_examples=EXAMPLES,
    # The first example makes a directory on a cold disk; that says nothing about a law.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("kitcache")


@pytest.fixture(scope="module")
def impatient() -> Iterator[None]:
    """A torn index.json is read again at once: laws about damage would wait for hours in all."""
    with mock.patch.object(Control, "pause", lambda control, seconds: control.check()):
        yield
