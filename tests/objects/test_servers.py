"""The servers that other tests rely on: they start, hold a cache, and end with their owner."""

import datetime as dt
import json
import subprocess
import sys
import time

import pytest

from tests.objects.buckets import (
    READER,
    Bucket,
    S3Bucket,
    digest_of,
    load_fixture,
    missing_blobs,
    put_cache,
)
from tests.objects.servers import accepts


def test_a_cache_is_written_as_buildkit_does(any_bucket: Bucket) -> None:
    put_cache(any_bucket, {"main": [b"one", b"two"], "feature/x": [b"one"]}, garbage=[b"old"])
    blobs = {any_bucket.blob_key(digest_of(data)) for data in (b"one", b"two", b"old")}
    roots = {any_bucket.root_key("main"), any_bucket.root_key("feature/x")}
    assert any_bucket.keys() == blobs | roots
    assert missing_blobs(any_bucket) == {}
    any_bucket.remove(any_bucket.blob_key(digest_of(b"two")))
    assert missing_blobs(any_bucket) == {"main": {digest_of(b"two")}}


@pytest.mark.parametrize("kind", ["s3", "azblob"])
def test_the_real_caches_are_complete_and_have_one_garbage_blob(
    plain_bucket: S3Bucket, kind: str
) -> None:
    load_fixture(plain_bucket, kind)
    keys = plain_bucket.keys()
    layers = {
        layer["blob"]
        for key in keys
        if "/manifests/" in key
        for layer in json.loads(plain_bucket.get(key) or b"").get("layers", ())
    }
    assert missing_blobs(plain_bucket) == {}
    assert len([key for key in keys if "/blobs/" in key]) == 6
    assert len(layers) == 5


def test_a_touch_makes_a_version(versioned_bucket: S3Bucket) -> None:
    put_cache(versioned_bucket, {"main": [b"one"]})
    versioned_bucket.touch(versioned_bucket.blob_key(digest_of(b"one")))
    assert len(versioned_bucket.versions()) == 3


def test_the_reader_may_not_write(plain_bucket: S3Bucket) -> None:
    put_cache(plain_bucket, {"main": [b"one"]})
    with S3Bucket.open(plain_bucket.server, "plain", plain_bucket.prefix, key=READER) as reader:
        assert reader.keys() == plain_bucket.keys()
        with pytest.raises(reader.client.exceptions.ClientError, match="AccessDenied"):
            reader.remove(reader.root_key("main"))
    assert len(plain_bucket.keys()) == 2


def test_a_touch_shows_in_no_listing_of_rclone(rclone_bucket: S3Bucket) -> None:
    """So a collector must refuse it. HEAD shows the touch."""
    key = rclone_bucket.blob_key(digest_of(b"one"))
    put_cache(rclone_bucket, {"main": [b"one"]})
    dates = [dates_of(rclone_bucket, key)]
    time.sleep(1)  # HEAD has whole seconds.
    rclone_bucket.touch(key)
    dates.append(dates_of(rclone_bucket, key))
    assert dates[1][0] > dates[0][0]
    assert dates[1][1] == dates[0][1]


def dates_of(bucket: S3Bucket, key: str) -> tuple[dt.datetime, dt.datetime]:
    """Return the date of an object by HEAD and by a listing."""
    head = bucket.client.head_object(Bucket=bucket.name, Key=key)
    listing = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=key)
    return head["LastModified"], listing["Contents"][0]["LastModified"]


def test_a_locked_version_stays(locked_bucket: S3Bucket) -> None:
    put_cache(locked_bucket, {"main": [b"one"]})
    (stored,) = [v for v in locked_bucket.versions() if "/blobs/" in f"/{v.key}"]
    locked_bucket.client.put_object_legal_hold(
        Bucket=locked_bucket.name, Key=stored.key, LegalHold={"Status": "ON"}
    )
    with pytest.raises(locked_bucket.client.exceptions.ClientError, match="AccessDenied"):
        locked_bucket.client.delete_object(
            Bucket=locked_bucket.name, Key=stored.key, VersionId=stored.version
        )


KILLED = """
import os, signal, sys
from tests.objects.servers import run_server, start_rclone
for server in run_server("rclone", 1, start_rclone):
    print(server.url, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_server_ends_with_a_killed_owner(rclone: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED], check=False, capture_output=True, text=True
    )
    port = int(done.stdout.strip().rpartition(":")[2])
    assert done.returncode == -9
    for _ in range(1000):
        if not accepts(port):
            return
        time.sleep(0.001)
    pytest.fail(f"a server listens at {port} although its owner was killed")
