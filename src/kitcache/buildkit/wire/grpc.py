"""gRPC over HTTP/2 without I/O: metadata, statuses and messages.

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
# Smaller messages are copied, so that many of them become one buffer.
_SMALL = 16_384
_STATUS, _MESSAGE, _DETAILS = "grpc-status", "grpc-message", "grpc-status-details-bin"
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")
# The characters of grpc-message: printable ASCII without the percent sign.
_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if c != 0x25)


def first(metadata: Metadata, key: str) -> str | None:
    """Return the first value of a key, None if there is none."""
    return next((value for name, value in metadata if name == key), None)


def all_values(metadata: Metadata, key: str) -> tuple[str, ...]:
    """Return all values of a key, in order."""
    return tuple(value for name, value in metadata if name == key)


class Code(IntEnum):
    """The status code of a call."""

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
    """A detail of an error; its type_url names the type of the value."""

    type_url: str
    value: bytes


class RpcError(Exception):
    """A call ended with a status other than OK. The code can be unknown to Code."""

    def __init__(self, code: int, message: str, details: tuple[Detail, ...] = ()) -> None:
        super().__init__(code, message, details)
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return self.message

    def copy(self) -> "RpcError":
        """Return an equal error: one that is raised twice collects tracebacks."""
        return RpcError(self.code, self.message, self.details)


def check_metadata(metadata: Metadata) -> None:
    """Raise ValueError for a key that is not in lower case, or a value that is not ASCII."""
    for key, value in metadata:
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise ValueError(f"metadata that gRPC cannot carry: {key!r}")


def encode_status(error: RpcError | None) -> Metadata:
    """Return the trailers of a status; None is OK."""
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
    """Return the status of a call, None for OK. Malformed details are ignored."""
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


def check_reply(headers: Metadata) -> RpcError | None:
    """Return the error for headers that are not those of a gRPC server, else None."""
    http = first(headers, ":status") or ""
    media_type = first(headers, "content-type") or ""
    if first(headers, _STATUS) is not None or (
        http == "200" and media_type.startswith(CONTENT_TYPE)
    ):
        return None
    code = _HTTP_CODES.get(http, Code.UNKNOWN)
    return RpcError(
        code, f"the answer is not gRPC: HTTP status {http}, content type {media_type!r}"
    )


_RESET_CODES: dict[int, Code] = {
    ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}


def reset_error(code: int, problem: str) -> RpcError:
    """Return the error of a call whose stream was reset.

    Args:
        code: Of the reset.
        problem: The error of the peer that caused it, "" for none.
    """
    message = problem or f"the other side reset the call: {error_name(code)}"
    return RpcError(_RESET_CODES.get(code, Code.INTERNAL), message)


def frame_messages(messages: Sequence[bytes]) -> list[bytes]:
    """Return messages with their prefixes, in few buffers; large messages are not copied."""
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
    """Return a message of two parts with its prefix; large data is not copied."""
    start = _PREFIX.pack(0, len(head) + len(data)) + head
    return [start, data] if len(data) > _SMALL else [start + data]


class MessageReader:
    """Reassembles messages from pieces of any size."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._prefix = bytearray()
        self._pieces: list[Buffer] = []
        self._missing = 0
        self._size = 0
        self._ready: deque[bytes] = deque()

    @property
    def is_partial(self) -> bool:
        """True if a message is incomplete."""
        return bool(self._missing or self._prefix)

    @property
    def partial_bytes(self) -> int:
        """The number of bytes of an incomplete message."""
        return self._size - self._missing

    def take(self) -> bytes | None:
        """Return the next complete message, None if more data is needed."""
        return self._ready.popleft() if self._ready else None

    def feed(self, data: Buffer) -> None:
        """Add bytes, which must not change until the messages that they complete were taken.

        Raises RpcError for a message that is compressed or over the limit.
        """
        view, at, size = memoryview(data), 0, len(data)
        while at < size:
            if self._missing:
                piece = view[at : at + self._missing]
                at += len(piece)
                self._missing -= len(piece)
                self._pieces.append(piece)
                if not self._missing:
                    self._ready.append(b"".join(self._pieces))
                    self._pieces.clear()
                    self._size = 0
            elif not self._prefix and size - at >= _PREFIX.size:
                self._begin(*_PREFIX.unpack_from(view, at))
                at += _PREFIX.size
            else:
                piece = view[at : at + _PREFIX.size - len(self._prefix)]
                at += len(piece)
                self._prefix += piece
                if len(self._prefix) == _PREFIX.size:
                    self._begin(*_PREFIX.unpack(self._prefix))
                    self._prefix.clear()

    def _begin(self, flag: int, length: int) -> None:
        if flag:
            raise RpcError(Code.INTERNAL, f"a message is compressed (flag {flag})")
        if length > self._limit:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"a message has {length:,} bytes, more than the limit of {self._limit:,}",
            )
        self._missing = self._size = length
        if not length:
            self._ready.append(b"")
