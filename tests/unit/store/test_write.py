"""store/write.py: a blob of our own is there whole or not at all, and no trace of an upload."""

import ctypes
import errno
import hashlib
import os
import stat

import pytest

from kitcache.errors import KitcacheError
from kitcache.oci.digest import Digest
from kitcache.store.layout import Layout
from kitcache.store.write import sync_blobs, write_blob
from tests.hostile.build import Sample

DATA = b'{"layers": []}'
DIGEST = Digest("sha256", hashlib.sha256(DATA).hexdigest())


def test_a_new_blob_has_its_name_its_bytes_and_a_blobs_mode(sample: Sample, layout: Layout) -> None:
    assert write_blob(layout, DATA) == DIGEST
    sync_blobs(layout)
    path = sample.box.path_of(str(DIGEST))
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert os.listdir(sample.dir / ".kitcache") == []
    assert os.listdir(sample.dir / "ingest") == []


def test_one_that_is_there_is_dated_now(sample: Sample, layout: Layout) -> None:
    there = sample.box.blob(DATA)
    path = sample.box.path_of(there["digest"])
    before = path.stat()
    assert write_blob(layout, DATA) == DIGEST
    after = path.stat()
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns


def test_other_bytes_in_its_place_are_replaced(sample: Sample, layout: Layout) -> None:
    there = sample.box.blob(DATA)
    sample.box.damage(there["digest"], b"?" * len(DATA))
    write_blob(layout, DATA)
    assert sample.box.path_of(there["digest"]).read_bytes() == DATA


def test_without_a_place_for_it_nothing_is_left(sample: Sample, layout: Layout) -> None:
    blocked = sample.box.path_of(str(DIGEST))
    blocked.mkdir()
    with pytest.raises(KitcacheError, match="cannot write a new blob"):
        write_blob(layout, DATA)
    assert os.listdir(sample.dir / ".kitcache") == []


def test_a_file_in_the_way_of_our_own_directory_is_told(sample: Sample, layout: Layout) -> None:
    (sample.dir / ".kitcache").write_text("")
    with pytest.raises(KitcacheError, match=r"cannot create \.kitcache/"):
        write_blob(layout, DATA)


def test_bytes_that_others_wrote_are_put_on_the_disk_with_the_names(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Libc:
        def __init__(self, name: object, use_errno: bool) -> None:
            pass

        def syncfs(self, fd: int) -> int:
            ctypes.set_errno(errno.EIO if fd == layout.root_fd else 0)
            return -1

    sync_blobs(layout, with_bytes=True)
    monkeypatch.setattr(ctypes, "CDLL", Libc)
    sync_blobs(layout)
    with pytest.raises(KitcacheError, match="cannot sync blobs: Input/output error"):
        sync_blobs(layout, with_bytes=True)
