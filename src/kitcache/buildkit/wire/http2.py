"""One HTTP/2 connection without any I/O, in either role: bytes in, events out, bytes to send.

What the peer does wrong on one stream resets that stream; what it does wrong to the connection
raises ProtocolError, with a GOAWAY among what is to be sent. Calls have to be kept apart by the
caller's lock, and what is in the outbox has to be sent in its order. Source: RFC 9113.
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
    broken,
    make_frame,
    make_goaway,
    make_reset,
    make_settings,
    make_window_update,
    read_settings,
    read_uint32,
    without_padding,
    wrong_size,
)
from kitcache.buildkit.wire.headers import (
    MAX_HEADER_LIST,
    Block,
    BlockReader,
    HeaderCodec,
    Headers,
    is_informational,
    problem_of_request,
    problem_of_response,
    problem_of_trailers,
)
from kitcache.buildkit.wire.sendqueue import Outbox

FRAME_SIZE = 2**20
MAX_STREAMS = 250
# Answers to the peer's own frames that it does not read; senders of data stay far below.
MAX_OUTPUT = 4 * 2**20

_LENGTHS = {
    Http2FrameType.PRIORITY: 5,
    Http2FrameType.RST_STREAM: 4,
    Http2FrameType.PING: 8,
    Http2FrameType.WINDOW_UPDATE: 4,
}


class Http2Connection:
    """The state of one connection. outbox: what is to be written."""

    def __init__(self, *, is_client: bool) -> None:
        self.is_client = is_client
        self.outbox = Outbox()
        self._frames = FrameReader(FRAME_SIZE, b"" if is_client else PREFACE)
        self._codec = HeaderCodec()
        self._blocks = BlockReader(self._codec)
        self._streams: dict[int, StreamState] = {}
        self._next_id = 1
        self._last_peer_id = 0
        self._has_settings = False
        self._is_refusing = False
        self._room = DEFAULT_WINDOW
        self._inflow = ReceiveWindow(CONNECTION_WINDOW)
        self._peer_room = DEFAULT_WINDOW
        self._peer_streams = LARGEST_WINDOW
        self._introduce()

    def _introduce(self) -> None:
        settings = {
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_FRAME_SIZE: FRAME_SIZE,
            Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
        }
        if self.is_client:
            self.outbox.put(PREFACE)
            settings[Setting.ENABLE_PUSH] = 0
        else:
            settings[Setting.MAX_CONCURRENT_STREAMS] = MAX_STREAMS
        self.outbox.put(make_settings(settings))
        self.outbox.put(make_window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW))

    @property
    def can_open(self) -> bool:
        """Whether the peer's limit of streams lets another one be opened."""
        return len(self._streams) < self._peer_streams

    def open_stream(self, headers: Headers) -> int:
        """Send a request's headers on a new stream: its number. Clients only."""
        stream_id = self._next_id
        self._next_id += 2
        self._streams[stream_id] = StreamState(self._peer_room)
        self.send_headers(stream_id, headers, is_end=False)
        return stream_id

    def send_headers(self, stream_id: int, headers: Headers, *, is_end: bool) -> None:
        """Send headers or trailers on an open stream."""
        self.outbox.put_headers(stream_id, self._codec.encode(headers), is_end=is_end)
        if is_end:
            self._sent_end(stream_id)

    def send_window(self, stream_id: int) -> int:
        """How many bytes of data may be sent on a stream now; may be negative."""
        stream = self._streams.get(stream_id)
        return min(stream.send_window, self._room) if stream is not None else 0

    def send_data(self, stream_id: int, data: memoryview, *, is_end: bool = False) -> None:
        """Send no more than `room` on an open stream. The data is not copied: leave it alone."""
        self._streams[stream_id].send_window -= len(data)
        self._room -= len(data)
        self.outbox.put_data(stream_id, data, is_end=is_end)
        if is_end:
            self._sent_end(stream_id)

    def credit(self, stream_id: int, count: int) -> None:
        """So many bytes of data were consumed: let the peer send as many more."""
        if more := self._inflow.give(count):
            self.outbox.put(make_window_update(0, more))
        stream = self._streams.get(stream_id)
        if stream is not None and stream.is_receiving and (more := stream.inflow.give(count)):
            self.outbox.put(make_window_update(stream_id, more))

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Give a stream up; nothing if it is closed already."""
        if self._streams.pop(stream_id, None) is not None:
            self.outbox.put(make_reset(stream_id, code))

    def go_away(self, code: ErrorCode, text: str = "") -> None:
        """Tell the peer that this is the end; it may open no more streams."""
        self._is_refusing = True
        self.outbox.put(make_goaway(self._last_peer_id, code, text))

    def _sent_end(self, stream_id: int) -> None:
        stream = self._streams[stream_id]
        stream.is_sending = False
        if not stream.is_receiving:
            del self._streams[stream_id]

    def receive(self, data: bytes) -> Iterator[Event]:
        """What these bytes mean. Between two events anything else may be asked.

        Raises ProtocolError; then what is to be sent should be, and the connection closed.
        """
        try:
            for frame in self._frames.feed(data):
                self._check_order(frame)
                event = self._read_data(frame) if frame.kind == 0 else self._read(frame)
                if event is not None:
                    yield event
            if self.outbox.size > MAX_OUTPUT:
                raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "the peer asks and does not read")
        except ProtocolError as error:
            self.go_away(error.code, error.message)
            raise

    def _check_order(self, frame: Frame) -> None:
        if not self._has_settings:
            if frame.kind != Http2FrameType.SETTINGS or frame.flags & ACK:
                raise broken("the first frame is no SETTINGS")
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
                raise broken("PUSH_PROMISE, which was never allowed")
            case (
                Http2FrameType.PRIORITY
                | Http2FrameType.RST_STREAM
                | Http2FrameType.PING
                | Http2FrameType.WINDOW_UPDATE as kind
            ):
                if frame.length != _LENGTHS[Http2FrameType(kind)]:
                    raise wrong_size(frame)
                return self._read_short(frame)
        return None

    def _read_short(self, frame: Frame) -> Event | None:
        if frame.kind == Http2FrameType.PING:
            _check_connection(frame)
            if not frame.flags & ACK:
                self.outbox.put(make_frame(Http2FrameType.PING, ACK, 0, bytes(frame.payload)))
        elif frame.kind == Http2FrameType.WINDOW_UPDATE:
            return self._read_window_update(frame)
        elif frame.kind == Http2FrameType.RST_STREAM:
            self._check_known(frame.stream_id)
            if self._streams.pop(frame.stream_id, None) is not None:
                return StreamReset(frame.stream_id, read_uint32(frame.payload))
        elif not frame.stream_id:
            raise broken("PRIORITY for the connection")
        return None

    def _check_known(self, stream_id: int) -> None:
        """No frame but HEADERS and PRIORITY may come for a stream that was never opened."""
        if stream_id in self._streams:
            return
        is_ours = bool(stream_id % 2) == self.is_client
        last = self._next_id - 1 if self.is_client else 0
        if not is_ours:
            last = self._last_peer_id
        if not 0 < stream_id <= last:
            raise broken(f"a frame for stream {stream_id}, which is not open")

    def _read_data(self, frame: Frame) -> Event | None:
        stream_id = frame.stream_id
        data = without_padding(frame)
        if not self._inflow.take(frame.length):
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window allows")
        stream = self._streams.get(stream_id)
        if stream is None:
            # Data of a stream that we gave up may be under way for a while.
            self._check_known(stream_id)
            self.credit(stream_id, len(frame.payload))
            return None
        if not stream.inflow.take(frame.length):
            self.credit(stream_id, len(frame.payload))
            return self._fail(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "too much data")
        if not stream.is_receiving or not stream.has_headers:
            self.credit(stream_id, len(frame.payload))
            return self._fail(stream_id, ErrorCode.STREAM_CLOSED, "data out of place")
        if len(data) < len(frame.payload):
            self.credit(stream_id, len(frame.payload) - len(data))
        is_end = bool(frame.flags & END_STREAM)
        if is_end:
            self._end_came(stream_id, stream)
        return DataReceived(stream_id, data, is_end)

    def _end_came(self, stream_id: int, stream: StreamState) -> None:
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
            return self._read_more_headers(stream, block)
        if not self.is_client and block.stream_id > self._last_peer_id:
            return self._accept(block)
        self._check_known(block.stream_id)
        return None

    def _read_more_headers(self, stream: StreamState, block: Block) -> Event | None:
        if not stream.is_receiving:
            return self._fail(block.stream_id, ErrorCode.STREAM_CLOSED, "headers after the end")
        if stream.has_headers:
            problem = problem_of_trailers(block.headers)
            if not problem and not block.is_end:
                problem = "trailers without an end"
        else:
            problem = problem_of_response(block.headers)
            if not problem and is_informational(block):
                return None
        if problem:
            return self._fail(block.stream_id, ErrorCode.PROTOCOL_ERROR, problem)
        return self._headers_came(stream, block)

    def _accept(self, block: Block) -> Event | None:
        stream_id = self._last_peer_id = block.stream_id
        if stream_id % 2 == 0:
            raise broken(f"a request on stream {stream_id}")
        problem = problem_of_request(block.headers)
        if problem or self._is_refusing or len(self._streams) >= MAX_STREAMS:
            code = ErrorCode.PROTOCOL_ERROR if problem else ErrorCode.REFUSED_STREAM
            self.outbox.put(make_reset(stream_id, code))
            return None
        stream = self._streams[stream_id] = StreamState(self._peer_room)
        return self._headers_came(stream, block)

    def _headers_came(self, stream: StreamState, block: Block) -> HeadersReceived:
        stream.has_headers = True
        if block.is_end:
            self._end_came(block.stream_id, stream)
        return HeadersReceived(*block)

    def _read_window_update(self, frame: Frame) -> Event | None:
        stream_id, more = frame.stream_id, read_uint32(frame.payload) & LARGEST_WINDOW
        if not stream_id:
            self._room += more
            if not more or self._room > LARGEST_WINDOW:
                raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"a window grown by {more:,}")
            return WindowUpdated()
        self._check_known(stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            return None
        stream.send_window += more
        if not more or stream.send_window > LARGEST_WINDOW:
            return self._fail(
                stream_id, ErrorCode.FLOW_CONTROL_ERROR, f"a window grown by {more:,}"
            )
        return WindowUpdated()

    def _read_settings(self, frame: Frame) -> Event | None:
        _check_connection(frame)
        if frame.length % 6 or (frame.flags & ACK and frame.length):
            raise wrong_size(frame)
        if frame.flags & ACK:
            return None
        for key, value in read_settings(frame.payload):
            self._obey(key, value)
        self.outbox.put(make_frame(Http2FrameType.SETTINGS, ACK, 0))
        return WindowUpdated()

    def _obey(self, key: int, value: int) -> None:
        match key:
            case Setting.HEADER_TABLE_SIZE:
                self._codec.limit_table(value)
            case Setting.MAX_CONCURRENT_STREAMS:
                self._peer_streams = value
            case Setting.MAX_FRAME_SIZE:
                if not DEFAULT_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
                    raise broken(f"a frame size of {value:,}")
                self.outbox.frame_size = value
            case Setting.INITIAL_WINDOW_SIZE:
                more, self._peer_room = value - self._peer_room, value
                for stream in self._streams.values():
                    stream.send_window += more
                rooms = [stream.send_window for stream in self._streams.values()]
                if max(rooms, default=0) > LARGEST_WINDOW or value > LARGEST_WINDOW:
                    raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"a window of {value:,}")

    def _read_goaway(self, frame: Frame) -> Event:
        _check_connection(frame)
        if frame.length < 8:
            raise wrong_size(frame)
        last = read_uint32(frame.payload) & LARGEST_WINDOW
        for stream_id in [s for s in self._streams if self.is_client and s > last]:
            del self._streams[stream_id]
        text = bytes(frame.payload[8:]).decode("utf-8", "replace")
        return GoAwayReceived(last, read_uint32(frame.payload, 4), text)


def _check_connection(frame: Frame) -> None:
    if frame.stream_id:
        raise broken(f"{Http2FrameType(frame.kind).name} for stream {frame.stream_id}")
