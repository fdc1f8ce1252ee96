"""What can happen on an HTTP/2 connection, as its user sees it."""

from typing import NamedTuple

from kitcache.buildkit.wire.headers import Headers


class HeadersReceived(NamedTuple):
    """Headers, or trailers: those are the second on their stream, and is_end. 1xx never come."""

    stream_id: int
    headers: Headers
    is_end: bool


class DataReceived(NamedTuple):
    """Bytes of a stream, a view of what was received. They want credit once they are consumed."""

    stream_id: int
    data: memoryview
    is_end: bool


class StreamReset(NamedTuple):
    """The stream is gone. problem: "" when the peer reset it, else what it did wrong."""

    stream_id: int
    code: int
    problem: str = ""


class WindowUpdated(NamedTuple):
    """More can be sent, or opened, than before, on one stream or on all: look again."""


class GoAwayReceived(NamedTuple):
    """The peer takes no new streams; it never looked at those above last_stream_id."""

    last_stream_id: int
    code: int
    text: str


Event = HeadersReceived | DataReceived | StreamReset | WindowUpdated | GoAwayReceived
