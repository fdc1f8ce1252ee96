"""Protobuf messages that carry bulk data, encoded and decoded without a copy of the data.

Messages that BuildKit never sends are left to the protobuf library, which defines the result.
Source: protobuf.dev, "Encoding".
"""

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto.control_pb2 import BytesMessage
from kitcache.buildkit.wire.frames import Buffer
from kitcache.buildkit.wire.grpc import Code, RpcError

_FIXED_SIZES = {1: 8, 5: 4}
_VARINT, _BYTES = 0, 2


def malformed() -> RpcError:
    """Return the error for bytes that are not the expected message."""
    return RpcError(Code.INTERNAL, "a message is malformed")


def encode_varint(value: int) -> bytes:
    """Return a number as protobuf encodes it. It must not be negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _decode_varint(view: memoryview, at: int, limit: int) -> tuple[int, int]:
    value = shift = 0
    for byte in view[at : at + limit]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise malformed()


def read_fields(message: Buffer) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field: an integer, or a view of its bytes.

    Fields of a fixed size are skipped: no message that is read here has one. Raises RpcError.
    """
    view = memoryview(message)
    at = 0
    while at < len(view):
        key, at = _decode_varint(view, at, 5)
        wire_type = key & 7
        if key < 8:  # no field has the number 0
            raise malformed()
        if wire_type == _VARINT:
            value, at = _decode_varint(view, at, 10)
            yield key >> 3, value
            continue
        if wire_type == _BYTES:
            size, at = _decode_varint(view, at, 5)
        else:
            size = _FIXED_SIZES.get(wire_type, len(view))
        if size > len(view) - at:
            raise malformed()
        if wire_type == _BYTES:
            yield key >> 3, view[at : at + size]
        at += size


def wrap_bytes(data: Buffer) -> bytes:
    """Return the BytesMessage that carries the data."""
    return b"".join((b"\x0a", encode_varint(len(data)), data))


def unwrap_bytes(message: bytes) -> memoryview:
    """Return the data of a BytesMessage. Raises RpcError."""
    try:
        ((number, value),) = read_fields(message)
        if number == 1 and isinstance(value, memoryview):
            return value
    except (RpcError, ValueError):
        pass
    try:
        return memoryview(BytesMessage.FromString(message).data)
    except DecodeError:
        raise malformed() from None
