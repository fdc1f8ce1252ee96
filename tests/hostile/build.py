"""Writes cache directories byte by byte, whole or damaged. Nothing of kitcache is used.

A `Box` is a directory with the cache in it and bystanders beside it: whatever a command
does outside the cache shows as a difference of two snapshots of the box.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'

Json = dict[str, Any]


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def short(digest: str) -> str:
    """As much of a digest as a message has to show for a person to find the file."""
    return digest.partition(":")[2][:12]


class Box:
    """One cache directory under construction, in a box of its own."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.dir = top / "cache"
        self.entries: list[Json] = []
        (self.dir / "blobs" / "sha256").mkdir(parents=True)
        (self.dir / "ingest").mkdir()
        (self.dir / "oci-layout").write_bytes(LAYOUT)
        neighbour = top / "neighbour" / "blobs" / "sha256"
        neighbour.mkdir(parents=True)
        (neighbour / ("5" * 64)).write_text("another cache's blob")
        (top / "bystander").write_text("a file beside")

    def path_of(self, digest: str) -> Path:
        algorithm, _, name = digest.partition(":")
        return self.dir / "blobs" / algorithm / name

    def blob(self, data: bytes, media_type: str = LAYER, algorithm: str = "sha256") -> Json:
        """A blob on disk, 0444 and an hour old, and the descriptor of it."""
        digest = digest_of(data, algorithm)
        path = self.path_of(digest)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o444)
            hour_ago = path.stat().st_mtime - 3600
            os.utime(path, (hour_ago, hour_ago))
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def document(self, value: Json, media_type: str) -> Json:
        return self.blob(encode(value), media_type)

    def manifest(self, layers: list[Json], config: Json | None = None, **more: Any) -> Json:
        """A cache manifest over layers; the cacheconfig says what BuildKit's would."""
        if config is None:
            config = self.cacheconfig(layers)
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        return self.document(body | more, MANIFEST)

    def cacheconfig(self, layers: list[Json]) -> Json:
        listed = [
            {"blob": layer["digest"], "parent": place - 1} for place, layer in enumerate(layers)
        ]
        return self.document({"layers": listed, "records": []}, CACHECONFIG)

    def index_of(self, entries: list[Json], **more: Any) -> Json:
        body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        return self.document(body | more, INDEX)

    def tag(self, name: str | None, descriptor: Json) -> None:
        """An entry of index.json for what is in the store; written at once."""
        named = {} if name is None else {"annotations": {REF_NAME: name}}
        self.entries.append(descriptor | named)
        self.write_index(encode(self.index_document()))

    def index_document(self) -> Json:
        return {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.entries}

    def write_index(self, data: bytes) -> None:
        """index.json as these bytes, an hour old: no export is about to publish."""
        path = self.dir / "index.json"
        path.write_bytes(data)
        hour_ago = (self.dir / "ingest").stat().st_mtime + 1
        os.utime(path, (hour_ago, hour_ago))

    def damage(self, digest: str, data: bytes | None) -> None:
        """Other bytes where a blob is, or no file at all."""
        path = self.path_of(digest)
        path.chmod(0o644)
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)

    def ingest(self, ref: str, age_s: float = 7200, data: bytes = b"half a blob") -> str:
        """An upload that was left behind; its name under ingest/."""
        name = hashlib.sha256(ref.encode()).hexdigest()
        folder = self.dir / "ingest" / name
        folder.mkdir()
        for field, content in {"ref": ref.encode(), "total": b"100", "data": data}.items():
            (folder / field).write_bytes(content)
        for path in [*folder.iterdir(), folder, folder.parent]:
            then = path.stat().st_mtime - age_s
            os.utime(path, (then, then))
        return name


class Sample(NamedTuple):
    """A sound cache: two tags with two layers each, one of them shared, and four dead blobs."""

    box: Box
    main: Json
    dev: Json
    layers: tuple[Json, Json, Json]
    live: frozenset[str]
    garbage: frozenset[str]

    @property
    def dir(self) -> Path:
        return self.box.dir


def make_sample(top: Path) -> Sample:
    """The sample in top/cache. Tags: main (layers 0 and 1), dev (layers 1 and 2)."""
    box = Box(top)
    layers = tuple(box.blob(f"layer {n}".encode() * 20) for n in range(3))
    main = box.manifest(list(layers[:2]))
    dev = box.manifest(list(layers[1:]))
    live = frozenset(path.name for path in (box.dir / "blobs" / "sha256").iterdir())
    old = [box.blob(f"old layer {n}".encode() * 30) for n in range(2)]
    box.manifest(old)
    every = frozenset(path.name for path in (box.dir / "blobs" / "sha256").iterdir())
    box.tag("main", main)
    box.tag("dev", dev)
    return Sample(box, main, dev, (layers[0], layers[1], layers[2]), live, every - live)
