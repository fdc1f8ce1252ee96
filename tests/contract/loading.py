"""A cache directory as a MemoryStore: the same blobs, roots, uploads and foreign names."""

import os
from pathlib import Path

from kitcache.oci.digest import Digest, is_blob_name
from kitcache.store.values import Ingest, WriterActivity
from tests.contract.memory import Blob, MemoryStore

_OWN = {"oci-layout", "index.json", "kitcache.lock", "index.json.lock", ".kitcache"}
_ALGORITHMS = ("sha256", "sha384", "sha512")


def load(root: Path, store: MemoryStore) -> None:
    """Replace the content of a store by that of a directory in which no blob is a symlink."""
    index = root / "index.json"
    store.index = index.read_bytes() if index.exists() else None
    store.index_changed_ns = index.stat().st_mtime_ns if index.exists() else 0
    store.blobs, store.foreign = {}, {}
    for path in root.iterdir():
        if path.name not in _OWN | {"blobs", "ingest"}:
            _add_foreign(store, root, path)
    for path in (root / "blobs").iterdir():
        if path.name in _ALGORITHMS and path.is_dir() and not path.is_symlink():
            _load_blobs(store, root, path)
        else:
            _add_foreign(store, root, path)
    _load_uploads(store, root, root / "ingest")


def _load_blobs(store: MemoryStore, root: Path, folder: Path) -> None:
    for path in folder.iterdir():
        if is_blob_name(folder.name, path.name) and path.is_file() and not path.is_symlink():
            times = path.stat()
            blob = Blob(path.read_bytes(), times.st_mtime_ns, times.st_ctime_ns)
            store.blobs[Digest(folder.name, path.name)] = blob
        else:
            _add_foreign(store, root, path, slash="")


def _load_uploads(store: MemoryStore, root: Path, folder: Path) -> None:
    if not folder.is_dir():
        store.activity = WriterActivity()
        return
    ingests, other_writes_ns = [], list[int]()
    for path in sorted(folder.iterdir()):
        files = [*path.iterdir()] if path.is_dir() and not path.is_symlink() else []
        writes_ns = sorted(each.lstat().st_mtime_ns for each in (path, *files))
        if is_blob_name("sha256", path.name) and path.is_dir() and not path.is_symlink():
            size = sum(each.lstat().st_size for each in files)
            ingests.append(Ingest(path.name, tuple(writes_ns), size))
        else:
            other_writes_ns += writes_ns
            _add_foreign(store, root, path)
    changed_ns = folder.stat().st_mtime_ns
    store.activity = WriterActivity(tuple(ingests), tuple(other_writes_ns), changed_ns)


def _add_foreign(store: MemoryStore, root: Path, path: Path, slash: str = "/") -> None:
    name = path.relative_to(root).as_posix()
    if path.is_dir() and not path.is_symlink():
        files = [Path(place, file) for place, _, names in os.walk(path) for file in names]
        sizes = [file.lstat().st_size for file in files if not file.is_symlink()]
        store.foreign[f"{name}{slash}"] = sum(sizes) if slash else 0
    else:
        is_file = path.is_file() and not path.is_symlink()
        store.foreign[name] = path.stat().st_size if is_file else 0
