"""A cache whose steps are known: a stage that is old, one that is new, and what copies from both.

Two tags share the old stage, a third is an image, and there is garbage.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.hostile.build import (
    CACHECONFIG,
    IMAGE_CONFIG,
    INDEX,
    MANIFEST,
    REF_NAME,
    Box,
    Json,
    digest_of,
)

# A step, the second of 1970 at which it was made, and the steps that it was made from.
Step = tuple[str, int, tuple[str, ...]]

OLD: tuple[Step, ...] = (
    ("base", 1, ()),
    ("old 1", 2, ("base",)),
    ("old 2", 3, ("old 1",)),
    ("copy old", 4, ("base", "old 2")),
)
MAIN: tuple[Step, ...] = (
    *OLD,
    ("new 1", 40, ("base",)),
    ("new 2", 41, ("new 1",)),
    ("copy new", 42, ("copy old", "new 2")),
    ("result", 43, ("copy new",)),
)
DEV: tuple[Step, ...] = (*OLD, ("other", 50, ("copy old",)))
AS_THEY_GO = ("result", "copy new", "copy old", "old 2", "old 1", "new 2", "new 1", "base")
"""The steps of MAIN, coldest first."""
LAYER_BYTES = 5000


class Stages(NamedTuple):
    """The cache on disk, its entries, and its live and dead blobs by the names of their files."""

    box: Box
    main: Json
    dev: Json
    image: Json
    live: frozenset[str]
    garbage: frozenset[str]

    @property
    def dir(self) -> Path:
        return self.box.dir

    def bytes_of(self, *descriptors: Json) -> int:
        """All that these reach, each blob once."""
        return sum(self.box.path_of(digest).stat().st_size for digest in reached(self, descriptors))


def record_of(name: str) -> str:
    return digest_of(f"step {name}".encode())


def layer_of(name: str) -> str:
    return digest_of(_layer_bytes(name))


def _layer_bytes(name: str) -> bytes:
    return f"layer of {name}, ".encode().ljust(LAYER_BYTES, b"x")


def cacheconfig_of(steps: Sequence[Step]) -> Json:
    """As BuildKit's: each step's layer lies on that of the first step that it was made from."""
    names = [name for name, _, _ in steps]
    records: list[Any] = []
    for at, (name, second, sources) in enumerate(steps):
        made = {"layer": at, "createdAt": f"1970-01-01T00:00:{second:02}Z"}
        record: Json = {"digest": record_of(name), "layers": [made]}
        if sources:
            record["inputs"] = [[{"link": names.index(source)}] for source in sources]
        records.append(record)
    layers = [
        {"blob": layer_of(name), "parent": names.index(sources[0]) if sources else -1}
        for name, _, sources in steps
    ]
    return {"layers": layers, "records": records}


def put_cache(box: Box, steps: Sequence[Step], *, is_index: bool = False) -> Json:
    """A cache of these steps, in one of its forms; the descriptor of its root."""
    layers = [box.blob(_layer_bytes(name)) for name, _, _ in steps]
    config = box.document(cacheconfig_of(steps), CACHECONFIG)
    if is_index:
        return box.index_of([*layers, config])
    return box.manifest(layers, config)


def make_stages(top: Path, *, is_index: bool = False) -> Stages:
    """The cache in top/cache. Tags: main, dev, and image."""
    box = Box(top)
    main = put_cache(box, MAIN, is_index=is_index)
    dev = put_cache(box, DEV, is_index=is_index)
    config = box.document({"os": "linux", "architecture": "amd64"}, IMAGE_CONFIG)
    image = box.manifest([box.blob(b"root of the image " * 30)], config)
    live = frozenset(path.name for path in (box.dir / "blobs" / "sha256").iterdir())
    for n in range(3):
        box.blob(b"garbage %d " % n * 20)
    every = frozenset(path.name for path in (box.dir / "blobs" / "sha256").iterdir())
    for name, root in (("main", main), ("dev", dev), ("image", image)):
        box.tag(name, root)
    return Stages(box, main, dev, image, live, every - live)


def reached(stages: Stages, descriptors: Sequence[Json]) -> set[str]:
    """The digests of all that these roots reach."""
    found: set[str] = set()
    todo = list(descriptors)
    while todo:
        one = todo.pop()
        found.add(one["digest"])
        if one["mediaType"] in (INDEX, MANIFEST):
            root = json.loads(stages.box.path_of(one["digest"]).read_bytes())
            todo += [*root.get("layers", []), *root.get("manifests", [])]
            todo += [root["config"]] if "config" in root else []
    return found


def entries(cache: Path) -> dict[str | None, Json]:
    """The entries of index.json by tag, the last one of each."""
    listed = json.loads((cache / "index.json").read_bytes())["manifests"]
    return {entry.get("annotations", {}).get(REF_NAME): entry for entry in listed}


def steps_in(cache: Path, entry: Json) -> list[str]:
    """The names of the steps that have a result in the cache of an entry."""
    path = cache / "blobs" / entry["digest"].replace(":", "/")
    root = json.loads(path.read_bytes())
    config = root.get("config") or root["manifests"][-1]
    document = json.loads((cache / "blobs" / config["digest"].replace(":", "/")).read_bytes())
    names = {record_of(name): name for name, _, _ in (*MAIN, *DEV)}
    return [names[r["digest"]] for r in document["records"] if r.get("layers") or r.get("chains")]
