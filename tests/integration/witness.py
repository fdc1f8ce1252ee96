"""A second opinion on a layout: what is there, what index.json reaches, what is missing.

Written without a look at kitcache's own marking, and simpler: whatever a descriptor points at is
read, rehashed, and searched for more. It is told what the makers of these tests write, no more.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"
STRUCTURE = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    CACHECONFIG,
)


class Sight(NamedTuple):
    """All that one walk from index.json saw, as digests."""

    reached: frozenset[str]
    missing: frozenset[str]


def blobs(layout: Path) -> dict[str, int]:
    """Size by digest of each file under blobs/sha256."""
    found = (layout / "blobs" / "sha256").iterdir()
    return {f"sha256:{path.name}": path.stat().st_size for path in found}


def entries(layout: Path) -> list[dict[str, Any]]:
    """The entries of index.json."""
    listed = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert isinstance(listed, list)
    return listed


def ref_name(entry: dict[str, Any]) -> str | None:
    """The tag of an entry, or None."""
    return (entry.get("annotations") or {}).get("org.opencontainers.image.ref.name")


def look(layout: Path) -> Sight:
    """Walks from every entry of index.json."""
    return _walk(layout, entries(layout))


def look_at(layout: Path, entry: dict[str, Any]) -> Sight:
    """Walks from one entry of index.json."""
    return _walk(layout, [entry])


def garbage(layout: Path) -> dict[str, int]:
    """Size by digest of each blob that no entry of index.json reaches."""
    reached = look(layout).reached
    return {digest: size for digest, size in blobs(layout).items() if digest not in reached}


def blob_path(layout: Path, digest: str) -> Path:
    """Where the layout keeps a blob."""
    return layout / "blobs" / digest.replace(":", "/")


def _walk(layout: Path, descriptors: list[dict[str, Any]]) -> Sight:
    reached: set[str] = set()
    missing: set[str] = set()
    waiting = list(descriptors)
    while waiting:
        descriptor = waiting.pop()
        digest = descriptor["digest"]
        if digest in reached or digest in missing:
            continue
        path = blob_path(layout, digest)
        if not path.exists():
            missing.add(digest)
            continue
        data = path.read_bytes()
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest, f"{path} is torn"
        assert len(data) == descriptor.get("size", len(data)), f"{path} has another size"
        reached.add(digest)
        if descriptor.get("mediaType") in STRUCTURE:
            waiting.extend(_children(json.loads(data)))
    return Sight(frozenset(reached), frozenset(missing))


def _children(document: dict[str, Any]) -> list[dict[str, Any]]:
    if "records" in document:  # a cacheconfig
        return [{"digest": layer["blob"]} for layer in document["layers"]]
    single = [document[key] for key in ("config", "subject") if document.get(key)]
    return [*document.get("manifests", []), *document.get("layers", []), *single]
