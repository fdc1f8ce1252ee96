"""The options of a sweep."""

from typing import NamedTuple

HOUR_NS = 3600 * 10**9


class SweepOptions(NamedTuple):
    """The ages below which a reset keeps unreachable blobs and uploads.

    Attributes:
        min_age_ns: Younger unreachable blobs are kept, and all blobs that young unreachable
            manifests reach; 0 keeps none.
        ingest_age_ns: An upload without a write for this long is abandoned, and is deleted.
    """

    min_age_ns: int = 0
    ingest_age_ns: int = HOUR_NS
