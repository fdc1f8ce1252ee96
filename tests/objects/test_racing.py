"""Resets race with exports on a real server; KITCACHE_ROUNDS sets how often (`make soak`)."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.objects.buckets import S3Bucket, missing_blobs
from tests.objects.exporter import export_s3, finish
from tests.objects.proxy import Proxy, Request, run_proxy
from tests.objects.racing import (
    DIGEST,
    OLD,
    prepare,
    race_rounds,
    run_reset,
    wait_a_second,
)

ROUNDS = int(os.environ.get("KITCACHE_ROUNDS", "10"))


def say(text: str) -> None:
    """Print past pytest's capture in a soak."""
    if "KITCACHE_ROUNDS" in os.environ and sys.__stdout__ is not None:
        sys.__stdout__.write(f"{text}\n")


def is_deletion(request: Request) -> bool:
    return request.method == "POST" and "delete" in request.query


@pytest.fixture
def proxy(seaweed: object, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    with run_proxy(request.getfixturevalue("seaweed").url) as proxy:
        yield proxy


def reset_with_late_touch(bucket: S3Bucket, proxy: Proxy, *, publish_first: bool) -> object:
    """Run a reset whose DELETE is held while an export touches the blob, and perhaps publishes."""
    prepare(bucket)
    wait_a_second()
    export = export_s3(bucket, ["dev"], [OLD], now_ns=lambda: 10**19, touch_refresh_ns=0)
    assert next(export).kind == "head"
    assert next(export).kind == "touch"
    hold = proxy.hold(is_deletion)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run_reset, bucket, endpoint_url=proxy.url)
        hold.wait()
        next(export)
        if publish_first:
            finish(export)
        hold.release()
        error = running.result(60)
    finish(export)
    return error


@pytest.mark.parametrize("publish_first", [True, False])
def test_with_versions_a_touch_during_the_delete_is_kept(
    versioned_bucket: S3Bucket, proxy: Proxy, publish_first: bool
) -> None:
    error = reset_with_late_touch(versioned_bucket, proxy, publish_first=publish_first)
    assert error is None
    assert missing_blobs(versioned_bucket) == {}
    key = versioned_bucket.blob_key(DIGEST)
    (left,) = [stored for stored in versioned_bucket.versions() if stored.key == key]
    assert left.is_current
    assert not left.is_marker


def test_without_versions_the_loss_is_reported(plain_bucket: S3Bucket, proxy: Proxy) -> None:
    error = reset_with_late_touch(plain_bucket, proxy, publish_first=True)
    assert missing_blobs(plain_bucket) == {"dev": {DIGEST}}
    assert "tag 'dev' was published during the sweep" in str(error)
    assert DIGEST in str(error)


def test_without_versions_a_loss_that_is_published_later_is_found_by_the_next_run(
    plain_bucket: S3Bucket, proxy: Proxy
) -> None:
    assert reset_with_late_touch(plain_bucket, proxy, publish_first=False) is None
    assert missing_blobs(plain_bucket) == {"dev": {DIGEST}}


def test_rounds_with_versions_lose_nothing(versioned_bucket: S3Bucket) -> None:
    tally = race_rounds(versioned_bucket, ROUNDS, say)
    say(f"versioned: {tally}")
    assert (tally.rounds, tally.lost) == (ROUNDS, 0)


def test_rounds_without_versions_report_each_loss(plain_bucket: S3Bucket) -> None:
    tally = race_rounds(plain_bucket, ROUNDS, say)
    say(f"plain: {tally}")
    assert tally.rounds == ROUNDS
    assert tally.reported + tally.found_later == tally.lost
