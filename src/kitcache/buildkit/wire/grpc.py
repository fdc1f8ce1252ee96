"""gRPC over HTTP/2, the pure part: metadata, statuses, messages.

Source: grpc's PROTOCOL-HTTP2.md.
"""

from enum import IntEnum
from typing import NamedTuple

Metadata = tuple[tuple[str, str], ...]


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
