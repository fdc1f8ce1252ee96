"""Proof without a daemon: every blob is what its name says, and every tag finds all its blobs.

It shares no code with kitcache: a second opinion that trusted the first would be none.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

REF_NAME = "org.opencontainers.image.ref.name"


def tags_of(cache: Path) -> dict[str, set[str]]:
    """For each tag of index.json, the digests that it reaches, whether they are there or not."""
    index = json.loads((cache / "index.json").read_bytes())
    return {
        entry.get("annotations", {}).get(REF_NAME, "(no tag)"): _reach(cache, entry)
        for entry in index["manifests"]
    }


def problems(cache: Path) -> list[str]:
    """List what is wrong with a cache, a line each; empty where all of it would import."""
    files = {f"sha256:{path.name}": path for path in (cache / "blobs" / "sha256").iterdir()}
    torn = [
        f"{digest} holds other bytes than its name says"
        for digest, path in files.items()
        if "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() != digest
    ]
    gone = [
        f"tag {tag} lacks {digest}"
        for tag, reached in tags_of(cache).items()
        for digest in sorted(reached - files.keys())
    ]
    return torn + gone


def a_shared_layer(cache: Path) -> str:
    """Find the layer that most tags reach: a good one to ask about."""
    reached = tags_of(cache).values()
    digests = sorted(set().union(*reached))
    layers = [digest for digest in digests if _document(cache, digest) is None]
    return max(layers, key=lambda digest: sum(digest in some for some in reached))


def _reach(cache: Path, descriptor: dict[str, Any]) -> set[str]:
    document = _document(cache, descriptor["digest"]) or {}
    listed = [*document.get("manifests", []), *document.get("layers", [])]
    below = [entry for entry in [*listed, document.get("config")] if entry and "digest" in entry]
    return {descriptor["digest"]}.union(*(_reach(cache, entry) for entry in below))


def _document(cache: Path, digest: str) -> dict[str, Any] | None:
    """Read the JSON object that a blob is; None where it is a layer, or not there."""
    path = cache / "blobs" / digest.replace(":", "/")
    data = path.read_bytes() if path.exists() else b""
    if not data.startswith(b"{"):
        return None
    document = json.loads(data)
    return document if isinstance(document, dict) else None
