"""A check without a daemon: every blob matches its digest, and every tag has all its blobs.

It shares no code with kitcache, so a bug in kitcache cannot hide from it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

REF_NAME = "org.opencontainers.image.ref.name"


def read_tags(cache: Path) -> dict[str, set[str]]:
    """Return the digests that each tag of index.json reaches, whether they exist or not."""
    index = json.loads((cache / "index.json").read_bytes())
    return {
        entry.get("annotations", {}).get(REF_NAME, "(no tag)"): _reach(cache, entry)
        for entry in index["manifests"]
    }


def list_problems(cache: Path) -> list[str]:
    """Return one line for each fault of a cache; empty if all of it can be imported."""
    files = {f"sha256:{path.name}": path for path in (cache / "blobs" / "sha256").iterdir()}
    bad = [
        f"{digest} does not match its digest"
        for digest, path in files.items()
        if "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() != digest
    ]
    missing = [
        f"tag {tag} lacks {digest}"
        for tag, reached in read_tags(cache).items()
        for digest in sorted(reached - files.keys())
    ]
    return bad + missing


def find_shared_layer(cache: Path) -> str:
    """Return the layer that most tags reach."""
    reached = read_tags(cache).values()
    digests = sorted(set().union(*reached))
    layers = [digest for digest in digests if _document(cache, digest) is None]
    return max(layers, key=lambda digest: sum(digest in some for some in reached))


def _reach(cache: Path, descriptor: dict[str, Any]) -> set[str]:
    document = _document(cache, descriptor["digest"]) or {}
    listed = [*document.get("manifests", []), *document.get("layers", [])]
    below = [entry for entry in [*listed, document.get("config")] if entry and "digest" in entry]
    return {descriptor["digest"]}.union(*(_reach(cache, entry) for entry in below))


def _document(cache: Path, digest: str) -> dict[str, Any] | None:
    """Return the JSON object in a blob; None if it is a layer, or missing."""
    path = cache / "blobs" / digest.replace(":", "/")
    data = path.read_bytes() if path.exists() else b""
    if not data.startswith(b"{"):
        return None
    document = json.loads(data)
    return document if isinstance(document, dict) else None
