"""The object store keeps the laws of all stores, on each server and on the client in memory.

The tests change the sample's directory; `sync` writes it to the bucket as BuildKit has it:
blobs as they are, and of each tag only the cacheconfig, under its name.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kitcache.options.objectcaches import ObjectCache, parse_object_cache
from kitcache.options.sweep import SweepOptions
from kitcache.store.objects.client import ObjectClient, ObjectInfo
from kitcache.store.objects.live import LiveState, Run, encode_state
from kitcache.store.objects.store import ObjectStore
from kitcache.store.protocol import CollectableStore
from tests.contract.suite import HOUR_NS, Cache, StoreLaws, UploadLaws
from tests.hostile.build import Json, Sample, make_sample
from tests.objects.buckets import STORES, MemoryBucket, open_client
from tests.objects.memory import MemoryClient

MEMORY = ("memory", "memory versioned", "memory azure")
S3 = tuple(kind for kind in STORES if kind != "azure_bucket")
WITH_UPLOADS = ("plain_bucket", "moto_bucket")
NO_GRACE = SweepOptions(export_time_ns=0, confirmed=True)


class Objects:
    """The sample in a bucket, an hour ago by the clock of the store."""

    def __init__(self, sample: Sample, bucket: Any, store: ObjectStore) -> None:
        self.store, self.bucket = store, bucket
        self.written: dict[str, bytes] = {}
        box = sample.box
        manifests = {self._config(box.path_of(d["digest"]))[0] for d in (sample.main, sample.dev)}
        main, dev = (self._config(box.path_of(d["digest"]))[1] for d in (sample.main, sample.dev))
        self.hidden = {d["digest"] for d in (main, dev)} | manifests
        hidden = {digest.partition(":")[2] for digest in self.hidden}
        self.sample = sample._replace(main=main, dev=dev, live=sample.live - hidden)

    def _config(self, path: Path) -> tuple[str, Json]:
        return f"sha256:{path.name}", json.loads(path.read_bytes())["config"]

    def sync(self) -> None:
        objects = {}
        for path in (self.sample.dir / "blobs" / "sha256").iterdir():
            if f"sha256:{path.name}" not in self.hidden:
                objects[self.bucket.blob_key(f"sha256:{path.name}")] = path.read_bytes()
        for name, data in self._roots():
            objects[self.bucket.root_key(name)] = data
        held = self.bucket.keys()
        kept = {key for key in held if "/kitcache/" in f"/{key}"}
        for key in held - objects.keys() - kept:
            self.bucket.remove(key)
        for key, data in objects.items():
            if self.written.get(key) != data:
                self.bucket.put(key, data)
        self.written = objects
        self.store.refresh()
        self.store.read_roots(lambda _: None)

    def _roots(self) -> Iterator[tuple[str, bytes]]:
        index = self.sample.dir / "index.json"
        entries = json.loads(index.read_bytes())["manifests"] if index.exists() else []
        for entry in entries:
            data = self.sample.box.path_of(entry["digest"]).read_bytes()
            config = json.loads(data).get("config")
            if config:
                data = self.sample.box.path_of(config["digest"]).read_bytes()
            yield entry["annotations"]["org.opencontainers.image.ref.name"], data


class Later:
    """A client whose store has a clock that is an hour ahead, so that nothing in it is young."""

    def __init__(self, client: ObjectClient, *, is_shared: bool) -> None:
        self._client, self._is_shared = client, is_shared

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def now_ns(self) -> int:
        return self._client.now_ns() + HOUR_NS

    def stat(self, key: str) -> ObjectInfo | None:
        """Date kitcache's own objects by that clock: a sweep compares both."""
        info = self._client.stat(key)
        if info is None or "/kitcache/" not in f"/{key}":
            return info
        return info._replace(modified_ns=info.modified_ns + HOUR_NS)

    def close(self) -> None:
        if not self._is_shared:
            self._client.close()


def open_bucket(request: pytest.FixtureRequest) -> tuple[ObjectCache, ObjectClient, Any]:
    kind = request.param
    if kind in MEMORY:
        client = MemoryClient(has_versions="versioned" in kind, renews="azure" not in kind)
        bucket: Any = MemoryBucket(client, "t/")
        store_kind: Any = "azblob" if "azure" in kind else "s3"
        cache = ObjectCache(store_kind, "memory", "t/", "t/blobs/", ("t/manifests/",), 1)
        return cache, client, bucket
    bucket = request.getfixturevalue(kind)
    if kind in S3:
        clients = request.getfixturevalue("clients")
        if kind not in clients:
            clients[kind] = open_client(bucket), bucket.name
        client, name = clients[kind]
        bucket = bucket._replace(name=name, prefix=bucket.prefix or f"{bucket.name}/")
    else:
        client = open_client(bucket)
    parsed = parse_object_cache(bucket.attributes(), {})
    assert parsed is not None
    return parsed._replace(touch_refresh_ns=1), client, bucket


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, tuple[ObjectClient, str]]]:
    """The client of each S3 server, and its bucket. A client takes 0.1 s to create."""
    opened: dict[str, tuple[ObjectClient, str]] = {}
    yield opened
    for client, _ in opened.values():
        client.close()


class ObjectExpected:
    names = ("dev", "main")
    inline = 2
    uploads = 0
    options = NO_GRACE
    no_roots = "there are blobs, and no object below"

    def readable(self, cache: Cache) -> Json:
        return cache.sample.layers[0]

    def damage_main(self, cache: Any) -> None:
        cache.bucket.put(cache.bucket.root_key("main"), b"no JSON")

    @pytest.fixture
    def cache(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Objects]:
        address, client, bucket = open_bucket(request)
        # A run that tested the store, and was long ago: Azure's blobs are old enough.
        state = LiveState((Run(0, 0, 3, 2, frozenset()),), client.now_ns())
        bucket.put(f"{bucket.prefix}kitcache/live", encode_state(state))
        later: Any = Later(client, is_shared=request.param in S3)
        with ObjectStore(address, later) as store:
            objects = Objects(make_sample(tmp_path), bucket, store)
            objects.sync()
            if self.uploads:
                bucket.client.create_multipart_upload(
                    Bucket=bucket.name, Key=bucket.blob_key("sha256:" + "0" * 64)
                )
            yield objects

    @pytest.fixture
    def other(self, cache: Objects) -> Iterator[CollectableStore]:
        with closing(MemoryClient()) as client, ObjectStore(cache.store.cache, client) as store:
            yield store


@pytest.mark.parametrize("cache", [*MEMORY, *STORES], indirect=True)
class TestObjects(ObjectExpected, StoreLaws):
    """All of them."""


@pytest.mark.parametrize("cache", WITH_UPLOADS, indirect=True)
class TestUploads(ObjectExpected, UploadLaws):
    """An abandoned multipart upload is treated as an ingest directory of a cache directory."""

    uploads = 1

    def test_it_is_deleted_with_the_garbage(self, cache: Objects) -> None:
        StoreLaws.test_exactly_the_unreachable_blobs_are_deleted(self, cache)  # type: ignore[arg-type]
        assert cache.store.writer_activity().ingests == ()
