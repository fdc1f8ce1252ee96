"""gRPC over HTTP/2, the pure part: metadata, statuses, messages.

Source: grpc's PROTOCOL-HTTP2.md, http-grpc-status-mapping.md.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import NamedTuple
from urllib.parse import quote, unquote

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto import rpc_pb2
from kitcache.buildkit.wire.frames import Buffer, ErrorCode, error_name

Metadata = tuple[tuple[str, str], ...]

CONTENT_TYPE = "application/grpc"
MAX_MESSAGE = 16 * 2**20

_PREFIX = Struct(">BI")
# Up to this a message is copied, so that many small ones become one buffer.
_SMALL = 16_384
_STATUS, _MESSAGE, _DETAILS = "grpc-status", "grpc-message", "grpc-status-details-bin"
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")
# A message may hold all that is printable in ASCII, but for the percent sign.
_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if c != 0x25)


def first(metadata: Metadata, key: str) -> str | None:
    """The first value of a key, None where there is none."""
    return next((value for name, value in metadata if name == key), None)


def every(metadata: Metadata, key: str) -> tuple[str, ...]:
    """All values of a key, in order."""
    return tuple(value for name, value in metadata if name == key)


class Code(IntEnum):
    """How a call ended."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Detail(NamedTuple):
    """One detail of a failure. type_url says what the value is."""

    type_url: str
    value: bytes


class RpcError(Exception):
    """A call that ended with another status than OK. code may be a number that Code lacks."""

    def __init__(self, code: int, message: str, details: tuple[Detail, ...] = ()) -> None:
        super().__init__(code, message, details)
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return self.message

    def again(self) -> "RpcError":
        """An equal one, to be raised elsewhere: tracebacks pile up on one that is raised twice."""
        return RpcError(self.code, self.message, self.details)


def check_metadata(metadata: Metadata) -> None:
    """Raise ValueError for what cannot be sent: a key not in lower case, a value not in ASCII."""
    for key, value in metadata:
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise ValueError(f"metadata that gRPC cannot carry: {key!r}")


def encode_status(error: RpcError | None) -> Metadata:
    """Trailers; None is OK."""
    if error is None:
        return ((_STATUS, "0"),)
    trailers = [(_STATUS, str(int(error.code)))]
    if error.message:
        trailers.append((_MESSAGE, quote(error.message, safe=_SAFE, errors="replace")))
    if error.details:
        details = [rpc_pb2.Detail(type_url=d.type_url, value=d.value) for d in error.details]
        status = rpc_pb2.Status(code=int(error.code), message=error.message, details=details)
        text = b64encode(status.SerializeToString()).decode().rstrip("=")
        trailers.append((_DETAILS, text))
    return tuple(trailers)


def decode_status(trailers: Metadata) -> RpcError | None:
    """How the call ended; None for OK. Damaged details are left out."""
    text = first(trailers, _STATUS)
    if text is None:
        return RpcError(Code.UNKNOWN, "the call ended without a status")
    if text == "0":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        return RpcError(Code.UNKNOWN, f"the call ended with the status {text!r}")
    message = unquote(first(trailers, _MESSAGE) or "", errors="replace")
    return RpcError(int(text), message, _decode_details(first(trailers, _DETAILS) or ""))


def _decode_details(text: str) -> tuple[Detail, ...]:
    try:
        data = b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
        status = rpc_pb2.Status.FromString(data)
    except (binascii.Error, ValueError, DecodeError):
        return ()
    return tuple(Detail(detail.type_url, detail.value) for detail in status.details)


_HTTP_CODES = {
    "400": Code.INTERNAL,
    "401": Code.UNAUTHENTICATED,
    "403": Code.PERMISSION_DENIED,
    "404": Code.UNIMPLEMENTED,
    "429": Code.UNAVAILABLE,
    "502": Code.UNAVAILABLE,
    "503": Code.UNAVAILABLE,
    "504": Code.UNAVAILABLE,
}


def problem_of_reply(headers: Metadata) -> RpcError | None:
    """Why the headers of a response are none of a gRPC server; None when they are."""
    http, kind = first(headers, ":status") or "", first(headers, "content-type") or ""
    if first(headers, _STATUS) is not None or (http == "200" and kind.startswith(CONTENT_TYPE)):
        return None
    code = _HTTP_CODES.get(http, Code.UNKNOWN)
    return RpcError(code, f"the answer is not gRPC: HTTP status {http}, content type {kind!r}")


_RESET_CODES: dict[int, Code] = {
    ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}


def reset_error(code: int, problem: str) -> RpcError:
    """What a stream's reset means for its call. problem: what the peer had done wrong, or ""."""
    message = problem or f"the other side reset the call: {error_name(code)}"
    return RpcError(_RESET_CODES.get(code, Code.INTERNAL), message)


def frame_messages(messages: Sequence[bytes]) -> list[bytes]:
    """Messages as they are sent, in few buffers; large ones are not copied."""
    buffers: list[bytes] = []
    small: list[bytes] = []
    for message in messages:
        small.append(_PREFIX.pack(0, len(message)))
        if len(message) <= _SMALL:
            small.append(message)
        else:
            buffers += (b"".join(small), message)
            small = []
    if small:
        buffers.append(b"".join(small))
    return buffers


def frame_parts(head: bytes, data: Buffer) -> list[Buffer]:
    """One message of two parts, as it is sent; large data is not copied."""
    start = _PREFIX.pack(0, len(head) + len(data)) + head
    return [start, data] if len(data) > _SMALL else [start + data]


class MessageReader:
    """Puts messages together from pieces of any size."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._prefix = bytearray()
        self._pieces: list[Buffer] = []
        self._left = 0
        self._size = 0
        self._ready: deque[bytes] = deque()

    @property
    def is_amid(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._left or self._prefix)

    @property
    def held(self) -> int:
        """How many bytes are kept of a message that has not ended."""
        return self._size - self._left

    def take(self) -> bytes | None:
        """The next whole message; None when more has to be fed first."""
        return self._ready.popleft() if self._ready else None

    def feed(self, data: Buffer) -> None:
        """More bytes. They may change afterwards once the messages that they end were taken.

        Raises RpcError for a message that is compressed or over the limit.
        """
        view, place, size = memoryview(data), 0, len(data)
        while place < size:
            if self._left:
                piece = view[place : place + self._left]
                place += len(piece)
                self._left -= len(piece)
                self._pieces.append(piece)
                if not self._left:
                    self._ready.append(b"".join(self._pieces))
                    self._pieces.clear()
                    self._size = 0
            elif not self._prefix and size - place >= _PREFIX.size:
                self._begin(*_PREFIX.unpack_from(view, place))
                place += _PREFIX.size
            else:
                piece = view[place : place + _PREFIX.size - len(self._prefix)]
                place += len(piece)
                self._prefix += piece
                if len(self._prefix) == _PREFIX.size:
                    self._begin(*_PREFIX.unpack(self._prefix))
                    self._prefix.clear()

    def _begin(self, flag: int, length: int) -> None:
        if flag:
            raise RpcError(Code.INTERNAL, f"a compressed message came (flag {flag})")
        if length > self._limit:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"a message of {length:,} bytes came, over the limit of {self._limit:,}",
            )
        self._left = self._size = length
        if not length:
            self._ready.append(b"")
