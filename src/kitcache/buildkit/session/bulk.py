"""The two messages that carry blobs, by hand: the data is not copied, neither way.

Whatever a usual message does not have goes to protobuf itself, whose reading is the rule.
Wire numbers: proto/content.proto.
"""

from typing import NamedTuple

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto import content_pb2

STAT, WRITE, COMMIT = 0, 1, 2

_ACTION, _REF, _TOTAL, _EXPECTED, _OFFSET, _DATA = range(1, 7)
_VARINT, _BYTES = 0, 2


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
    try:
        return _read_fast(memoryview(message))
    except (_UnusualError, IndexError):
        pass
    try:
        slow = content_pb2.WriteContentRequest.FromString(message)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    return WriteRequest(
        slow.action, slow.ref, slow.total, slow.expected, slow.offset, memoryview(slow.data)
    )


class _UnusualError(Exception):
    """Nothing that the fast way reads."""


def _read_fast(view: memoryview) -> WriteRequest:
    numbers = {_ACTION: 0, _TOTAL: 0, _OFFSET: 0}
    texts = {_REF: "", _EXPECTED: ""}
    data = view[:0]
    at, end = 0, len(view)
    while at < end:
        field, kind = view[at] >> 3, view[at] & 7
        value, at = _varint(view, at + 1)
        if kind == _VARINT and field in numbers:
            numbers[field] = value
            continue
        if kind != _BYTES or at + value > end:
            raise _UnusualError
        if field == _DATA:
            data = view[at : at + value]
        elif field in texts:
            texts[field] = _text(view[at : at + value])
        else:
            raise _UnusualError
        at += value
    return WriteRequest(
        numbers[_ACTION],
        texts[_REF],
        numbers[_TOTAL],
        texts[_EXPECTED],
        numbers[_OFFSET],
        data,
    )


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number below 2**56 and where it ends: all that a usual message has."""
    value = 0
    for shift in range(0, 56, 7):
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _UnusualError


def _text(view: memoryview) -> str:
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError:
        raise _UnusualError from None


def encode_read_head(offset: int, size: int) -> bytes:
    """What stands before the data of a ReadContentResponse.

    offset: of the data, from the start of this read. size: how many bytes follow.
    """
    head = b"\x08" + _encode_varint(offset) if offset else b""
    return b"".join((head, b"\x12", _encode_varint(size)))


def _encode_varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
