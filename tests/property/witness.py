"""Judges a real directory without kitcache and without a model: is every tag whole?

For the tests that kill and race, where no model knows what is on disk. It opens a blob when its
bytes are a JSON object and no descriptor calls it a layer or a config, or when it stands where an
image's manifest stands; and believes nothing whose digest is wrong.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.property.disk import REF_NAME, blob_path, blobs
from tests.property.model import CACHECONFIG, LEAF_TYPES


class Hole(NamedTuple):
    """Something that index.json reaches and that is not there as its digest says."""

    ref_name: str | None
    digest: str
    problem: str  # missing, wrong-digest


class Picture(NamedTuple):
    reached: frozenset[str]
    holes: tuple[Hole, ...]


def look(root: Path) -> Picture:
    """All that index.json reaches on disk, and every hole in it. A torn index.json raises."""
    below = [look_below(root, entry) for entry in entries(root)]
    return Picture(
        frozenset(digest for picture in below for digest in picture.reached),
        tuple(hole for picture in below for hole in picture.holes),
    )


def entries(root: Path) -> list[dict[str, Any]]:
    """The entries of index.json. A torn index.json raises."""
    listed: list[dict[str, Any]] = json.loads((root / "index.json").read_bytes())["manifests"]
    return listed


def look_below(root: Path, entry: dict[str, Any]) -> Picture:
    """All that one entry reaches, whether or not index.json has it."""
    ref_name = entry.get("annotations", {}).get(REF_NAME)
    reached: set[str] = set()
    holes: list[Hole] = []
    waiting = [(entry, True)]
    seen: set[tuple[str, str, bool]] = set()
    while waiting:
        descriptor, is_entry = waiting.pop()
        key = descriptor["digest"], descriptor.get("mediaType", ""), is_entry
        if key in seen:
            continue
        seen.add(key)
        reached.add(key[0])
        data, problem = _read(root, key[0])
        if problem:
            holes.append(Hole(ref_name, key[0], problem))
        elif is_entry or key[1] not in LEAF_TYPES:
            waiting.extend(_named_in(data))
    return Picture(frozenset(reached), tuple(holes))


def holes(root: Path) -> tuple[Hole, ...]:
    return look(root).holes


def garbage(root: Path) -> frozenset[str]:
    return blobs(root) - look(root).reached


def _read(root: Path, digest: str) -> tuple[bytes, str]:
    algorithm, _, hexadecimal = digest.partition(":")
    try:
        data = blob_path(root, digest).read_bytes()
    except FileNotFoundError:
        return b"", "missing"
    lies = hashlib.new(algorithm, data).hexdigest() != hexadecimal
    return data, "wrong-digest" if lies else ""


def _named_in(data: bytes) -> Iterator[tuple[dict[str, Any], bool]]:
    try:
        document = json.loads(data)
    except ValueError:
        return
    if not isinstance(document, dict):
        return
    for key in ("manifests", "layers", "blobs", "config", "subject", "fsLayers"):
        value = document.get(key)
        items = value if isinstance(value, list) else [value]
        listed = [one for one in items if isinstance(one, dict)]
        is_cache = any(one.get("mediaType") == CACHECONFIG for one in listed)
        for one in listed:
            if isinstance(one.get("digest"), str):
                yield one, key == "manifests" and not is_cache
            for bare in ("blob", "blobSum"):
                if isinstance(one.get(bare), str):
                    yield {"digest": one[bare], "mediaType": "bare"}, False
