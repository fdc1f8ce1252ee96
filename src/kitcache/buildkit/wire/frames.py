"""HTTP/2 frames: split from a byte stream, and encoded.

Source: RFC 9113, sections 4, 6 and 7.
"""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

Buffer = bytes | bytearray | memoryview

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE = 9
DEFAULT_FRAME_SIZE = 16_384
LARGEST_FRAME_SIZE = 2**24 - 1
DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1

# Length (24 bits) and type (8 bits), flags, stream.
_HEADER = Struct(">IBI")
_UINT32 = Struct(">I")
_SETTING = Struct(">HI")
_STREAM_BITS = 0x7FFF_FFFF
# The first bytes of "HTTP/1.1 400 …", read as the length of a frame.
_HTTP1_LENGTH = int.from_bytes(b"HTT", "big")


class Http2FrameType(IntEnum):
    """The type of a frame."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class Setting(IntEnum):
    """The settings of RFC 9113."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """The reason of a reset stream or a closed connection."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def error_name(code: int) -> str:
    """Return the name of an error code, or its number if it is unknown."""
    return ErrorCode(code).name if code < len(ErrorCode) else str(code)


class ProtocolError(Exception):
    """The peer violated the protocol, which ends the connection."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.code.name})"


class Frame(NamedTuple):
    """A frame, or a piece of a DATA frame without padding, which is not reassembled.

    Attributes:
        length: The length of the payload for flow control; 0 for all pieces but the first.
        flags: END_STREAM is set on the last piece only.
    """

    kind: int
    flags: int
    stream_id: int
    payload: memoryview
    length: int


class FrameReader:
    """Splits a byte stream into frames; the preface must precede the first one."""

    def __init__(self, largest: int, preface: bytes = b"") -> None:
        self._largest = largest
        self._preface = preface
        self._carry = bytearray()
        self._needed = HEADER_SIZE
        # The current DATA frame.
        self._data_missing = 0
        self._data_length = 0
        self._data_flags = 0
        self._data_stream = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that these bytes complete. Payloads are views of `data`.

        Raises ProtocolError for a wrong preface and for a frame over the limit.
        """
        view, place, size = memoryview(data), 0, len(data)
        if self._preface:
            place = self._skip_preface(data)
        while place < size:
            if self._data_missing:
                piece = view[place : place + self._data_missing]
                place += len(piece)
                yield self._piece_of_data(piece)
            elif not self._carry and size - place >= HEADER_SIZE:
                first, flags, stream_id = _HEADER.unpack_from(data, place)
                length, kind = self._measure(first), first & 0xFF
                ends = place + HEADER_SIZE + length
                if length and kind == Http2FrameType.DATA and not flags & PADDED:
                    place += HEADER_SIZE
                    self._begin_data(flags, stream_id & _STREAM_BITS, length)
                elif ends <= size:
                    payload = view[place + HEADER_SIZE : ends]
                    place = ends
                    yield Frame(kind, flags, stream_id & _STREAM_BITS, payload, length)
                else:
                    place = self._carry_over(view, place)
            else:
                place = self._carry_over(view, place)
                if len(self._carry) == self._needed:
                    yield from self._use_carry()

    def _skip_preface(self, data: bytes) -> int:
        count = min(len(self._preface), len(data))
        if data[:count] != self._preface[:count]:
            raise protocol_error("the peer does not use HTTP/2")
        self._preface = self._preface[count:]
        return count

    def _measure(self, first: int) -> int:
        length = first >> 8
        if length == _HTTP1_LENGTH:
            raise ProtocolError(
                ErrorCode.HTTP_1_1_REQUIRED, "the peer answered in HTTP/1, not in HTTP/2"
            )
        if length > self._largest:
            raise ProtocolError(
                ErrorCode.FRAME_SIZE_ERROR,
                f"a frame has {length:,} bytes, more than the limit of {self._largest:,}",
            )
        return length

    def _begin_data(self, flags: int, stream_id: int, length: int) -> None:
        self._data_missing = self._data_length = length
        self._data_flags, self._data_stream = flags, stream_id

    def _piece_of_data(self, piece: memoryview) -> Frame:
        self._data_missing -= len(piece)
        flags = self._data_flags & ~END_STREAM if self._data_missing else self._data_flags
        length, self._data_length = self._data_length, 0
        return Frame(Http2FrameType.DATA, flags, self._data_stream, piece, length)

    def _carry_over(self, view: memoryview, place: int) -> int:
        piece = view[place : place + self._needed - len(self._carry)]
        self._carry += piece
        return place + len(piece)

    def _use_carry(self) -> Iterator[Frame]:
        first, flags, stream_id = _HEADER.unpack_from(self._carry)
        length, kind = self._measure(first), first & 0xFF
        stream_id &= _STREAM_BITS
        if length and kind == Http2FrameType.DATA and not flags & PADDED:
            self._carry.clear()
            self._begin_data(flags, stream_id, length)
            return
        self._needed = HEADER_SIZE + length
        if len(self._carry) < self._needed:
            return
        payload = memoryview(bytes(self._carry))[HEADER_SIZE:]
        self._carry.clear()
        self._needed = HEADER_SIZE
        yield Frame(kind, flags, stream_id, payload, length)


def protocol_error(message: str) -> ProtocolError:
    """Return a ProtocolError with the code PROTOCOL_ERROR."""
    return ProtocolError(ErrorCode.PROTOCOL_ERROR, message)


def size_error(frame: Frame) -> ProtocolError:
    """Return the error for a frame whose length is invalid for its type."""
    name = Http2FrameType(frame.kind).name
    return ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"{name} with {frame.length:,} bytes")


def frame_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """Return the nine bytes before a payload."""
    return _HEADER.pack(length << 8 | kind, flags, stream_id)


def make_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return a complete frame."""
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def make_settings(settings: dict[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(_SETTING.pack(key, value) for key, value in settings.items())
    return make_frame(Http2FrameType.SETTINGS, 0, 0, payload)


def make_window_update(stream_id: int, credit: int) -> bytes:
    """Return a WINDOW_UPDATE frame with a credit in bytes; stream 0 is the connection."""
    return make_frame(Http2FrameType.WINDOW_UPDATE, 0, stream_id, _UINT32.pack(credit))


def make_reset(stream_id: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return make_frame(Http2FrameType.RST_STREAM, 0, stream_id, _UINT32.pack(code))


def make_goaway(last_stream_id: int, code: int, text: str) -> bytes:
    """Return a GOAWAY frame."""
    payload = _UINT32.pack(last_stream_id) + _UINT32.pack(code) + text.encode()
    return make_frame(Http2FrameType.GOAWAY, 0, 0, payload)


def read_uint32(payload: memoryview, place: int = 0) -> int:
    """Return four bytes as a number."""
    number: int = _UINT32.unpack_from(payload, place)[0]
    return number


def read_settings(payload: memoryview) -> Iterator[tuple[int, int]]:
    """Return the settings of a SETTINGS frame whose length is a multiple of six."""
    return _SETTING.iter_unpack(payload)


def strip_padding(frame: Frame) -> memoryview:
    """Return the payload of a DATA or HEADERS frame without its padding.

    Raises ProtocolError if the padding is longer than the frame.
    """
    if not frame.flags & PADDED:
        return frame.payload
    if not frame.payload or frame.payload[0] >= len(frame.payload):
        raise protocol_error("padding that is longer than its frame")
    return frame.payload[1 : len(frame.payload) - frame.payload[0]]
