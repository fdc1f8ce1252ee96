"""store/verified.py: bytes are verified while they are read, and read no further than needed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kitcache.oci.digest import parse_digest
from kitcache.store.verified import WrongDigest, make_buffer, read_all, read_parts, verify
from tests.hostile.build import digest_of

DATA = bytes(range(256)) * 4


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "blob").write_bytes(DATA)
    fd = os.open(tmp_path / "blob", os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("length", [1, 7, 1023, 1024, 1025, 4096])
def test_all_parts_in_order(fd: int, length: int, algorithm: str) -> None:
    digest = parse_digest(digest_of(DATA, algorithm))
    parts = [bytes(part) for part in read_parts(fd, digest, len(DATA), bytearray(length))]
    assert b"".join(parts) == DATA
    os.lseek(fd, 0, os.SEEK_SET)
    assert read_all(fd, digest, len(DATA)) == DATA
    verify(fd, digest, len(DATA))


@pytest.mark.parametrize("change", ["flipped", "longer", "shorter", "empty"])
def test_other_bytes_are_refused_after_the_last_part(fd: int, change: str) -> None:
    if change == "flipped":
        os.pwrite(fd, b"x", 1000)
    else:
        os.truncate(fd, {"longer": 1030, "shorter": 1000, "empty": 0}[change])
    digest = parse_digest(digest_of(DATA))
    with pytest.raises(WrongDigest) as caught:
        verify(fd, digest, len(DATA))
    actual = digest_of(os.pread(fd, len(DATA) + 1, 0))
    assert f"sha256:{caught.value.actual_hex}" == actual
    os.lseek(fd, 0, os.SEEK_SET)
    with pytest.raises(WrongDigest):
        read_all(fd, digest, len(DATA))


def test_what_is_appended_is_not_read_if_nobody_asks_for_it(fd: int) -> None:
    os.pwrite(fd, b"more", len(DATA))
    digest = parse_digest(digest_of(DATA))
    assert sum(map(len, read_parts(fd, digest, len(DATA), bytearray(64), to_end=False))) == 1024


def test_a_small_file_takes_one_read(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, reads = os.readv, []

    def read(*args: Any) -> int:
        reads.append(args)
        return real(*args)

    monkeypatch.setattr(os, "readv", read)
    verify(fd, parse_digest(digest_of(DATA)), len(DATA))
    assert len(reads) == 1


def test_a_file_that_grows_is_not_read_to_its_end(fd: int) -> None:
    """It has a terabyte by now."""
    os.truncate(fd, 1 << 40)
    with pytest.raises(WrongDigest):
        verify(fd, parse_digest(digest_of(DATA)), len(DATA))
    os.lseek(fd, 0, os.SEEK_SET)
    with pytest.raises(WrongDigest):
        read_all(fd, parse_digest(digest_of(DATA)), len(DATA))


def test_a_buffer_is_no_larger_than_needed() -> None:
    assert [len(make_buffer(size)) for size in (0, 10, 1 << 40)] == [1, 11, 1 << 20]
