"""What a connection answers to frames that a real peer would hardly send."""

from collections.abc import Callable

import hpack
import pytest

from kitcache.buildkit.wire.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    HeadersReceived,
    StreamReset,
    WindowUpdated,
)
from kitcache.buildkit.wire.flow import CONNECTION_WINDOW, STREAM_WINDOW
from kitcache.buildkit.wire.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PREFACE,
    PRIORITY,
    ErrorCode,
    Frame,
    FrameReader,
    ProtocolError,
    Setting,
    make_frame,
    make_goaway,
    make_reset,
    make_settings,
    make_window_update,
)
from kitcache.buildkit.wire.frames import (
    Http2FrameType as Kind,
)
from kitcache.buildkit.wire.headers import MAX_HEADER_LIST, HeaderCodec, Headers
from kitcache.buildkit.wire.http2 import FRAME_SIZE, MAX_OUTPUT, MAX_STREAMS, Http2Connection
from tests.unit.buildkit.wire.peers import REPLY, REQUEST


def block(headers: Headers) -> bytes:
    return HeaderCodec().encode(headers)


def headers_frame(stream_id: int, headers: Headers, flags: int = 0) -> bytes:
    return make_frame(Kind.HEADERS, flags | END_HEADERS, stream_id, block(headers))


def data_frame(stream_id: int, data: bytes, flags: int = 0) -> bytes:
    return make_frame(Kind.DATA, flags, stream_id, data)


def sent(connection: Http2Connection) -> list[Frame]:
    data = b"".join(connection.send_queue.take(2**40))
    return list(FrameReader(2**24).feed(data.removeprefix(PREFACE)))


def client() -> Http2Connection:
    """A client with stream 1 open and replied to."""
    connection = Http2Connection(is_client=True)
    assert connection.open_stream(REQUEST) == 1
    assert list(connection.receive(make_settings({}))) == [WindowUpdated()]
    assert list(connection.receive(headers_frame(1, REPLY))) == [HeadersReceived(1, REPLY, False)]
    sent(connection)
    return connection


def server() -> Http2Connection:
    """A server with stream 1 open."""
    connection = Http2Connection(is_client=False)
    assert list(connection.receive(PREFACE + make_settings({}))) == [WindowUpdated()]
    assert list(connection.receive(headers_frame(1, REQUEST))) == [
        HeadersReceived(1, REQUEST, False)
    ]
    sent(connection)
    return connection


BROKEN: dict[str, tuple[Callable[[], Http2Connection], bytes, ErrorCode]] = {
    "headers on stream 0": (client, headers_frame(0, REPLY), ErrorCode.PROTOCOL_ERROR),
    "data on stream 0": (client, data_frame(0, b""), ErrorCode.PROTOCOL_ERROR),
    "data on an idle stream": (client, data_frame(3, b""), ErrorCode.PROTOCOL_ERROR),
    "data on a stream of ours": (client, data_frame(2, b""), ErrorCode.PROTOCOL_ERROR),
    "a reset of an idle stream": (client, make_reset(3, 8), ErrorCode.PROTOCOL_ERROR),
    "credit for an idle stream": (client, make_window_update(3, 8), ErrorCode.PROTOCOL_ERROR),
    "headers on an idle stream": (client, headers_frame(3, REPLY), ErrorCode.PROTOCOL_ERROR),
    "an even request": (server, headers_frame(2, REQUEST), ErrorCode.PROTOCOL_ERROR),
    "a push": (client, make_frame(Kind.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), ErrorCode.PROTOCOL_ERROR),
    "settings of a stream": (client, make_frame(Kind.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "settings of seven bytes": (
        client,
        make_frame(Kind.SETTINGS, 0, 0, b"1234567"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "an ACK with settings": (
        client,
        make_frame(Kind.SETTINGS, ACK, 0, b"123456"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "a tiny frame size": (
        client,
        make_settings({Setting.MAX_FRAME_SIZE: 100}),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a huge frame size": (
        client,
        make_settings({Setting.MAX_FRAME_SIZE: 2**24}),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a huge window": (
        client,
        make_settings({Setting.INITIAL_WINDOW_SIZE: 2**31}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a window over the top by settings": (
        client,
        make_window_update(1, 2**31 - 1 - 65_535)
        + make_settings({Setting.INITIAL_WINDOW_SIZE: 65_536}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a connection's window over the top": (
        client,
        make_window_update(0, 2**31 - 1),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "no credit": (client, make_window_update(0, 0), ErrorCode.FLOW_CONTROL_ERROR),
    "a short ping": (client, make_frame(Kind.PING, 0, 0, b"123"), ErrorCode.FRAME_SIZE_ERROR),
    "a ping of a stream": (
        client,
        make_frame(Kind.PING, 0, 1, b"12345678"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a short reset": (client, make_frame(Kind.RST_STREAM, 0, 1, b"1"), ErrorCode.FRAME_SIZE_ERROR),
    "a short priority": (client, make_frame(Kind.PRIORITY, 0, 1, b"1"), ErrorCode.FRAME_SIZE_ERROR),
    "a priority of the connection": (
        client,
        make_frame(Kind.PRIORITY, 0, 0, b"12345"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a short goaway": (client, make_frame(Kind.GOAWAY, 0, 0, b"1"), ErrorCode.FRAME_SIZE_ERROR),
    "a goaway of a stream": (
        client,
        make_frame(Kind.GOAWAY, 0, 1, b"12345678"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "headers without room for their priority": (
        client,
        make_frame(Kind.HEADERS, PRIORITY | END_HEADERS, 1, b"1"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "a continuation of nothing": (
        client,
        make_frame(Kind.CONTINUATION, END_HEADERS, 1),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a ping within headers": (
        client,
        make_frame(Kind.HEADERS, 0, 1) + make_frame(Kind.PING, 0, 0, b"12345678"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a continuation on another stream": (
        server,
        make_frame(Kind.HEADERS, 0, 3) + make_frame(Kind.CONTINUATION, 0, 5),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "headers that are no HPACK": (
        client,
        make_frame(Kind.HEADERS, END_HEADERS, 1, b"\xff" * 9),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "headers without an end": (
        client,
        make_frame(Kind.HEADERS, 0, 1, b"x" * FRAME_SIZE)
        + make_frame(Kind.CONTINUATION, 0, 1, b"x" * FRAME_SIZE) * 2,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    # 5,000 bytes each as often as a byte refers to them.
    "few bytes that make many headers": (
        client,
        make_frame(Kind.HEADERS, END_HEADERS, 1, block((("x", "y" * 4000),)) + b"\xbe" * 1000),
        ErrorCode.COMPRESSION_ERROR,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_this_ends_the_connection_with_its_reason(what: str) -> None:
    make, data, code = BROKEN[what]
    connection = make()
    with pytest.raises(ProtocolError) as caught:
        list(connection.receive(data))
    assert caught.value.code == code
    last = sent(connection)[-1]
    assert (last.kind, last.payload[7]) == (Kind.GOAWAY, code)


def test_anything_before_settings_ends_the_connection() -> None:
    for data in (
        make_frame(Kind.PING, 0, 0, b"12345678"),
        make_frame(Kind.SETTINGS, ACK, 0),
    ):
        with pytest.raises(ProtocolError, match="not SETTINGS"):
            list(Http2Connection(is_client=True).receive(data))


UPPER = (("X-Upper", "1"),)
RESET: dict[str, tuple[Callable[[], Http2Connection], bytes, ErrorCode]] = {
    "an upper-case header": (client, headers_frame(1, UPPER, END_STREAM), ErrorCode.PROTOCOL_ERROR),
    "a connection header": (
        client,
        headers_frame(1, (("connection", "x"),), END_STREAM),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a status in trailers": (client, headers_frame(1, REPLY, END_STREAM), ErrorCode.PROTOCOL_ERROR),
    "trailers without an end": (client, headers_frame(1, (("a", "b"),)), ErrorCode.PROTOCOL_ERROR),
    "a stream's window over the top": (
        client,
        make_window_update(1, 2**31 - 1),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "no credit": (client, make_window_update(1, 0), ErrorCode.FLOW_CONTROL_ERROR),
    "more than the window": (
        client,
        data_frame(1, b"x" * FRAME_SIZE) * (STREAM_WINDOW // FRAME_SIZE) + data_frame(1, b"x"),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "data after the end": (
        server,
        data_frame(1, b"", END_STREAM) + data_frame(1, b""),
        ErrorCode.STREAM_CLOSED,
    ),
    "headers after the end": (
        server,
        data_frame(1, b"", END_STREAM) + headers_frame(1, (("a", "b"),), END_STREAM),
        ErrorCode.STREAM_CLOSED,
    ),
}


@pytest.mark.parametrize("what", RESET)
def test_this_ends_the_stream_alone(what: str) -> None:
    make, data, code = RESET[what]
    connection = make()
    *_, event = connection.receive(data)
    assert isinstance(event, StreamReset)
    assert (event.stream_id, event.code) == (1, code)
    assert event.problem
    assert [f.payload[3] for f in sent(connection) if f.kind == Kind.RST_STREAM] == [code]
    assert connection.send_window(1) == 0
    # The connection goes on, and what is under way for the stream is let pass.
    assert list(connection.receive(data_frame(1, b"x" * 1000) + headers_frame(1, REPLY))) == []
    list(connection.receive(make_frame(Kind.PING, 0, 0, b"12345678")))
    assert [f.kind for f in sent(connection)] == [Kind.PING]


def test_a_reply_has_to_begin_with_headers_that_have_a_status() -> None:
    for frame in (data_frame(1, b"x"), headers_frame(1, (("a", "b"),))):
        connection = Http2Connection(is_client=True)
        connection.open_stream(REQUEST)
        (event,) = list(connection.receive(make_settings({}) + frame))[1:]
        assert isinstance(event, StreamReset)
        assert event.problem


def test_a_request_that_is_none_is_refused_alone() -> None:
    for headers in (REQUEST[:2], (*REQUEST, (":path", "/2")), (("a", "b"), *REQUEST)):
        connection = server()
        assert list(connection.receive(headers_frame(3, headers))) == []
        assert [(f.kind, f.stream_id) for f in sent(connection)] == [(Kind.RST_STREAM, 3)]


def test_data_over_the_connections_window_ends_it() -> None:
    connection = client()
    connection.open_stream(REQUEST)
    connection.open_stream(REQUEST)
    list(connection.receive(headers_frame(3, REPLY) + headers_frame(5, REPLY)))
    for stream_id in (1, 3):
        for _ in range(STREAM_WINDOW // FRAME_SIZE):
            list(connection.receive(data_frame(stream_id, b"x" * FRAME_SIZE)))
    with pytest.raises(ProtocolError) as caught:
        list(connection.receive(data_frame(5, b"x")))
    assert caught.value.code == ErrorCode.FLOW_CONTROL_ERROR


def test_credit_is_told_in_quarters_and_only_for_what_was_consumed() -> None:
    connection = client()
    for _ in range(STREAM_WINDOW // FRAME_SIZE):
        list(connection.receive(data_frame(1, b"x" * FRAME_SIZE)))
    assert sent(connection) == []
    connection.credit(1, STREAM_WINDOW // 4 - 1)
    assert sent(connection) == []
    connection.credit(1, 1)
    assert [(f.kind, f.stream_id) for f in sent(connection)] == [(Kind.WINDOW_UPDATE, 1)]
    connection.credit(1, CONNECTION_WINDOW // 4 - STREAM_WINDOW // 4)
    assert [f.stream_id for f in sent(connection)] == [0, 1]


def test_padding_is_given_back_at_once() -> None:
    connection = client()
    for _ in range(CONNECTION_WINDOW // 4 // 256 + 1):
        list(connection.receive(data_frame(1, b"\xff" + b"\0" * 255, PADDED)))
    assert {f.stream_id for f in sent(connection)} == {0, 1}


def test_data_of_a_stream_that_was_given_up_does_not_eat_the_window() -> None:
    connection = client()
    connection.reset(1, ErrorCode.CANCEL)
    for _ in range(2 * CONNECTION_WINDOW // FRAME_SIZE):
        assert list(connection.receive(data_frame(1, b"x" * FRAME_SIZE))) == []
    assert Kind.WINDOW_UPDATE in {f.kind for f in sent(connection)}


def test_a_window_below_zero_grows_again() -> None:
    connection = client()
    connection.send_data(1, memoryview(b"x" * 65_535))
    assert connection.send_window(1) == 0
    list(connection.receive(make_window_update(0, 10**6)))
    list(connection.receive(make_settings({Setting.INITIAL_WINDOW_SIZE: 10})))
    assert connection.send_window(1) == 10 - 65_535
    list(connection.receive(make_window_update(1, 65_535)))
    assert connection.send_window(1) == 10
    assert connection.open_stream(REQUEST) == 3
    assert connection.send_window(3) == 10


def test_data_and_headers_are_cut_to_the_peers_frame_size() -> None:
    connection = client()
    long = (("grpc-status", "2"), ("long", "x" * 40_000))
    list(connection.receive(make_window_update(0, 10**6) + make_window_update(1, 10**6)))
    sent(connection)
    connection.send_data(1, memoryview(b"x" * 40_000))
    connection.open_stream(REQUEST + long)
    frames = sent(connection)
    assert [f.kind for f in frames] == [0, 0, 0, Kind.HEADERS, 9, 9]
    assert max(f.length for f in frames) == 16_384
    connection.send_headers(3, long, is_end=True)
    assert [f.flags for f in sent(connection)] == [END_STREAM, 0, END_HEADERS]
    list(connection.receive(make_settings({Setting.MAX_FRAME_SIZE: 50_000})))
    sent(connection)
    connection.send_data(1, memoryview(b"x" * 40_000), is_end=True)
    (frame,) = sent(connection)
    assert (frame.length, frame.flags) == (40_000, END_STREAM)


def test_streams_above_a_goaway_are_dropped_and_the_others_go_on() -> None:
    connection = client()
    assert connection.open_stream(REQUEST) == 3
    (event,) = connection.receive(make_goaway(1, 0, "bye"))
    assert event == GoAwayReceived(1, 0, "bye")
    assert connection.send_window(1) > 0
    assert connection.send_window(3) == 0
    (event,) = connection.receive(data_frame(1, b"x"))
    assert isinstance(event, DataReceived)
    assert list(connection.receive(headers_frame(3, REPLY))) == []


def test_a_clients_goaway_leaves_its_calls_alone() -> None:
    connection = server()
    assert list(connection.receive(make_goaway(0, 0, ""))) == [GoAwayReceived(0, 0, "")]
    assert connection.send_window(1) > 0


def test_the_header_table_shrinks_as_the_peer_wishes() -> None:
    connection = client()
    list(connection.receive(make_settings({Setting.HEADER_TABLE_SIZE: 0})))
    sent(connection)
    connection.open_stream(REQUEST)
    connection.open_stream(REQUEST)
    decoder = hpack.Decoder()
    first, second = sent(connection)
    # The first tells the new size, and neither refers to what a table would keep.
    decoder.decode(bytes(first.payload))
    assert decoder.header_table_size == 0
    assert tuple(decoder.decode(bytes(second.payload))) == REQUEST


def test_the_peers_limit_of_streams_is_seen() -> None:
    connection = client()
    list(connection.receive(make_settings({Setting.MAX_CONCURRENT_STREAMS: 1})))
    assert not connection.can_open
    list(connection.receive(make_reset(1, 8)))
    assert connection.can_open


def test_too_many_streams_are_refused_and_may_be_tried_again() -> None:
    connection = server()
    for number in range(1, MAX_STREAMS):
        assert len(list(connection.receive(headers_frame(1 + 2 * number, REQUEST)))) == 1
    assert list(connection.receive(headers_frame(9001, REQUEST))) == []
    (frame,) = sent(connection)
    assert (frame.kind, frame.payload[3]) == (Kind.RST_STREAM, ErrorCode.REFUSED_STREAM)
    list(connection.receive(make_reset(1, 8)))
    assert len(list(connection.receive(headers_frame(9003, REQUEST)))) == 1


def test_a_peer_that_asks_without_end_and_does_not_read_is_hung_up() -> None:
    connection = client()
    pings = make_frame(Kind.PING, 0, 0, b"12345678") * (MAX_OUTPUT // 17 + 1)
    with pytest.raises(ProtocolError) as caught:
        list(connection.receive(pings))
    assert caught.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_big_trailers_of_a_real_size_are_read() -> None:
    trailers = (("grpc-status", "2"), ("grpc-status-details-bin", "x" * (MAX_HEADER_LIST // 2)))
    data, kind = block(trailers), Kind.HEADERS
    connection = client()
    events: list[Event] = []
    while data:
        flags = END_STREAM if kind == Kind.HEADERS else 0
        flags |= END_HEADERS if len(data) <= 16_384 else 0
        events += connection.receive(make_frame(kind, flags, 1, data[:16_384]))
        data, kind = data[16_384:], Kind.CONTINUATION
    assert events == [HeadersReceived(1, trailers, True)]


def test_what_is_unknown_is_passed_over() -> None:
    connection = client()
    unknown = make_frame(200, 255, 77, b"anything")
    priority = make_frame(Kind.PRIORITY, 0, 99, b"12345")
    assert list(connection.receive(unknown + priority)) == []
    settings = make_frame(Kind.SETTINGS, 0, 0, b"\xff\xff\0\0\0\1")
    assert list(connection.receive(settings)) == [WindowUpdated()]
