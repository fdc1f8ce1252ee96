"""Verified reading: hashes an open blob file while it is read.

Every verified read of a blob file uses this module.
"""

import hashlib
import os
from collections.abc import Callable, Iterator

from kitcache.oci.digest import HEX_LENGTHS, Digest

# hashlib.new takes twice as long, which shows with small blobs.
_HASHES: dict[str, Callable[[], "hashlib._Hash"]] = {
    name: getattr(hashlib, name) for name in HEX_LENGTHS
}

_PART_BYTES = 1024 * 1024


class WrongDigest(Exception):
    """The file's bytes do not match the digest. actual_hex: the hash of the bytes."""

    problem = "does not match its digest"

    def __init__(self, actual_hex: str) -> None:
        super().__init__(actual_hex)
        self.actual_hex = actual_hex


def read_parts(
    fd: int, digest: Digest, size: int, buffer: bytearray, *, to_end: bool = True
) -> Iterator[memoryview]:
    """Yield the file's bytes from its current position, and verify them at the end.

    A part is valid until the next one is requested. Reading ends even if the file keeps growing.

    Args:
        fd: The file. It is not closed.
        digest: Of a known algorithm.
        size: Length of the file when it was opened.
        buffer: Memory for a part, of at least one byte.
        to_end: Hash bytes that were appended since, too: the digest does not match then. If False,
            they are not read.

    Raises:
        WrongDigest: After the last part.
        OSError: The file cannot be read.
    """
    hasher = _HASHES[digest.algorithm]()
    view, offset = memoryview(buffer), 0
    while (offset < size or to_end) and (count := os.readv(fd, (buffer,))):
        offset += count
        hasher.update(view[:count])
        yield view[:count]
        # At the end of a regular file a read is short: a small file takes one read.
        if offset > size or (offset == size and count < len(buffer)):
            break
    _compare(hasher, digest)


def verify(fd: int, digest: Digest, size: int) -> None:
    """Read the file from its start and verify it; raises as read_parts does."""
    os.lseek(fd, 0, os.SEEK_SET)
    for _ in read_parts(fd, digest, size, make_buffer(size)):
        pass


def make_buffer(size: int) -> bytearray:
    """Return a buffer for parts of a file of that size; a small file fits into one part."""
    return bytearray(min(size + 1, _PART_BYTES))


def read_all(fd: int, digest: Digest, size: int) -> bytes:
    """Return all bytes of a file of `size` bytes, verified; raises as read_parts does."""
    with open(fd, "rb", closefd=False) as file:
        data = file.read(size + 1)
    hasher = _HASHES[digest.algorithm]()
    hasher.update(data)
    _compare(hasher, digest)
    return data


def _compare(hasher: "hashlib._Hash", digest: Digest) -> None:
    if hasher.hexdigest() != digest.hex:
        raise WrongDigest(hasher.hexdigest())
