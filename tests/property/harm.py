"""Damage of every kind, done to a cache on a disk. Nothing of kitcache is used.

A harm is a value: what is done, to the how-maniest blob, and how far into it. The same one does the
same to the same directory.
"""

import os
from pathlib import Path
from random import Random
from typing import NamedTuple

from hypothesis import strategies as st

BLOB_HARMS = ("flip", "cut", "empty", "longer", "missing", "swap")
INDEX_HARMS = ("index lost", "index torn", "index empty", "index of yesterday", "index garbled")


class Harm(NamedTuple):
    """how: one of the names above. pick: which blob. at: where in it, from 0 until 1."""

    how: str
    pick: int
    at: float


def harms(*kinds: str) -> st.SearchStrategy[Harm]:
    at = st.floats(0, 1, exclude_max=True, allow_subnormal=False)
    return st.builds(Harm, st.sampled_from(kinds), st.integers(0, 1000), at)


def draw_harm(rng: Random, *kinds: str) -> Harm:
    return Harm(rng.choice(kinds), rng.randrange(1001), rng.random())


def blob_files(root: Path) -> list[Path]:
    return sorted(path for path in (root / "blobs").glob("*/*") if path.is_file())


def inflict(root: Path, harm: Harm, yesterday: bytes = b"") -> None:
    """Do it. yesterday: an older index.json."""
    if harm.how.startswith("index"):
        _harm_index(root / "index.json", harm, yesterday)
        return
    files = blob_files(root)
    if not files:
        return
    path = files[harm.pick % len(files)]
    data = path.read_bytes()
    at = int(harm.at * len(data))
    match harm.how:
        case "flip" if data:
            _put(path, data[:at] + bytes([data[at] ^ 1 << harm.pick % 8]) + data[at + 1 :])
        case "cut":
            _put(path, data[:at])
        case "empty":
            _put(path, b"")
        case "longer":
            _put(path, data + b"\0" * (1 + harm.pick % 9))
        case "missing":
            path.unlink()
        case "swap":
            other = files[(harm.pick * 7 + 1) % len(files)]
            there = other.read_bytes()
            _put(path, there)
            _put(other, data)


def _harm_index(path: Path, harm: Harm, yesterday: bytes) -> None:
    data = path.read_bytes() if path.exists() else b""
    at = int(harm.at * len(data))
    match harm.how:
        case "index lost":
            path.unlink(missing_ok=True)
        case "index torn":
            path.write_bytes(data[:at])
        case "index empty":
            path.write_bytes(b"")
        case "index of yesterday":
            path.write_bytes(yesterday)
        case "index garbled":
            path.write_bytes(data[:at] + os.fsencode("\x00{[") + data[at + 3 :])


def _put(path: Path, data: bytes) -> None:
    """Another file in its place: what is linked to the old one elsewhere keeps its bytes."""
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o444)
