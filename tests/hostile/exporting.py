"""Exports caches into a directory, as a build does, without a daemon. A program of its own.

exporting.py DIR TAG SEED ROUNDS [--pinned]: each round exports a cache that shares some layers with
those of other seeds, publishes it, and resets. --pinned: names that are random otherwise are the
same in each run, so that a kill can name them.
"""

import hashlib
import json
import os
import random
import sys
from typing import NamedTuple

from kitcache.buildkit.caches import Caches, open_caches
from kitcache.buildkit.publish import CacheResult
from kitcache.buildkit.session.stores import IncomingBlob, WritableContentStore
from kitcache.oci.digest import parse_digest
from kitcache.options.caches import CacheExport
from kitcache.upkeep.jobcaches import LockOptions

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Blob(NamedTuple):
    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    @property
    def descriptor(self) -> dict[str, str | int]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


def make_blobs(rng: random.Random, layers: int = 6) -> list[Blob]:
    """Layers that others have too, some of one's own, the cacheconfig, the manifest."""
    shared = [Blob(LAYER, b"shared %d " % n * 40) for n in rng.sample(range(9), layers // 2)]
    own = [Blob(LAYER, rng.randbytes(3000)) for _ in range(layers - len(shared))]
    listed = [{"blob": blob.digest, "parent": -1} for blob in shared + own]
    config = Blob(CACHECONFIG, json.dumps({"layers": listed, "records": []}).encode())
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor,
        "layers": [blob.descriptor for blob in shared + own],
    }
    return [*shared, *own, config, Blob(MANIFEST, json.dumps(body).encode())]


def send(caches: Caches, blobs: list[Blob]) -> None:
    for store in caches.stores.values():
        assert isinstance(store, WritableContentStore)
        for blob in blobs:
            ref = blob.digest if blob.media_type != LAYER else f"layer-{blob.digest}"
            begun = store.begin(ref, len(blob.data), parse_digest(blob.digest))
            if isinstance(begun, IncomingBlob):
                half = len(blob.data) // 2
                begun.write(memoryview(blob.data)[:half])
                begun.write(memoryview(blob.data)[half:])
                begun.commit(len(blob.data), parse_digest(blob.digest))
                begun.close()


def export(path: str, tag: str, blobs: list[Blob]) -> tuple[CacheResult, ...]:
    wanted = CacheExport("local", dest=path, tag=tag, reset=True)
    with open_caches([wanted], (), LockOptions(30.0, None, lambda _: None)) as caches:
        send(caches, blobs)
        return caches.publish()


def main(path: str, tag: str, seed: str, rounds: str, pinned: str = "") -> None:
    rng = random.Random(int(seed))
    if pinned:
        os.urandom = random.Random(0).randbytes
    for _ in range(int(rounds)):
        for result in export(path, tag, make_blobs(rng)):
            outcome = result.reset.outcome if result.reset else "no reset"
            sys.stdout.write(f"{result.outcome} {outcome} {result.problem}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
