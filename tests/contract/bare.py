"""A MemoryStore with the roots of an object store: cacheconfigs that no manifest references."""

import hashlib
import json
from collections.abc import Mapping

from kitcache.oci.digest import Digest
from kitcache.oci.links import CACHECONFIG
from tests.contract.memory import Blob, MemoryStore
from tests.objects.buckets import read_fixture

REF_NAME = "org.opencontainers.image.ref.name"


def sha256(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def fill(store: MemoryStore, objects: Mapping[str, bytes]) -> MemoryStore:
    """Fill the store as a bucket with these keys looks through the storage seam."""
    store.blobs_are_leaves, store.roots_name = True, "manifests/"
    written_ns = store.clock_ns - 30 * 24 * 3600 * 10**9
    entries = []
    for key, data in objects.items():
        digest = sha256(data)
        if key.startswith("blobs/"):
            store.blobs[digest] = Blob(data, written_ns, written_ns)
            continue
        store.inline[digest] = Blob(data, written_ns, written_ns)
        name = {REF_NAME: key.removeprefix("manifests/")}
        entries.append(
            {
                "mediaType": CACHECONFIG,
                "digest": str(digest),
                "size": len(data),
                "annotations": name,
            }
        )
    store.index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return store


def load_bare(kind: str = "s3") -> MemoryStore:
    """The cache that BuildKit wrote to S3, or to Azure."""
    return fill(MemoryStore(), read_fixture(kind))
