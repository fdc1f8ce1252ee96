"""Caches as builds leave them: steps on steps, layers that tags share, older exports as garbage.

What is drawn is a value; `write` puts it on a disk as BuildKit would have.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.property.importer import CACHECONFIG, REF_NAME, UNCOMPRESSED

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"

Json = dict[str, Any]


class Step(NamedTuple):
    """A step of a build. parents: numbers of the steps before it; its layer lies on the first's."""

    layer: int
    parents: tuple[int, ...]


class Built(NamedTuple):
    """An export. kind: manifest, index (the other form of a cache) or image."""

    kind: str
    steps: tuple[Step, ...]


class Grown(NamedTuple):
    """A cache that grew. exports: each with its tag, in order, so that the last of a tag counts."""

    exports: tuple[tuple[str, Built], ...]

    @property
    def current(self) -> dict[str, Built]:
        return dict(self.exports)


class Written(NamedTuple):
    """What is on the disk. indexes: index.json as it was after each export."""

    root: Path
    digests: dict[str, str]
    indexes: tuple[bytes, ...]


@st.composite
def builds(draw: st.DrawFn) -> Built:
    count = draw(st.sampled_from([6, 4, 5, 3, 2, 1]))
    steps = []
    for number in range(count):
        parents = st.lists(st.integers(0, number - 1), max_size=2, unique=True)
        chosen = draw(parents) if number else []
        steps.append(Step(draw(st.integers(0, 20)), tuple(chosen)))
    kind = draw(st.sampled_from(["manifest", "index", "manifest", "manifest", "image"]))
    return Built(kind, tuple(steps))


@st.composite
def grown(draw: st.DrawFn) -> Grown:
    """One to five exports to up to three tags; now and then two tags have one root."""
    pool = draw(st.lists(builds(), min_size=1, max_size=4))
    tags = st.sampled_from(["main", "dev", "pr-1"])
    exports = draw(st.lists(st.tuples(tags, st.sampled_from(pool)), min_size=1, max_size=5))
    return Grown(tuple(exports))


@contextmanager
def on_disk(cache: Grown) -> Iterator[Written]:
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="kitcache-test-", dir=place) as box:
        yield write(cache, Path(box, "cache"))


def write(cache: Grown, root: Path) -> Written:
    (root / "blobs" / "sha256").mkdir(parents=True)
    (root / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    entries: dict[str, Json] = {}
    indexes = []
    for tag, built in cache.exports:
        entries.pop(tag, None)
        entries[tag] = put_export(root, built) | {"annotations": {REF_NAME: tag}}
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*entries.values()]}
        indexes.append(encode(document))
    (root / "index.json").write_bytes(indexes[-1])
    digests = {tag: entry["digest"] for tag, entry in entries.items()}
    return Written(root, digests, tuple(indexes))


def put_export(root: Path, built: Built) -> Json:
    """The blobs of an export, and the descriptor of its root."""
    chains: list[tuple[str, ...]] = []
    for step in built.steps:
        below = chains[step.parents[0]] if step.parents else ()
        chains.append((*below, f"{'/'.join(below)[-64:]}:{step.layer}"))
    names = list(dict.fromkeys(name for chain in chains for name in chain))
    layers = [put_layer(root, name) for name in names]
    if built.kind == "image":
        config = put(root, encode({"os": "linux", "history": names}), CONFIG)
    else:
        config = put(root, encode(_config(built, chains, names, layers)), CACHECONFIG)
    if built.kind == "index":
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*layers, config]}
        return put(root, encode(document), INDEX)
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    return put(root, encode(document), MANIFEST)


def _config(
    built: Built, chains: list[tuple[str, ...]], names: list[str], layers: list[Json]
) -> Json:
    parent = {
        chain[at]: chain[at - 1] if at else None for chain in chains for at in range(len(chain))
    }
    listed = []
    for name, layer in zip(names, layers, strict=True):
        below = parent[name]
        listed.append(
            {"blob": layer["digest"], "parent": -1 if below is None else names.index(below)}
        )
    records = []
    for number, step in enumerate(built.steps):
        made = {"layer": names.index(chains[number][-1]), "createdAt": _day(number)}
        record: Json = {
            "digest": digest_of(f"{chains[number]} {number}".encode()),
            "layers": [made],
        }
        if step.parents:
            record["inputs"] = [[{"link": link}] for link in step.parents]
        records.append(record)
    return {"layers": listed, "records": records}


def _day(number: int) -> str:
    return f"2026-06-{number + 1:02}T10:00:00.5Z"


def put_layer(root: Path, name: str) -> Json:
    data = f"layer {name} ".encode() * 9
    annotations = {UNCOMPRESSED: digest_of(b"tar of " + data)}
    return put(root, data, LAYER) | {"annotations": annotations}


def put(root: Path, data: bytes, media_type: str) -> Json:
    digest = digest_of(data)
    path = root / "blobs" / digest.replace(":", "/")
    if not path.exists():
        path.write_bytes(data)
        path.chmod(0o444)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encode(document: Json) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
