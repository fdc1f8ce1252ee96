"""options/sweep.py: what a reset spares when it is not told otherwise."""

from kitcache.options.sweep import Policy


def test_by_default_age_spares_no_blob_and_an_upload_for_an_hour() -> None:
    assert Policy() == (0, 3600 * 10**9)
    assert Policy(min_age_ns=7).ingest_age_ns == Policy().ingest_age_ns
