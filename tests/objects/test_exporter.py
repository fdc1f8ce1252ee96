"""The stand-in exporters send what BuildKit sends, and the proxy holds and breaks requests."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.objects.buckets import (
    AzureBucket,
    MemoryBucket,
    S3Bucket,
    digest_of,
    missing_blobs,
    put_cache,
)
from tests.objects.exporter import export_azure, export_s3, finish, run_until
from tests.objects.memory import MemoryClient
from tests.objects.proxy import Proxy, error_response, run_proxy

LAYERS = [b"%d" % number for number in range(8)]
HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS


def kinds(requests: list[Any]) -> Counter[str]:
    return Counter(request.kind for request in requests)


@pytest.fixture
def memory() -> MemoryBucket:
    return MemoryBucket(MemoryClient())


class TestS3Exporter:
    def export(self, bucket: Any, blobs: list[bytes], now_ns: Callable[[], int]) -> list[Any]:
        export = export_s3(bucket, ["main"], blobs, now_ns=now_ns, touch_refresh_ns=DAY_NS)
        return finish(export)

    def test_a_first_export_uploads_and_an_unchanged_one_only_looks(
        self, memory: MemoryBucket
    ) -> None:
        first = self.export(memory, LAYERS, memory.client.now_ns)
        assert kinds(first) == {"head": 8, "put": 8, "root": 1}
        assert kinds(self.export(memory, LAYERS, memory.client.now_ns)) == {"head": 8, "root": 1}
        assert missing_blobs(memory) == {}

    def test_only_blobs_that_are_older_than_touch_refresh_are_touched(
        self, memory: MemoryBucket
    ) -> None:
        self.export(memory, LAYERS[:4], memory.client.now_ns)
        memory.client.clock_ns += DAY_NS + 10**9
        self.export(memory, LAYERS[4:], memory.client.now_ns)
        assert kinds(self.export(memory, LAYERS, memory.client.now_ns)) == {
            "head": 8,
            "touch": 4,
            "root": 1,
        }

    def test_a_touch_of_a_missing_blob_fails_the_export_without_a_root(
        self, memory: MemoryBucket
    ) -> None:
        memory.put(memory.blob_key(digest_of(b"0")), b"0")
        memory.client.clock_ns += 2 * DAY_NS
        export = export_s3(
            memory, ["main"], [b"0"], now_ns=memory.client.now_ns, touch_refresh_ns=DAY_NS
        )
        memory.remove(run_until(export, "touch").key)
        with pytest.raises(LookupError):
            finish(export)
        assert memory.get(memory.root_key("main")) is None

    def test_a_real_server_answers_as_the_model_does(self, versioned_bucket: S3Bucket) -> None:
        later = time.time_ns() + 2 * DAY_NS
        assert kinds(self.export(versioned_bucket, LAYERS, time.time_ns))["put"] == 8
        assert kinds(self.export(versioned_bucket, LAYERS, time.time_ns))["touch"] == 0
        assert kinds(self.export(versioned_bucket, LAYERS, lambda: later))["touch"] == 8
        assert len(versioned_bucket.versions()) == 8 + 8 + 3
        assert missing_blobs(versioned_bucket) == {}


def test_the_azure_exporter_touches_nothing(azure_bucket: AzureBucket) -> None:
    assert kinds(finish(export_azure(azure_bucket, ["a", "b"], LAYERS))) == {
        "head": 8,
        "put": 8,
        "root": 2,
    }
    dates = {
        key: azure_bucket.modified_ns(key) for key in sorted(azure_bucket.keys()) if "blobs" in key
    }
    assert kinds(finish(export_azure(azure_bucket, ["a"], LAYERS))) == {"head": 8, "root": 1}
    assert {key: azure_bucket.modified_ns(key) for key in dates} == dates
    assert missing_blobs(azure_bucket) == {}


class TestProxy:
    @pytest.fixture
    def proxy(self, plain_bucket: S3Bucket) -> Iterator[Proxy]:
        with run_proxy(plain_bucket.server.url) as proxy:
            yield proxy

    @pytest.fixture
    def behind(self, plain_bucket: S3Bucket, proxy: Proxy) -> Iterator[S3Bucket]:
        with S3Bucket.open(
            plain_bucket.server, "plain", plain_bucket.prefix, url=proxy.url
        ) as bucket:
            yield bucket

    def test_a_held_request_has_no_effect_until_it_is_released(
        self, plain_bucket: S3Bucket, behind: S3Bucket, proxy: Proxy
    ) -> None:
        hold = proxy.hold(lambda r: r.method == "PUT" and "/manifests/" in r.path)
        with ThreadPoolExecutor() as pool:
            writing = pool.submit(put_cache, behind, {"main": LAYERS})
            hold.wait()
            assert len(plain_bucket.keys()) == 8
            assert not writing.done()
            hold.release()
            writing.result(60)
        assert len(plain_bucket.keys()) == 9
        assert Counter(request.method for request in proxy.requests) == {"PUT": 9}

    def test_an_answer_replaces_so_many_requests(self, behind: S3Bucket, proxy: Proxy) -> None:
        slow = error_response("503 Slow Down", "SlowDown")
        proxy.answer(lambda r: r.method == "PUT", slow, times=1)
        with pytest.raises(behind.client.exceptions.ClientError, match="SlowDown"):
            behind.put(f"{behind.prefix}x", b"x" * 100_000)
        behind.put(f"{behind.prefix}x", b"x" * 100_000)
        assert behind.get(f"{behind.prefix}x") == b"x" * 100_000

    def test_an_empty_answer_ends_the_connection(self, behind: S3Bucket, proxy: Proxy) -> None:
        from botocore.exceptions import HTTPClientError  # noqa: PLC0415

        proxy.answer(lambda r: r.method == "GET", b"", times=1)
        with pytest.raises(HTTPClientError):
            behind.get(f"{behind.prefix}x")
        assert behind.get(f"{behind.prefix}x") is None
