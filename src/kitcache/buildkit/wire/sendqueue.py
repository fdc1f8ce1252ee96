"""Frames on their way out: headers and data cut to the peer's frame size, kept in order."""

from collections import deque

from kitcache.buildkit.wire.frames import (
    DEFAULT_FRAME_SIZE,
    END_HEADERS,
    END_STREAM,
    HEADER_SIZE,
    Buffer,
    Http2FrameType,
    frame_header,
    make_frame,
)


class Outbox:
    """What is to be written next. size: bytes in it. frame_size: the peer's limit."""

    def __init__(self) -> None:
        self.size = 0
        self.frame_size = DEFAULT_FRAME_SIZE
        self._buffers: deque[Buffer] = deque()

    def take(self, limit: int) -> list[Buffer]:
        """The next buffers, to about so many bytes; at least one if there is any."""
        taken: list[Buffer] = []
        while self._buffers and (not taken or limit >= len(self._buffers[0])):
            size = len(self._buffers[0])
            limit -= size
            self.size -= size
            taken.append(self._buffers.popleft())
        return taken

    def put(self, data: Buffer) -> None:
        """Whole frames."""
        self._buffers.append(data)
        self.size += len(data)

    def put_headers(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        """A header block: HEADERS, and CONTINUATION for what is too long for it."""
        most = self.frame_size
        kind, flags = Http2FrameType.HEADERS, END_STREAM if is_end else 0
        place = 0
        while len(block) - place > most:
            self.put(make_frame(kind, flags, stream_id, block[place : place + most]))
            place += most
            kind, flags = Http2FrameType.CONTINUATION, 0
        self.put(make_frame(kind, flags | END_HEADERS, stream_id, block[place:]))

    def put_data(self, stream_id: int, data: memoryview, *, is_end: bool) -> None:
        """DATA frames, which hold views: the data is not copied. One empty frame for no data."""
        put, size, most = self._buffers.append, len(data), self.frame_size
        for place in range(0, size or 1, most):
            piece = data[place : place + most]
            flags = END_STREAM if is_end and place + most >= size else 0
            put(frame_header(Http2FrameType.DATA, flags, stream_id, len(piece)))
            put(piece)
            self.size += HEADER_SIZE + len(piece)
