"""Rows: copy to and from a bucket of SeaweedFS, against `rclone copy` of the same files."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from bench.clock import BenchError, Missing, Side, alternate_runs
from bench.place import Place, discard, kitcache
from bench.table import Row, ratio_row
from tests.objects.buckets import ADMIN, REGION, S3Bucket, make_cacheconfig
from tests.objects.servers import BINARIES, ServerError, run_server, start_seaweed

_GOAL = 1.1
_BLOBS = 20
_BUCKET = "bench"
_VOLUME_MB = 1024
_SERVER_PORTS = 8


def copy_rows(place: Place) -> list[Row]:
    mib = place.sizes.copy_mib
    for program in ("weed", "rclone"):
        if not (BINARIES / program).exists():
            raise Missing(f"{program} is not installed")
    room = os.statvfs(place.tmpfs)
    if room.f_bavail * room.f_frsize < 3 * mib << 20:
        raise Missing(f"{mib:,} MiB need room in {place.tmpfs}")
    cache = _make_cache(place, mib)
    with _server() as bucket:
        rows = [
            _upload_row(place, bucket, cache, f"copy of {mib:,} MiB to S3"),
            _download_row(place, bucket, cache, f"copy of {mib:,} MiB from S3, tmpfs"),
        ]
    discard([cache])
    return rows


def _upload_row(place: Place, bucket: S3Bucket, cache: str, what: str) -> Row:
    def empty() -> None:
        if len(bucket.keys()) <= _BLOBS:
            raise BenchError("not all blobs were sent")
        _empty(bucket)

    sides = [
        Side("copy", lambda: kitcache("copy", cache, bucket.attributes(prefix="k/")), empty),
        Side("rclone", lambda: _rclone(bucket, cache, f":s3:{_BUCKET}/r"), empty),
    ]
    return _compare(place, sides, what)


def _download_row(place: Place, bucket: S3Bucket, cache: str, what: str) -> Row:
    for argv in (
        kitcache("copy", cache, bucket.attributes(prefix="k/")),
        _rclone(bucket, cache, f":s3:{_BUCKET}/r"),
    ):
        alternate_runs([Side("load", partial(list, argv))], rounds=1)
    out = os.path.join(place.tmpfs, "copied")

    def remove() -> None:
        if len(os.listdir(f"{out}/blobs/sha256")) < _BLOBS:
            raise BenchError("not all blobs were copied")
        discard([out])

    sides = [
        Side("copy", lambda: kitcache("copy", bucket.attributes(prefix="k/"), out), remove),
        Side("rclone", lambda: _rclone(bucket, f":s3:{_BUCKET}/r", out), remove),
    ]
    return _compare(place, sides, what)


def _compare(place: Place, sides: list[Side], what: str) -> Row:
    # The server works during every run, so the load of other processes says nothing.
    ours, theirs = alternate_runs(sides, rounds=place.sizes.copy_rounds)
    seconds = [[run.seconds for run in runs] for runs in (ours, theirs)]
    return ratio_row(what, seconds[0], "rclone copy", seconds[1], _GOAL)


def _rclone(bucket: S3Bucket, source: str, target: str) -> list[str]:
    options = {
        "config": "",
        "s3-provider": "SeaweedFS",
        "s3-endpoint": bucket.server.url,
        "s3-access-key-id": ADMIN.access,
        "s3-secret-access-key": ADMIN.secret,
        "s3-region": REGION,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [str(BINARIES / "rclone"), *flags, "copy", source, target]


@contextmanager
def _server() -> Iterator[S3Bucket]:
    """Yield a bucket of a server of its own. Raises Missing."""
    start = partial(start_seaweed, volume_mb=_VOLUME_MB)
    try:
        for server in run_server("seaweedfs", _SERVER_PORTS, start):
            with S3Bucket.open(server, _BUCKET) as bucket:
                bucket.create(attempts=40)
                yield bucket
    except ServerError as error:
        raise Missing(f"weed does not start: {error}") from None


def _empty(bucket: S3Bucket) -> None:
    for key in sorted(bucket.keys()):
        bucket.remove(key)


def _make_cache(place: Place, mib: int) -> str:
    """Make a local cache with one tag of twenty layers."""
    path = place.fresh(place.tmpfs)
    os.makedirs(f"{path}/blobs/sha256")
    bulk = os.urandom((mib << 20) // _BLOBS - 8)
    layers = [number.to_bytes(8, "big") + bulk for number in range(_BLOBS)]
    document = json.loads(make_cacheconfig(layers))
    facts = [layer.pop("annotations") for layer in document["layers"]]
    config = _write_blob(path, json.dumps(document).encode())
    listed = [
        {
            **_write_blob(path, data),
            "mediaType": fact["mediaType"],
            "annotations": {"containerd.io/uncompressed": fact["diffID"]},
        }
        for data, fact in zip(layers, facts, strict=True)
    ]
    config["mediaType"] = "application/vnd.buildkit.cacheconfig.v0"
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": listed}
    root = _write_blob(path, json.dumps(manifest).encode())
    root |= {"mediaType": manifest_type}
    root |= {"annotations": {"org.opencontainers.image.ref.name": "main"}}
    for name, value in (
        ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ("index.json", {"schemaVersion": 2, "manifests": [root]}),
    ):
        with open(f"{path}/{name}", "w", encoding="ascii") as file:
            json.dump(value, file)
    return path


def _write_blob(path: str, data: bytes) -> dict[str, object]:
    name = hashlib.sha256(data).hexdigest()
    with open(f"{path}/blobs/sha256/{name}", "wb") as file:
        file.write(data)
    return {"digest": f"sha256:{name}", "size": len(data)}
