"""Puts a model cache on a disk, looks at a disk again, and damages it. Nothing of kitcache."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.property.model import Cache, Entry, Ingest

OURS = frozenset({"kitcache.lock", "index.json.lock"})
REF_NAME = "org.opencontainers.image.ref.name"


@contextmanager
def fast_directory() -> Iterator[Path]:
    """A directory that is gone afterwards: on tmpfs, which syncs nothing, where there is one."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="kitcache-test-", dir=place) as name:
        yield Path(name)


@contextmanager
def on_disk(cache: Cache, order: Sequence[str] | None = None) -> Iterator[Path]:
    """The cache in a directory of its own, which is gone afterwards.

    On tmpfs the order of creation is the order of reading.
    """
    with fast_directory() as box:
        root = box / "cache"
        root.mkdir()
        write(cache, root, order)
        yield root


def write(cache: Cache, root: Path, order: Sequence[str] | None = None) -> None:
    """Blobs in the given order of digests, then all else, dated as the model says."""
    now_s = time.time()
    (root / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (root / "blobs").mkdir(exist_ok=True)
    for digest in sorted(cache.present) if order is None else order:
        put_blob(root, digest, cache.nodes[digest].data, now_s - cache.ages_s[digest])
    write_foreign(cache, root)
    for ingest in cache.ingests:
        put_ingest(root, ingest, now_s)
    write_index(root, cache.entries)
    os.utime(root / "index.json", (now_s - 3600, now_s - 3600))
    settle(root)


def put_blob(root: Path, digest: str, data: bytes, mtime_s: float) -> Path:
    path = blob_path(root, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, (mtime_s, mtime_s))
    return path


def put_ingest(root: Path, ingest: Ingest, now_s: float) -> Path:
    """As containerd's content store leaves it: ref, startedat, updatedat, total, data."""
    folder = root / "ingest" / ingest.name
    folder.mkdir(parents=True)
    when_s = now_s - ingest.age_s
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000001Z", time.gmtime(when_s)).encode()
    written = {
        "ref": ingest.ref.encode(),
        "startedat": stamp,
        "updatedat": stamp,
        "total": b"%d" % (2 * len(ingest.data)),
        "data": ingest.data,
    }
    for name, data in written.items():
        (folder / name).write_bytes(data)
        os.utime(folder / name, (when_s, when_s))
    os.utime(folder, (when_s, when_s))
    return folder


def write_foreign(cache: Cache, root: Path) -> None:
    for thing in cache.foreign:
        path = root / thing.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if thing.kind == "dir":
            path.mkdir(exist_ok=True)
            (path / "inner").write_text(thing.content)
        elif thing.kind == "link":
            path.symlink_to(thing.content)
        else:
            path.write_text(thing.content)


def index_document(entries: Sequence[Entry]) -> dict[str, Any]:
    def one(entry: Entry) -> dict[str, Any]:
        said = {"mediaType": entry.ref.media_type} if entry.ref.media_type else {}
        named = {"annotations": {REF_NAME: entry.ref_name}} if entry.ref_name is not None else {}
        return said | {"digest": entry.ref.digest, "size": entry.size} | named

    return {"schemaVersion": 2, "manifests": [one(entry) for entry in entries]}


def write_index(root: Path, entries: Sequence[Entry]) -> None:
    data = json.dumps(index_document(entries), separators=(",", ":"))
    (root / "index.json").write_text(data)


def settle(root: Path) -> None:
    """Dates ingest/ before index.json, as after an export that has long been published.

    Without it a reset waits some seconds for a stranger who is about to publish.
    """
    if (root / "ingest").is_dir():
        hour_ago_s = (root / "index.json").stat().st_mtime - 3600
        os.utime(root / "ingest", (hour_ago_s, hour_ago_s))


def blob_path(root: Path, digest: str) -> Path:
    algorithm, _, hexadecimal = digest.partition(":")
    return root / "blobs" / algorithm / hexadecimal


def blobs(root: Path) -> frozenset[str]:
    """Every regular file under blobs/sha* that is named like a digest."""
    lengths = {"sha256": 64, "sha384": 96, "sha512": 128}
    return frozenset(
        f"{algorithm}:{path.name}"
        for algorithm, length in lengths.items()
        for path in (root / "blobs" / algorithm).glob("*")
        if len(path.name) == length
        and set(path.name) <= set("0123456789abcdef")
        and path.is_file()
        and not path.is_symlink()
    )


def ingests(root: Path) -> frozenset[str]:
    return frozenset(path.name for path in (root / "ingest").glob("*"))


def snapshot(root: Path) -> dict[str, tuple[str, str]]:
    """{path: (kind, content)} of all that is not ours; equal snapshots, nothing touched."""
    seen: dict[str, tuple[str, str]] = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            said = str(path.relative_to(root))
            if said in OURS or said.split("/", 1)[0] == ".kitcache":
                continue
            if path.is_symlink():
                seen[said] = ("link", os.readlink(path))
            elif path.is_dir():
                seen[said] = ("dir", "")
            else:
                seen[said] = ("file", hashlib.sha256(path.read_bytes()).hexdigest())
    return seen
