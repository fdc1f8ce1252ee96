"""The two messages that carry blobs, encoded and decoded without a copy of the data.

Messages that BuildKit never sends are left to the protobuf library. Source: proto/content.proto.
"""

from contextlib import suppress
from typing import NamedTuple

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto import content_pb2
from kitcache.buildkit.wire.fields import encode_varint, read_fields
from kitcache.buildkit.wire.grpc import RpcError

STAT, WRITE, COMMIT = 0, 1, 2

_ACTION, _REF, _TOTAL, _EXPECTED, _OFFSET, _DATA = range(1, 7)


class WriteRequest(NamedTuple):
    """A step of an upload; `data` is a view of the message, `total` and `offset` are in bytes."""

    action: int = 0
    ref: str = ""
    total: int = 0
    expected: str = ""
    offset: int = 0
    data: memoryview = memoryview(b"")


def read_request(message: bytes) -> WriteRequest:
    """Return the request in a message. Raises ValueError."""
    with suppress(RpcError, ValueError):
        return _read_fast(message)
    try:
        parsed = content_pb2.WriteContentRequest.FromString(message)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    return WriteRequest(
        parsed.action,
        parsed.ref,
        parsed.total,
        parsed.expected,
        parsed.offset,
        memoryview(parsed.data),
    )


def _read_fast(message: bytes) -> WriteRequest:
    """Return the request. Raises ValueError or RpcError if the library must parse it."""
    numbers = {_ACTION: 0, _TOTAL: 0, _OFFSET: 0}
    texts = {_REF: "", _EXPECTED: ""}
    data = memoryview(b"")
    for field, value in read_fields(message):
        if isinstance(value, int):
            if field not in numbers or value >> 56:
                raise ValueError(field)
            numbers[field] = value
        elif field == _DATA:
            data = value
        elif field in texts:
            texts[field] = str(value, "utf-8")
        else:
            raise ValueError(field)
    return WriteRequest(
        numbers[_ACTION], texts[_REF], numbers[_TOTAL], texts[_EXPECTED], numbers[_OFFSET], data
    )


def encode_read_head(offset: int, size: int) -> bytes:
    """Return the bytes before the data of a ReadContentResponse.

    Args:
        offset: Of the data, from the start of this read.
        size: The number of bytes that follow.
    """
    head = b"\x08" + encode_varint(offset) if offset else b""
    return b"".join((head, b"\x12", encode_varint(size)))
