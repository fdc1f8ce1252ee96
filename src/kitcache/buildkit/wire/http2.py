"""An HTTP/2 connection without I/O, in either role: bytes in, events and bytes to send out.

An error of the peer on a stream resets the stream. An error of the connection raises ProtocolError
and queues a GOAWAY. The caller holds a lock for each call, and sends the queue in order.
Source: RFC 9113.
"""

from collections.abc import Iterator

from kitcache.buildkit.wire.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    HeadersReceived,
    StreamReset,
    WindowUpdated,
)
from kitcache.buildkit.wire.flow import CONNECTION_WINDOW, STREAM_WINDOW, ReceiveWindow, StreamState
from kitcache.buildkit.wire.frames import (
    ACK,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_STREAM,
    LARGEST_FRAME_SIZE,
    LARGEST_WINDOW,
    PREFACE,
    ErrorCode,
    Frame,
    FrameReader,
    Http2FrameType,
    ProtocolError,
    Setting,
    make_frame,
    make_goaway,
    make_reset,
    make_settings,
    make_window_update,
    protocol_error,
    read_settings,
    read_uint32,
    size_error,
    strip_padding,
)
from kitcache.buildkit.wire.headers import (
    MAX_HEADER_LIST,
    Block,
    BlockReader,
    HeaderCodec,
    Headers,
    check_request,
    check_response,
    check_trailers,
    is_informational,
)
from kitcache.buildkit.wire.sendqueue import SendQueue

FRAME_SIZE = 2**20
MAX_STREAMS = 250
# The limit for responses that the peer does not read; senders of data queue far less.
MAX_OUTPUT = 4 * 2**20

_LENGTHS = {
    Http2FrameType.PRIORITY: 5,
    Http2FrameType.RST_STREAM: 4,
    Http2FrameType.PING: 8,
    Http2FrameType.WINDOW_UPDATE: 4,
}


class Http2Connection:
    """The state of one connection; `send_queue` has the bytes to write."""

    def __init__(self, *, is_client: bool) -> None:
        self.is_client = is_client
        self.send_queue = SendQueue()
        self._frames = FrameReader(FRAME_SIZE, b"" if is_client else PREFACE)
        self._codec = HeaderCodec()
        self._blocks = BlockReader(self._codec)
        self._streams: dict[int, StreamState] = {}
        self._next_id = 1
        self._last_peer_id = 0
        self._has_settings = False
        self._is_refusing = False
        self._send_window = DEFAULT_WINDOW
        self._receive_window = ReceiveWindow(CONNECTION_WINDOW)
        self._initial_window = DEFAULT_WINDOW
        self._peer_streams = LARGEST_WINDOW
        self._send_first_settings()

    def _send_first_settings(self) -> None:
        settings = {
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_FRAME_SIZE: FRAME_SIZE,
            Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
        }
        if self.is_client:
            self.send_queue.put(PREFACE)
            settings[Setting.ENABLE_PUSH] = 0
        else:
            settings[Setting.MAX_CONCURRENT_STREAMS] = MAX_STREAMS
        self.send_queue.put(make_settings(settings))
        self.send_queue.put(make_window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW))

    @property
    def can_open(self) -> bool:
        """True if the peer's limit allows another stream."""
        return len(self._streams) < self._peer_streams

    def open_stream(self, headers: Headers) -> int:
        """Send the headers of a request and return the number of its stream. Clients only."""
        stream_id = self._next_id
        self._next_id += 2
        self._streams[stream_id] = StreamState(self._initial_window)
        self.send_headers(stream_id, headers, is_end=False)
        return stream_id

    def send_headers(self, stream_id: int, headers: Headers, *, is_end: bool) -> None:
        """Send headers or trailers on an open stream."""
        self.send_queue.put_headers(stream_id, self._codec.encode(headers), is_end=is_end)
        if is_end:
            self._end_sent(stream_id)

    def send_window(self, stream_id: int) -> int:
        """Return how many bytes a stream can send now; the number can be negative."""
        stream = self._streams.get(stream_id)
        return min(stream.send_window, self._send_window) if stream is not None else 0

    def send_data(self, stream_id: int, data: memoryview, *, is_end: bool = False) -> None:
        """Send data on an open stream, at most its send window. The data must not change."""
        self._streams[stream_id].send_window -= len(data)
        self._send_window -= len(data)
        self.send_queue.put_data(stream_id, data, is_end=is_end)
        if is_end:
            self._end_sent(stream_id)

    def credit(self, stream_id: int, count: int) -> None:
        """Let the peer send as many bytes as were consumed."""
        if more := self._receive_window.release(count):
            self.send_queue.put(make_window_update(0, more))
        stream = self._streams.get(stream_id)
        if (
            stream is not None
            and stream.is_receiving
            and (more := stream.receive_window.release(count))
        ):
            self.send_queue.put(make_window_update(stream_id, more))

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream, unless it is closed."""
        if self._streams.pop(stream_id, None) is not None:
            self.send_queue.put(make_reset(stream_id, code))

    def go_away(self, code: ErrorCode, text: str = "") -> None:
        """Send GOAWAY and refuse further streams."""
        self._is_refusing = True
        self.send_queue.put(make_goaway(self._last_peer_id, code, text))

    def _end_sent(self, stream_id: int) -> None:
        stream = self._streams[stream_id]
        stream.is_sending = False
        if not stream.is_receiving:
            del self._streams[stream_id]

    def receive(self, data: bytes) -> Iterator[Event]:
        """Yield the events of these bytes. Other methods can be called between two events.

        Raises ProtocolError. Then the caller sends the queue and closes the connection.
        """
        try:
            for frame in self._frames.feed(data):
                self._check_order(frame)
                event = self._read_data(frame) if frame.kind == 0 else self._read(frame)
                if event is not None:
                    yield event
            if self.send_queue.size > MAX_OUTPUT:
                raise ProtocolError(
                    ErrorCode.ENHANCE_YOUR_CALM, "the peer does not read its responses"
                )
        except ProtocolError as error:
            self.go_away(error.code, error.message)
            raise

    def _check_order(self, frame: Frame) -> None:
        if not self._has_settings:
            if frame.kind != Http2FrameType.SETTINGS or frame.flags & ACK:
                raise protocol_error("the first frame is not SETTINGS")
            self._has_settings = True
        self._blocks.check_order(frame)

    def _read(self, frame: Frame) -> Event | None:
        match frame.kind:
            case Http2FrameType.HEADERS | Http2FrameType.CONTINUATION:
                return self._read_headers(frame)
            case Http2FrameType.SETTINGS:
                return self._read_settings(frame)
            case Http2FrameType.GOAWAY:
                return self._read_goaway(frame)
            case Http2FrameType.PUSH_PROMISE:
                raise protocol_error("PUSH_PROMISE is disabled")
            case (
                Http2FrameType.PRIORITY
                | Http2FrameType.RST_STREAM
                | Http2FrameType.PING
                | Http2FrameType.WINDOW_UPDATE as kind
            ):
                if frame.length != _LENGTHS[Http2FrameType(kind)]:
                    raise size_error(frame)
                return self._read_short(frame)
        return None

    def _read_short(self, frame: Frame) -> Event | None:
        if frame.kind == Http2FrameType.PING:
            _check_connection(frame)
            if not frame.flags & ACK:
                self.send_queue.put(make_frame(Http2FrameType.PING, ACK, 0, bytes(frame.payload)))
        elif frame.kind == Http2FrameType.WINDOW_UPDATE:
            return self._read_window_update(frame)
        elif frame.kind == Http2FrameType.RST_STREAM:
            self._check_known(frame.stream_id)
            if self._streams.pop(frame.stream_id, None) is not None:
                return StreamReset(frame.stream_id, read_uint32(frame.payload))
        elif not frame.stream_id:
            raise protocol_error("PRIORITY for the connection")
        return None

    def _check_known(self, stream_id: int) -> None:
        """Raise ProtocolError if the stream was never opened."""
        if stream_id in self._streams:
            return
        is_own = bool(stream_id % 2) == self.is_client
        last = self._next_id - 1 if self.is_client else 0
        if not is_own:
            last = self._last_peer_id
        if not 0 < stream_id <= last:
            raise protocol_error(f"a frame for stream {stream_id}, which is not open")

    def _read_data(self, frame: Frame) -> Event | None:
        stream_id = frame.stream_id
        data = strip_padding(frame)
        if not self._receive_window.receive(frame.length):
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window allows")
        stream = self._streams.get(stream_id)
        if stream is None:
            # Data of a stream that was reset can arrive for a while.
            self._check_known(stream_id)
            self.credit(stream_id, len(frame.payload))
            return None
        if not stream.receive_window.receive(frame.length):
            self.credit(stream_id, len(frame.payload))
            return self._fail(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "too much data")
        if not stream.is_receiving or not stream.has_headers:
            self.credit(stream_id, len(frame.payload))
            return self._fail(stream_id, ErrorCode.STREAM_CLOSED, "data out of place")
        if len(data) < len(frame.payload):
            self.credit(stream_id, len(frame.payload) - len(data))
        is_end = bool(frame.flags & END_STREAM)
        if is_end:
            self._end_received(stream_id, stream)
        return DataReceived(stream_id, data, is_end)

    def _end_received(self, stream_id: int, stream: StreamState) -> None:
        stream.is_receiving = False
        if not stream.is_sending:
            del self._streams[stream_id]

    def _fail(self, stream_id: int, code: ErrorCode, problem: str) -> StreamReset:
        self.reset(stream_id, code)
        return StreamReset(stream_id, code, problem)

    def _read_headers(self, frame: Frame) -> Event | None:
        block = self._blocks.feed(frame)
        if block is None:
            return None
        stream = self._streams.get(block.stream_id)
        if stream is not None:
            return self._read_next_headers(stream, block)
        if not self.is_client and block.stream_id > self._last_peer_id:
            return self._accept(block)
        self._check_known(block.stream_id)
        return None

    def _read_next_headers(self, stream: StreamState, block: Block) -> Event | None:
        if not stream.is_receiving:
            return self._fail(block.stream_id, ErrorCode.STREAM_CLOSED, "headers after the end")
        if stream.has_headers:
            problem = check_trailers(block.headers)
            if not problem and not block.is_end:
                problem = "trailers without an end"
        else:
            problem = check_response(block.headers)
            if not problem and is_informational(block):
                return None
        if problem:
            return self._fail(block.stream_id, ErrorCode.PROTOCOL_ERROR, problem)
        return self._headers_came(stream, block)

    def _accept(self, block: Block) -> Event | None:
        stream_id = self._last_peer_id = block.stream_id
        if stream_id % 2 == 0:
            raise protocol_error(f"a request on stream {stream_id}")
        problem = check_request(block.headers)
        if problem or self._is_refusing or len(self._streams) >= MAX_STREAMS:
            code = ErrorCode.PROTOCOL_ERROR if problem else ErrorCode.REFUSED_STREAM
            self.send_queue.put(make_reset(stream_id, code))
            return None
        stream = self._streams[stream_id] = StreamState(self._initial_window)
        return self._headers_came(stream, block)

    def _headers_came(self, stream: StreamState, block: Block) -> HeadersReceived:
        stream.has_headers = True
        if block.is_end:
            self._end_received(block.stream_id, stream)
        return HeadersReceived(*block)

    def _read_window_update(self, frame: Frame) -> Event | None:
        stream_id, more = frame.stream_id, read_uint32(frame.payload) & LARGEST_WINDOW
        if not stream_id:
            self._send_window += more
            if not more or self._send_window > LARGEST_WINDOW:
                raise ProtocolError(
                    ErrorCode.FLOW_CONTROL_ERROR, f"a window is increased by {more:,}"
                )
            return WindowUpdated()
        self._check_known(stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            return None
        stream.send_window += more
        if not more or stream.send_window > LARGEST_WINDOW:
            return self._fail(
                stream_id, ErrorCode.FLOW_CONTROL_ERROR, f"a window is increased by {more:,}"
            )
        return WindowUpdated()

    def _read_settings(self, frame: Frame) -> Event | None:
        _check_connection(frame)
        if frame.length % 6 or (frame.flags & ACK and frame.length):
            raise size_error(frame)
        if frame.flags & ACK:
            return None
        for key, value in read_settings(frame.payload):
            self._apply(key, value)
        self.send_queue.put(make_frame(Http2FrameType.SETTINGS, ACK, 0))
        return WindowUpdated()

    def _apply(self, key: int, value: int) -> None:
        match key:
            case Setting.HEADER_TABLE_SIZE:
                self._codec.limit_table(value)
            case Setting.MAX_CONCURRENT_STREAMS:
                self._peer_streams = value
            case Setting.MAX_FRAME_SIZE:
                if not DEFAULT_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
                    raise protocol_error(f"a frame size of {value:,}")
                self.send_queue.frame_size = value
            case Setting.INITIAL_WINDOW_SIZE:
                more, self._initial_window = value - self._initial_window, value
                for stream in self._streams.values():
                    stream.send_window += more
                windows = [stream.send_window for stream in self._streams.values()]
                if max(windows, default=0) > LARGEST_WINDOW or value > LARGEST_WINDOW:
                    raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"a window of {value:,}")

    def _read_goaway(self, frame: Frame) -> Event:
        _check_connection(frame)
        if frame.length < 8:
            raise size_error(frame)
        last = read_uint32(frame.payload) & LARGEST_WINDOW
        for stream_id in [s for s in self._streams if self.is_client and s > last]:
            del self._streams[stream_id]
        text = bytes(frame.payload[8:]).decode("utf-8", "replace")
        return GoAwayReceived(last, read_uint32(frame.payload, 4), text)


def _check_connection(frame: Frame) -> None:
    if frame.stream_id:
        raise protocol_error(f"{Http2FrameType(frame.kind).name} for stream {frame.stream_id}")
