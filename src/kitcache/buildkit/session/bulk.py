"""The two messages that carry blobs, by hand: the data is not copied, neither way.

Whatever a usual message does not have goes to protobuf itself, whose reading is the rule.
Wire numbers: proto/content.proto.
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
    """A step of an upload. data: a view into the message. total, offset: bytes."""

    action: int = 0
    ref: str = ""
    total: int = 0
    expected: str = ""
    offset: int = 0
    data: memoryview = memoryview(b"")


def read_request(message: bytes) -> WriteRequest:
    """The request in a message. Raises ValueError where it is none."""
    with suppress(RpcError, ValueError):
        return _read_fast(message)
    try:
        slow = content_pb2.WriteContentRequest.FromString(message)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    return WriteRequest(
        slow.action, slow.ref, slow.total, slow.expected, slow.offset, memoryview(slow.data)
    )


def _read_fast(message: bytes) -> WriteRequest:
    """Raises ValueError or RpcError for a message that the daemon never sends."""
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
    """What stands before the data of a ReadContentResponse.

    offset: of the data, from the start of this read. size: how many bytes follow.
    """
    head = b"\x08" + encode_varint(offset) if offset else b""
    return b"".join((head, b"\x12", encode_varint(size)))
