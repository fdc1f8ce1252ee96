"""Header blocks: put together, HPACK both ways with limits, and what is malformed.

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
    broken,
    without_padding,
    wrong_size,
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
    """The two HPACK states of a connection."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._decoder = Decoder(MAX_HEADER_LIST)

    def limit_table(self, size: int) -> None:
        """Obey the peer's SETTINGS_HEADER_TABLE_SIZE, and never keep more than the default."""
        self._encoder.header_table_size = min(size, _TABLE_SIZE)

    def encode(self, headers: Iterable[tuple[str, str]]) -> bytes:
        """One block. The encoder's state moves: blocks have to be sent in the order made."""
        # hpack's Huffman coder takes time that grows with the square of the length.
        return self._encoder.encode(
            [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers],
            huffman=False,
        )

    def decode(self, block: bytes) -> Headers:
        """The headers of a block; bytes that are no UTF-8 come as surrogates.

        Raises ProtocolError: after that the connection cannot be read any further.
        """
        try:
            headers = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, f"bad headers: {error}") from None
        return tuple((_text(name), _text(value)) for name, value in headers)


class Block(NamedTuple):
    """All headers of a HEADERS frame and what continues it."""

    stream_id: int
    headers: Headers
    is_end: bool


def is_informational(block: Block) -> bool:
    """Whether it is an answer of the kind 1xx, which the real one follows."""
    return not block.is_end and dict(block.headers)[":status"].startswith("1")


class BlockReader:
    """Puts header blocks together from HEADERS and CONTINUATION frames."""

    def __init__(self, codec: HeaderCodec) -> None:
        self._codec = codec
        self._data = bytearray()
        # The stream of a block that is not complete, 0 for none; whether its stream ends.
        self._stream_id = 0
        self._is_end = False

    def check_order(self, frame: Frame) -> None:
        """Raise ProtocolError for any other frame within a block."""
        is_more = frame.kind == Http2FrameType.CONTINUATION
        if self._stream_id and not (is_more and frame.stream_id == self._stream_id):
            raise broken("another frame inside a header block")
        if is_more and not self._stream_id:
            raise broken("CONTINUATION without HEADERS")

    def feed(self, frame: Frame) -> Block | None:
        """The block that this frame completes. Raises ProtocolError; see HeaderCodec.decode."""
        if frame.kind == Http2FrameType.HEADERS:
            if not frame.stream_id:
                raise broken("HEADERS for the connection")
            self._stream_id, self._is_end = frame.stream_id, bool(frame.flags & END_STREAM)
            self._data += _without_priority(frame)
        else:
            self._data += frame.payload
        if len(self._data) > MAX_HEADER_LIST:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "headers without an end")
        if not frame.flags & END_HEADERS:
            return None
        block = Block(self._stream_id, self._codec.decode(bytes(self._data)), self._is_end)
        self._stream_id = 0
        self._data.clear()
        return block


def _without_priority(frame: Frame) -> memoryview:
    payload = without_padding(frame)
    if not frame.flags & PRIORITY:
        return payload
    if len(payload) < _PRIORITY_SIZE:
        raise wrong_size(frame)
    return payload[_PRIORITY_SIZE:]


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")


def problem_of_request(headers: Headers) -> str:
    """What is wrong with the headers of a request; "" if nothing is."""
    return _problem(headers, _REQUEST) or _missing(headers, {":method", ":scheme", ":path"})


def problem_of_response(headers: Headers) -> str:
    """What is wrong with the headers of a response; "" if nothing is."""
    return _problem(headers, _RESPONSE) or _missing(headers, _RESPONSE)


def problem_of_trailers(headers: Headers) -> str:
    """What is wrong with trailers; "" if nothing is."""
    return _problem(headers, frozenset())


def _missing(headers: Headers, wanted: Iterable[str]) -> str:
    names = {name for name, _ in headers}
    return next((f"no {name} in the headers" for name in sorted(wanted) if name not in names), "")


def _problem(headers: Headers, pseudo: frozenset[str]) -> str:
    seen: set[str] = set()
    for name, _ in headers:
        if name.startswith(":"):
            if name not in pseudo or name in seen:
                return f"an unexpected header {name}"
            seen.add(name)
            continue
        # No pseudo-header may follow.
        pseudo = frozenset()
        if name != name.lower() or name in _CONNECTION or not name:
            return f"a header that HTTP/2 forbids: {name}"
    return ""
