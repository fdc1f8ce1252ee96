"""The events of an HTTP/2 connection."""

from typing import NamedTuple

from kitcache.buildkit.wire.headers import Headers


class HeadersReceived(NamedTuple):
    """Headers, or trailers, which are the second of their stream and end it. 1xx are skipped."""

    stream_id: int
    headers: Headers
    is_end: bool


class DataReceived(NamedTuple):
    """Bytes of a stream, as a view. The receiver credits them after it has consumed them."""

    stream_id: int
    data: memoryview
    is_end: bool


class StreamReset(NamedTuple):
    """The stream has ended. The problem is "" if the peer reset it, else the peer's error."""

    stream_id: int
    code: int
    problem: str = ""


class WindowUpdated(NamedTuple):
    """A stream can send more data than before, or more streams can be opened."""


class GoAwayReceived(NamedTuple):
    """The peer accepts no new streams, and has ignored those above last_stream_id."""

    last_stream_id: int
    code: int
    text: str


Event = HeadersReceived | DataReceived | StreamReset | WindowUpdated | GoAwayReceived
