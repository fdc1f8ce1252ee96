"""Helpers of the tests of copy: buckets in memory, and the check that a bucket is complete."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kitcache.oci.digest import parse_digest
from kitcache.store.objects.client import ObjectClient
from tests.hostile.build import Box, Json, digest_of
from tests.hostile.importable import UNCOMPRESSED, add_cache
from tests.objects.memory import MemoryClient

DAY_NS = 24 * 3600 * 10**9
TIMES = "buildkit/createdat"


class Buckets:
    """Buckets in memory, by name. An address names one with the prefix ci/."""

    def __init__(self) -> None:
        self._clients: dict[str, MemoryClient] = {}

    def open(self, cache: Any) -> ObjectClient:
        """Return the client of the bucket that the ObjectCache names."""
        client = self.bucket(cache.bucket)
        client.address = f"s3://{cache.bucket}/ci/"
        return client

    def bucket(self, name: str) -> MemoryClient:
        return self._clients.setdefault(name, MemoryClient())


def address(name: str, **more: str) -> str:
    attrs = {"type": "s3", "region": "r", "bucket": name, "prefix": "ci/"} | more
    return ",".join(f"{key}={value}" for key, value in attrs.items())


def blob_key(digest: str) -> str:
    return f"ci/blobs/{digest}"


def root_key(name: str) -> str:
    return f"ci/manifests/{name}"


def get(client: MemoryClient, key: str) -> bytes | None:
    versions = client.versions.get(key)
    return versions[-1][1] if versions else None


def put(client: MemoryClient, key: str, data: bytes) -> None:
    client._put(key, data)


def roots(client: MemoryClient) -> dict[str, bytes]:
    """The bytes of each root, by its name."""
    start = root_key("")
    return {
        key[len(start) :]: held[-1][1]
        for key, held in client.versions.items()
        if key.startswith(start)
    }


def check_complete(client: MemoryClient) -> None:
    """Every blob of a bucket matches its name, and no root names a missing blob."""
    start = blob_key("")
    for key, held in client.versions.items():
        if key.startswith(start):
            assert parse_digest(key[len(start) :]).matches(held[-1][1]), key
    for name, data in roots(client).items():
        for layer in json.loads(data).get("layers", ()):
            blob = get(client, blob_key(layer["blob"]))
            assert blob is not None, f"{name} lacks {layer['blob']}"
            assert len(blob) == layer["annotations"]["size"]


def layer(box: Box, data: bytes, **annotations: str) -> Json:
    """A layer with all facts that an object store needs."""
    diff_id = f"sha256:{hashlib.sha256(b'tar of ' + data).hexdigest()}"
    facts = {TIMES: "2026-06-01T10:00:00.5Z", UNCOMPRESSED: diff_id} | annotations
    return box.blob(data) | {"annotations": facts}


def make_cache(top: Path, tags: dict[str, Iterable[bytes]], *, as_index: bool = False) -> Box:
    """A cache directory with these tags, each with these layers."""
    top.mkdir(parents=True)
    box = Box(top)
    box.write_index(json.dumps(box.index_document()).encode())
    for tag, layers in tags.items():
        add_cache(box, tag, [layer(box, data) for data in layers], as_index=as_index)
    return box


def large_root(steps: int) -> bytes:
    """A cacheconfig of an object store with many long records."""
    data, facts = b"layer", {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
    facts |= {"diffID": digest_of(b"tar"), "createdAt": "2026-06-01T10:00:00Z"}
    records = [
        {
            "digest": digest_of(b"%d" % n),
            "layers": [{"layer": 0, "createdAt": f"2026-06-01T10:00:00.{n:06}Z"}],
            "inputs": [[{"link": n - 1, "selector": "s" * 400}]] if n else [],
        }
        for n in range(steps)
    ]
    described = {"blob": digest_of(data), "parent": -1, "annotations": {**facts, "size": len(data)}}
    return json.dumps({"layers": [described], "records": records}).encode()
