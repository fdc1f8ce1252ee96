"""A blob that comes in any pieces, begun anew at any point, is that blob; so is what is read."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kitcache.oci.digest import Digest
from kitcache.store.create import make_layout
from kitcache.store.ingest import BlobWriter, Ingester

_PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
PIECES = st.lists(st.binary(max_size=5000), max_size=8)


@contextmanager
def an_intake() -> Iterator[tuple[Path, Ingester]]:
    with tempfile.TemporaryDirectory(dir=_PLACE) as top, make_layout(f"{top}/cache") as layout:
        intake = Ingester(layout)
        yield Path(top, "cache"), intake
        intake.close()


def send(upload: BlobWriter, pieces: list[bytes]) -> None:
    for piece in pieces:
        upload.write(memoryview(piece))


@given(PIECES, PIECES)
def test_any_pieces_make_one_blob(false_start: list[bytes], pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    expected = Digest("sha256", hashlib.sha256(data).hexdigest())
    with an_intake() as (root, intake):
        upload = intake.begin("layer-x", "sha256", len(data))
        send(upload, false_start)
        upload.truncate()
        send(upload, pieces)
        assert upload.commit(len(data), expected) == (expected, True)
        assert (root / "blobs" / "sha256" / expected.hex).read_bytes() == data
        assert list((root / "ingest").iterdir()) == []
        assert intake.find(expected, len(data)) == len(data)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["write", "commit", "abort"]))))
def test_uploads_that_interleave_do_not_meet(steps: list[tuple[str, str]]) -> None:
    """Three uploads of one ref; whatever happens to each, the names in blobs/ are true."""
    with an_intake() as (root, intake):
        uploads: dict[str, BlobWriter] = {}
        for name, step in steps:
            upload = uploads.setdefault(name, intake.begin("layer-x", "sha256", 0))
            if step == "write":
                upload.write(name.encode() * 1000)
            elif step == "commit":
                uploads.pop(name).commit(0, None)
            else:
                uploads.pop(name).abort()
        for upload in uploads.values():
            upload.abort()
        for path in (root / "blobs" / "sha256").iterdir():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
