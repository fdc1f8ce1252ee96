"""The parts of an upload: their length, and the check that all bytes arrived."""

from collections.abc import Iterable, Iterator

from kitcache.errors import NOTHING_CHANGED, KitcacheError


def regroup(parts: Iterable[bytes | memoryview], part_bytes: int) -> Iterator[bytearray]:
    """Yield the same bytes in parts of equal length. The last part is shorter, or the only one.

    A full part is yielded before `parts` has ended. A source verifies its bytes at its end, so an
    upload publishes the object only after the last part.
    """
    buffer, end = bytearray(part_bytes), 0
    is_first = True
    for part in parts:
        rest = memoryview(part)
        while len(rest) >= part_bytes - end:
            taken = part_bytes - end
            buffer[end:] = rest[:taken]
            yield buffer
            is_first = False
            rest = rest[taken:]
            buffer, end = bytearray(part_bytes), 0
        buffer[end : end + len(rest)] = rest
        end += len(rest)
    if end or is_first:
        del buffer[end:]
        yield buffer


def check_size(address: str, key: str, size: int, sent_bytes: int) -> None:
    """Raise KitcacheError if an object would be written with more or fewer bytes than its size."""
    if sent_bytes != size:
        raise KitcacheError(
            address,
            f"{key} was not written: {sent_bytes:,} bytes arrived instead of {size:,}",
            effect=NOTHING_CHANGED,
        )
