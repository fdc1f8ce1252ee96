"""The queue of frames to send: headers and data are split to the peer's frame size."""

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


class SendQueue:
    """Buffers to write, in order; `size` is their length, `frame_size` the peer's limit."""

    def __init__(self) -> None:
        self.size = 0
        self.frame_size = DEFAULT_FRAME_SIZE
        self._buffers: deque[Buffer] = deque()

    def take(self, limit: int) -> list[Buffer]:
        """Remove and return the next buffers, up to the limit, but at least one."""
        taken: list[Buffer] = []
        while self._buffers and (not taken or limit >= len(self._buffers[0])):
            size = len(self._buffers[0])
            limit -= size
            self.size -= size
            taken.append(self._buffers.popleft())
        return taken

    def put(self, data: Buffer) -> None:
        """Append complete frames."""
        self._buffers.append(data)
        self.size += len(data)

    def put_headers(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        """Append a header block as HEADERS and any CONTINUATION frames."""
        limit = self.frame_size
        kind, flags = Http2FrameType.HEADERS, END_STREAM if is_end else 0
        start = 0
        while len(block) - start > limit:
            self.put(make_frame(kind, flags, stream_id, block[start : start + limit]))
            start += limit
            kind, flags = Http2FrameType.CONTINUATION, 0
        self.put(make_frame(kind, flags | END_HEADERS, stream_id, block[start:]))

    def put_data(self, stream_id: int, data: memoryview, *, is_end: bool) -> None:
        """Append DATA frames that hold views of the data; one empty frame for no data."""
        put, size, limit = self._buffers.append, len(data), self.frame_size
        for start in range(0, size or 1, limit):
            piece = data[start : start + limit]
            flags = END_STREAM if is_end and start + limit >= size else 0
            put(frame_header(Http2FrameType.DATA, flags, stream_id, len(piece)))
            put(piece)
            self.size += HEADER_SIZE + len(piece)
