"""Policy: what is too young to go."""

from typing import NamedTuple

HOUR_NS = 3600 * 10**9


class SweepOptions(NamedTuple):
    """What a reset spares although nothing reaches it. Times are nanoseconds.

    min_age_ns: unreferenced blobs younger than this stay, with everything that young unreferenced
    manifests reach; 0 spares nothing. ingest_age_ns: uploads without a write for this long are
    taken for left behind, and go.
    """

    min_age_ns: int = 0
    ingest_age_ns: int = HOUR_NS
