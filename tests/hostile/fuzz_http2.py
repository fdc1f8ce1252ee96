"""Fuzzes the HTTP/2 connection and the calls over it, as a peer that sends anything.

Laws: nothing but ProtocolError comes out of a connection, and a GOAWAY tells the peer; whatever a
peer sends and then hangs up, every call ends, no thread stays and none dies of an exception.
"""

import threading

from hypothesis import example, given
from hypothesis import strategies as st

from kitcache.buildkit.wire.frames import (
    PREFACE,
    Http2FrameType,
    ProtocolError,
    make_frame,
    make_settings,
)
from kitcache.buildkit.wire.grpc import RpcError, frame_messages
from kitcache.buildkit.wire.headers import HeaderCodec
from kitcache.buildkit.wire.http2 import Http2Connection
from kitcache.buildkit.wire.rpc import Channel, Server, Stream
from tests.hostile.fuzz_links import thorough
from tests.unit.buildkit.wire.peers import REPLY, REQUEST
from tests.unit.buildkit.wire.sockets import SocketTransport, no_thread_left, transport_pair

REQUEST_BLOCK = HeaderCodec().encode((*REQUEST, ("content-type", "application/grpc")))
REPLY_BLOCK = HeaderCodec().encode(REPLY)
TRAILERS_BLOCK = HeaderCodec().encode((("grpc-status", "0"),))
MESSAGE = b"".join(frame_messages([b"message", b"", b"x" * 300]))

FIELDS = st.one_of(
    st.sampled_from([REQUEST_BLOCK, REPLY_BLOCK, TRAILERS_BLOCK, MESSAGE, b"", bytes(4), bytes(8)]),
    st.binary(max_size=40),
    st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big")),
)
FRAMES = st.builds(
    make_frame,
    st.one_of(st.sampled_from(list(Http2FrameType)), st.integers(0, 255)),
    st.one_of(st.sampled_from([0, 1, 4, 5, 8, 32]), st.integers(0, 255)),
    st.one_of(st.sampled_from([0, 1, 1, 1, 3, 5, 2]), st.integers(0, 2**32 - 1)),
    FIELDS,
)
SOUND_CLIENT = [
    make_settings({}),
    make_frame(Http2FrameType.HEADERS, 4, 1, REQUEST_BLOCK),
    make_frame(Http2FrameType.DATA, 0, 1, MESSAGE),
    make_frame(Http2FrameType.DATA, 1, 1, MESSAGE),
    make_frame(Http2FrameType.HEADERS, 5, 3, REQUEST_BLOCK),
]
SOUND_SERVER = [
    make_settings({}),
    make_frame(Http2FrameType.HEADERS, 4, 1, REPLY_BLOCK),
    make_frame(Http2FrameType.DATA, 0, 1, MESSAGE),
    make_frame(Http2FrameType.HEADERS, 5, 1, TRAILERS_BLOCK),
]


@st.composite
def transcripts(draw: st.DrawFn, sound: list[bytes]) -> bytes:
    """A sound one with frames put in, left out, and a byte changed here and there."""
    frames = list(sound)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(frames)))
        if draw(st.booleans()):
            frames.insert(place, draw(FRAMES))
        else:
            del frames[place : place + 1]
    data = bytearray(b"".join(frames))
    for _ in range(draw(st.integers(0, 2)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


CUTS = st.lists(st.integers(1, 200), max_size=6)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    pieces = []
    for size in cuts:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in (*pieces, data) if piece]


def attempt(connection: Http2Connection, data: bytes, cuts: list[int]) -> None:
    try:
        for piece in cut(data, cuts):
            for _ in connection.receive(piece):
                pass
    except ProtocolError:
        output = b"".join(connection.send_queue.take(2**40))
        assert b"\0\0\0\0\0" in output
        assert output.rfind(bytes([Http2FrameType.GOAWAY]) + bytes(5)) >= 0


@thorough
@given(st.binary(max_size=200), CUTS, st.booleans())
@example(b"HTTP/1.1 400 Bad Request\r\n\r\n", [], True)
@example(PREFACE[:-1], [3], False)
def fuzz_bytes(data: bytes, cuts: list[int], is_client: bool) -> None:
    attempt(Http2Connection(is_client=is_client), data, cuts)


@thorough
@given(st.lists(FRAMES, max_size=12), CUTS, st.booleans())
def fuzz_frames(frames: list[bytes], cuts: list[int], is_client: bool) -> None:
    connection = Http2Connection(is_client=is_client)
    if is_client:
        connection.open_stream(REQUEST)
    start = b"" if is_client else PREFACE
    attempt(connection, start + make_settings({}) + b"".join(frames), cuts)


@thorough
@given(transcripts(SOUND_SERVER), CUTS)
def fuzz_channel(data: bytes, cuts: list[int]) -> None:
    """A call ends, with a value or an RpcError."""
    one, other = transport_pair()
    with no_thread_dies(), no_thread_left():
        channel = Channel(one)
        stream = channel.open("/t.T/M")
        hang_up_after(other, data, cuts)
        try:
            for _ in stream:
                pass
        except RpcError:
            pass
        channel.close()


@thorough
@given(transcripts(SOUND_CLIENT), CUTS)
def fuzz_server(data: bytes, cuts: list[int]) -> None:
    """A server closes, and its handlers end."""

    def handler(stream: Stream) -> None:
        for message in stream:
            stream.send(message)

    one, other = transport_pair()
    with no_thread_dies(), no_thread_left():
        server = Server(one, {"/t.T/M": handler})
        hang_up_after(other, PREFACE + data, cuts)
        assert server.wait_closed(20)


def hang_up_after(transport: SocketTransport, data: bytes, cuts: list[int]) -> None:
    try:
        for piece in cut(data, cuts):
            transport.write(piece)
        transport.sock.shutdown(1)
        while transport.read():
            pass
    except OSError:
        # We hung up first.
        pass
    transport.close()


class no_thread_dies:  # noqa: N801
    """No exception ends a thread within the block."""

    def __enter__(self) -> None:
        self.thrown: list[object] = []
        self.before, threading.excepthook = threading.excepthook, self.thrown.append

    def __exit__(self, *_: object) -> None:
        threading.excepthook = self.before
        assert self.thrown == []
