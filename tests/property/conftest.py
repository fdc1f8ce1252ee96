"""How many examples a law gets: enough for every test run, or KITCACHE_EXAMPLES (`make soak`)."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("KITCACHE_EXAMPLES", "60"))

settings.register_profile(
    "kitcache",
    deadline=None,
    max_examples=EXAMPLES,
    # The first example makes a directory on a cold disk; that says nothing about a law.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("kitcache")
