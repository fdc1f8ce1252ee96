"""options/sweep.py: what a reset spares when it is not told otherwise."""

from kitcache.options.sweep import SweepOptions


def test_by_default_age_spares_no_blob_and_an_upload_for_an_hour() -> None:
    hour_ns = 3600 * 10**9
    assert SweepOptions() == (0, hour_ns, 24 * hour_ns, False, False)
    assert SweepOptions(min_age_ns=7).ingest_age_ns == SweepOptions().ingest_age_ns
