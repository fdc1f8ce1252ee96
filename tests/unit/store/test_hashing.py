"""store/hashing.py: a file against its digest, as a stream."""

import errno
import hashlib
import os
from threading import Event
from typing import Any

import pytest

from kitcache.errors import KitcacheError
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store import hashing as module
from kitcache.store.hashing import BlobHasher, Hashed
from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from tests.hostile.build import Box, Sample

CHUNK = 1024


def hasher(layout: Layout, stop: Event | None = None) -> BlobHasher:
    return BlobHasher(layout, stop or Event(), CHUNK)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK])
def test_a_whole_blob(box: Box, algorithm: str, size: int) -> None:
    blob = box.blob(b"x" * size, algorithm=algorithm)
    box.tag("main", blob)
    with open_store(box.dir) as layout:
        layout.open_directories()
        one = hasher(layout)
        assert one.hash_blob(parse_digest(blob["digest"])) == Hashed(size, "")
        assert one.bytes == size


def test_other_bytes(layout: Layout, sample: Sample) -> None:
    digest = parse_digest(sample.layers[0]["digest"])
    size = sample.layers[0]["size"]
    data = b"y" * size
    sample.box.damage(str(digest), data)
    told = hashlib.sha256(data).hexdigest()[:12]
    assert hasher(layout).hash_blob(digest) == Hashed(size, f"holds other bytes (sha256:{told}…)")


def test_an_empty_file(layout: Layout, sample: Sample) -> None:
    digest = parse_digest(sample.layers[0]["digest"])
    sample.box.damage(str(digest), b"")
    assert hasher(layout).hash_blob(digest) == Hashed(0, "is empty")


def test_what_is_not_there(layout: Layout) -> None:
    assert hasher(layout).hash_blob(Digest("sha256", "0" * 64)) == "gone"


def test_what_is_larger_is_left_alone(layout: Layout, sample: Sample) -> None:
    one = hasher(layout)
    digest, size = parse_digest(sample.layers[0]["digest"]), sample.layers[0]["size"]
    assert one.hash_blob(digest, largest=size - 1) == "large"
    assert one.bytes == 0
    assert one.hash_blob(digest, largest=size) == Hashed(size, "")


@pytest.mark.parametrize("kind", ["link", "dangling", "directory", "pipe"])
def test_what_is_no_file(layout: Layout, sample: Sample, kind: str) -> None:
    digest = Digest("sha256", "0" * 64)
    path = sample.box.path_of(str(digest))
    match kind:
        case "link":
            path.symlink_to(sample.layers[0]["digest"].partition(":")[2])
        case "dangling":
            path.symlink_to("nowhere")
        case "directory":
            path.mkdir()
        case _:
            os.mkfifo(path)
    assert hasher(layout).hash_blob(digest) == Hashed(0, "is not a regular file")


def test_a_read_that_fails(layout: Layout, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(module.os, "readv", fail)
    found = hasher(layout).hash_blob(parse_digest(sample.layers[0]["digest"]))
    assert found == Hashed(sample.layers[0]["size"], "cannot be read: Input/output error")
    assert os.listdir("/proc/self/fd") == before


def test_stop_is_seen_between_chunks(
    layout: Layout, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, blob = Event(), sample.box.blob(b"z" * 100 * CHUNK)
    read = os.readv

    def stop_at_the_third(*words: Any) -> int:
        if one.bytes == 2 * CHUNK:
            stop.set()
        return read(*words)

    monkeypatch.setattr(module.os, "readv", stop_at_the_third)
    one = hasher(layout, stop)
    assert one.hash_blob(parse_digest(blob["digest"])) == "stopped"
    assert one.bytes == 3 * CHUNK


def test_what_is_appended_meanwhile_is_not_waited_for(
    layout: Layout, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that grows for ever would be read for ever."""
    blob = sample.box.blob(b"z" * 3 * CHUNK)
    path = sample.box.path_of(blob["digest"])
    path.chmod(0o644)
    read = os.readv

    def read_and_grow(*words: Any) -> int:
        with path.open("ab") as file:
            file.write(b"z" * CHUNK)
        return read(*words)

    monkeypatch.setattr(module.os, "readv", read_and_grow)
    assert hasher(layout).hash_blob(parse_digest(blob["digest"])) == Hashed(3 * CHUNK, "")


def test_a_small_file_costs_four_calls(
    layout: Layout, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> Any:
        real = getattr(os, name)

        def call(*words: Any, **options: Any) -> Any:
            calls.append(name)
            return real(*words, **options)

        return call

    for name in ("open", "fstat", "stat", "read", "readv", "pread", "close", "posix_fadvise"):
        monkeypatch.setattr(module.os, name, counted(name))
    hasher(layout).hash_blob(parse_digest(sample.layers[0]["digest"]))
    assert calls == ["open", "fstat", "readv", "close"]


@pytest.mark.parametrize("call", ["open", "readv"])
def test_what_the_process_lacks_is_no_fault_of_a_blob(
    layout: Layout, sample: Sample, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    digest = parse_digest(sample.layers[0]["digest"])

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(KitcacheError, match="Too many open files"):
        hasher(layout).hash_blob(digest)
