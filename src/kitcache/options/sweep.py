"""The options of a sweep."""

from typing import NamedTuple

HOUR_NS = 3600 * 10**9


class SweepOptions(NamedTuple):
    """The ages below which a reset keeps unreachable blobs and uploads.

    Attributes:
        min_age_ns: Younger unreachable blobs are kept, and all blobs that young unreachable
            manifests reach; 0 keeps none.
        ingest_age_ns: An upload without a write for this long is abandoned, and is deleted.
        export_time_ns: The longest time of an export. In an object store, blobs are kept that are
            younger than the cache's touch_refresh and this time together.
        confirmed: In an object store, also delete on the first run, and if much fewer blobs are
            reachable than in the last run. If False, such a run is a dry run.
        settles: In an object store, wait for export_time_ns after the last deletion, and look once
            more whether a new root lacks a deleted blob.
    """

    min_age_ns: int = 0
    ingest_age_ns: int = HOUR_NS
    export_time_ns: int = 24 * HOUR_NS
    confirmed: bool = False
    settles: bool = False
