"""Cache directories to measure: valid OCI layouts, mostly unreachable blobs.

A tree of N blobs has tags of up to a hundred blobs (a manifest, a BuildKit cacheconfig, layers)
until the live share is reached; all other blobs are unreachable and have BLOB_BYTES bytes. Every
blob's name is its digest.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

BLOB_BYTES = 64
TAG_BLOBS = 100
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Tree(NamedTuple):
    """A tree: the directory, the number of all blobs, and the hex names of live blobs."""

    path: str
    blobs: int
    live: frozenset[str]

    @property
    def blob_dir(self) -> str:
        return os.path.join(self.path, "blobs", "sha256")


def make_tree(path: str, blobs: int, live: int) -> Tree:
    """Make a layout with a number of blobs at a path that does not exist yet.

    Live blobs are spread evenly among the others in creation order.
    """
    for folder in ("", "ingest", "blobs", "blobs/sha256"):
        os.mkdir(os.path.join(path, folder))
    reached, descriptors = _live_blobs(live)
    directory = os.open(os.path.join(path, "blobs", "sha256"), os.O_RDONLY | os.O_DIRECTORY)
    try:
        every = max(1, blobs // max(1, len(reached)))
        pending = list(reached.items())
        for number in range(blobs - len(reached)):
            if pending and number % every == 0:
                _write(directory, *pending.pop())
            data = _payload("garbage", number)
            _write(directory, hashlib.sha256(data).hexdigest(), data)
        for name, data in pending:
            _write(directory, name, data)
    finally:
        os.close(directory)
    _write_json(path, "oci-layout", {"imageLayoutVersion": "1.0.0"})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors}
    _write_json(path, "index.json", index)
    # Old times, as in a cache without a running export: otherwise a reset would wait for one.
    os.utime(os.path.join(path, "ingest"), (0, 0))
    return Tree(path, blobs, frozenset(reached))


def holes(path: str) -> list[str]:
    """Return the blobs that index.json reaches and that are missing or do not match."""
    with open(os.path.join(path, "index.json"), "rb") as file:
        roots = json.load(file)["manifests"]
    return [hole for root in roots for hole in _holes_below(path, root)]


def _holes_below(path: str, descriptor: dict[str, object]) -> Iterator[str]:
    digest = str(descriptor["digest"])
    try:
        with open(os.path.join(path, "blobs", *digest.split(":")), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        yield f"{digest} is gone"
        return
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest or len(data) != descriptor["size"]:
        yield f"{digest} has other bytes"
    elif descriptor["mediaType"] == MANIFEST:
        manifest = json.loads(data)
        for child in (manifest["config"], *manifest["layers"]):
            yield from _holes_below(path, child)


def _live_blobs(count: int) -> tuple[dict[str, bytes], list[dict[str, object]]]:
    """Return blobs by name, and the index entries that reach them: one tag per hundred blobs."""
    blobs: dict[str, bytes] = {}
    entries = []
    for first in range(0, count, TAG_BLOBS):
        layers = max(1, min(TAG_BLOBS, count - first) - 2)
        children = [_layer(blobs, first + offset) for offset in range(layers)]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _put(blobs, CACHECONFIG, _encode(_cacheconfig(children))),
            "layers": children,
        }
        entry = _put(blobs, MANIFEST, _encode(manifest))
        name = {"org.opencontainers.image.ref.name": f"tag-{first // TAG_BLOBS}"}
        entries.append(entry | {"annotations": name})
    return blobs, entries


def _layer(blobs: dict[str, bytes], number: int) -> dict[str, object]:
    """Return a layer's descriptor, with the annotation that BuildKit requires to load it."""
    described = _put(blobs, LAYER, _payload("layer", number))
    return described | {"annotations": {"containerd.io/uncompressed": described["digest"]}}


def _cacheconfig(layers: list[dict[str, object]]) -> dict[str, object]:
    return {
        "layers": [
            {"blob": layer["digest"], "parent": number - 1} for number, layer in enumerate(layers)
        ],
        "records": [
            {
                "digest": layer["digest"],
                "layers": [{"layer": number, "createdAt": "2026-08-01T12:00:00Z"}],
            }
            for number, layer in enumerate(layers)
        ],
    }


def _put(blobs: dict[str, bytes], media_type: str, data: bytes) -> dict[str, object]:
    name = hashlib.sha256(data).hexdigest()
    blobs[name] = data
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}


def _payload(kind: str, number: int) -> bytes:
    return f"{kind} {number} ".encode().ljust(BLOB_BYTES, b".")


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _write(directory: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444, dir_fd=directory)
    os.write(fd, data)
    os.close(fd)


def _write_json(path: str, name: str, value: object) -> None:
    with open(os.path.join(path, name), "wb") as file:
        file.write(_encode(value))
