"""Header blocks: reassembly, HPACK with limits, and the checks of RFC 9113.

Source: RFC 9113, section 8; RFC 7541.
"""

from collections.abc import Iterable
from typing import NamedTuple

from hpack import Decoder, Encoder, HPACKError

from kitcache.buildkit.wire.frames import (
    END_HEADERS,
    END_STREAM,
    PRIORITY,
    ErrorCode,
    Frame,
    Http2FrameType,
    ProtocolError,
    protocol_error,
    size_error,
    strip_padding,
)

Headers = tuple[tuple[str, str], ...]

# The daemon's error details carry whole Dockerfiles, base64 upon base64.
MAX_HEADER_LIST = 2 * 2**20
_TABLE_SIZE = 4096
_PRIORITY_SIZE = 5

_REQUEST = frozenset({":method", ":scheme", ":authority", ":path"})
_RESPONSE = frozenset({":status"})
_CONNECTION = frozenset(
    {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"}
)


class HeaderCodec:
    """The HPACK encoder and decoder of a connection."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._decoder = Decoder(MAX_HEADER_LIST)

    def limit_table(self, size: int) -> None:
        """Apply the peer's SETTINGS_HEADER_TABLE_SIZE, at most the default."""
        self._encoder.header_table_size = min(size, _TABLE_SIZE)

    def encode(self, headers: Iterable[tuple[str, str]]) -> bytes:
        """Return a block. Blocks must be sent in the order in which they are encoded."""
        # The time of hpack's Huffman coder grows with the square of the length.
        return self._encoder.encode(
            [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers],
            huffman=False,
        )

    def decode(self, block: bytes) -> Headers:
        """Return the headers of a block; bytes that are not UTF-8 become surrogates.

        Raises ProtocolError, after which the connection cannot be read.
        """
        try:
            headers = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, f"bad headers: {error}") from None
        return tuple((_text(name), _text(value)) for name, value in headers)


class Block(NamedTuple):
    """The headers of a HEADERS frame and its CONTINUATION frames."""

    stream_id: int
    headers: Headers
    is_end: bool


def is_informational(block: Block) -> bool:
    """Return True for a 1xx response, which another response follows."""
    return not block.is_end and dict(block.headers)[":status"].startswith("1")


class BlockReader:
    """Reassembles header blocks from HEADERS and CONTINUATION frames."""

    def __init__(self, codec: HeaderCodec) -> None:
        self._codec = codec
        self._data = bytearray()
        # The stream of an incomplete block, 0 for none; and its END_STREAM flag.
        self._stream_id = 0
        self._is_end = False

    def check_order(self, frame: Frame) -> None:
        """Raise ProtocolError for another frame inside a block."""
        is_more = frame.kind == Http2FrameType.CONTINUATION
        if self._stream_id and not (is_more and frame.stream_id == self._stream_id):
            raise protocol_error("another frame inside a header block")
        if is_more and not self._stream_id:
            raise protocol_error("CONTINUATION without HEADERS")

    def feed(self, frame: Frame) -> Block | None:
        """Return the block that this frame completes. Raises ProtocolError."""
        if frame.kind == Http2FrameType.HEADERS:
            if not frame.stream_id:
                raise protocol_error("HEADERS for the connection")
            self._stream_id, self._is_end = frame.stream_id, bool(frame.flags & END_STREAM)
            self._data += _without_priority(frame)
        else:
            self._data += frame.payload
        if len(self._data) > MAX_HEADER_LIST:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "the headers are too long")
        if not frame.flags & END_HEADERS:
            return None
        block = Block(self._stream_id, self._codec.decode(bytes(self._data)), self._is_end)
        self._stream_id = 0
        self._data.clear()
        return block


def _without_priority(frame: Frame) -> memoryview:
    payload = strip_padding(frame)
    if not frame.flags & PRIORITY:
        return payload
    if len(payload) < _PRIORITY_SIZE:
        raise size_error(frame)
    return payload[_PRIORITY_SIZE:]


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")


def check_request(headers: Headers) -> str:
    """Return the problem of the headers of a request, "" for none."""
    return _problem(headers, _REQUEST) or _missing(headers, {":method", ":scheme", ":path"})


def check_response(headers: Headers) -> str:
    """Return the problem of the headers of a response, "" for none."""
    return _problem(headers, _RESPONSE) or _missing(headers, _RESPONSE)


def check_trailers(headers: Headers) -> str:
    """Return the problem of trailers, "" for none."""
    return _problem(headers, frozenset())


def _missing(headers: Headers, required: Iterable[str]) -> str:
    names = {name for name, _ in headers}
    return next((f"no {name} in the headers" for name in sorted(required) if name not in names), "")


def _problem(headers: Headers, pseudo: frozenset[str]) -> str:
    seen: set[str] = set()
    for name, _ in headers:
        if name.startswith(":"):
            if name not in pseudo or name in seen:
                return f"an unexpected header {name}"
            seen.add(name)
            continue
        # A pseudo-header after this one is an error.
        pseudo = frozenset()
        if name != name.lower() or name in _CONNECTION or not name:
            return f"a header that HTTP/2 forbids: {name}"
    return ""
