"""A second opinion on what BuildKit could import from a directory. Nothing of kitcache is used.

It reads a tag as an import does: root, cacheconfig, then for each result the chain of its layers,
each of which has to be listed, annotated and whole. Everything is hashed, every time.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

REF_NAME = "org.opencontainers.image.ref.name"
CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"
UNCOMPRESSED = "containerd.io/uncompressed"
IMPORT_LIMIT_BYTES = 1024 * 1024


class Seen(NamedTuple):
    """A tag as an import finds it. digest: of its root. kind: cache, other, or gone.

    steps: of a cache, each result as (record, its layers, base first), and whether it can be had.
    is_whole: an import of a cache has all of it; of what is no cache every blob is right.
    """

    digest: str
    kind: str
    steps: dict[tuple[str, tuple[str, ...]], bool]
    is_whole: bool

    @property
    def importable(self) -> set[tuple[str, tuple[str, ...]]]:
        return {step for step, is_had in self.steps.items() if is_had}


def read_good(root: Path, digest: str) -> bytes | None:
    """A blob's bytes, None where it is missing or has other bytes."""
    algorithm, _, name = digest.partition(":")
    try:
        data = (root / "blobs" / algorithm / name).read_bytes()
    except OSError:
        return None
    return data if hashlib.new(algorithm, data).hexdigest() == name else None


def entries(root: Path) -> list[dict[str, Any]]:
    found = json.loads((root / "index.json").read_bytes())["manifests"]
    assert isinstance(found, list)
    return found


def name_of(entry: dict[str, Any]) -> str | None:
    name = (entry.get("annotations") or {}).get(REF_NAME)
    return name if isinstance(name, str) else None


def see_tags(root: Path) -> dict[str | None, Seen]:
    """Every entry of index.json by its tag."""
    return {name_of(entry): see(root, entry["digest"]) for entry in entries(root)}


def see(root: Path, digest: str) -> Seen:
    data = read_good(root, digest)
    if data is None:
        return Seen(digest, "gone", {}, False)
    manifest = json.loads(data)
    listed = manifest.get("layers") or manifest.get("manifests") or []
    configs = [manifest.get("config") or {}, *listed]
    configs = [config for config in configs if config.get("mediaType") == CACHECONFIG]
    if not configs:
        return Seen(digest, "other", {}, _is_whole(root, digest))
    config = read_good(root, configs[-1]["digest"])
    if config is None:
        return Seen(digest, "gone", {}, False)
    layers = [layer for layer in listed if layer.get("mediaType") != CACHECONFIG]
    steps = _steps(root, json.loads(config), {layer["digest"]: layer for layer in layers})
    is_small = max(len(data), len(config)) <= IMPORT_LIMIT_BYTES
    unneeded = all(read_good(root, layer["digest"]) is not None for layer in layers)
    return Seen(digest, "cache", steps, is_small and unneeded and all(steps.values()))


def _steps(
    root: Path, config: dict[str, Any], listed: dict[str, Any]
) -> dict[tuple[str, tuple[str, ...]], bool]:
    good = {
        digest
        for digest, layer in listed.items()
        if UNCOMPRESSED in (layer.get("annotations") or {}) and read_good(root, digest) is not None
    }
    layers = config.get("layers") or []
    steps = {}
    for record in config.get("records") or []:
        for result in record.get("layers") or []:
            chain = []
            at = result.get("layer", 0)
            while at != -1:
                chain.append(layers[at]["blob"])
                at = layers[at].get("parent", 0)
            key = record["digest"], tuple(reversed(chain))
            steps[key] = all(digest in good for digest in chain)
        for result in record.get("chains") or []:
            chain = [layers[at]["blob"] for at in result["layers"]]
            steps[record["digest"], tuple(chain)] = all(digest in good for digest in chain)
    return steps


def _is_whole(root: Path, digest: str) -> bool:
    data = read_good(root, digest)
    if data is None:
        return False
    try:
        document = json.loads(data)
    except ValueError:
        return True
    if not isinstance(document, dict) or "schemaVersion" not in document:
        return True
    below = [document.get("config"), *document.get("layers", []), *document.get("manifests", [])]
    return all(_is_whole(root, child["digest"]) for child in below if child)
