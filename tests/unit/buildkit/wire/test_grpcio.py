"""Our two roles against grpcio's two roles, over a unix socket: one set of laws for both."""

import contextlib
import shutil
import socket
import tempfile
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from kitcache.buildkit.proto import rpc_pb2
from kitcache.buildkit.wire.grpc import Code, Detail, RpcError, decode_status, every
from kitcache.buildkit.wire.rpc import Channel, Server, Stream
from tests.unit.buildkit.wire.sockets import SocketTransport, no_thread_left

MIB = 2**20
# Error details and metadata of the sizes that BuildKit sends are over grpcio's defaults.
OPTIONS = [
    ("grpc.max_receive_message_length", 64 * MIB),
    ("grpc.max_send_message_length", 64 * MIB),
    ("grpc.max_metadata_size", 4 * MIB),
    ("grpc.absolute_max_metadata_size", 4 * MIB),
]
DETAILS = (
    Detail("github.com/moby/buildkit/errdefs.Source+json", b'{"ranges": []}' * 7500),
    Detail("x/empty", b""),
)
WAIT_S = 20


@pytest.fixture
def socket_path() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="kc")
    yield f"{folder}/s"
    shutil.rmtree(folder)


class Raw(grpc.GenericRpcHandler):
    """A grpcio service of functions over bytes."""

    def __init__(self, methods: dict[str, tuple[str, Callable[..., Any]]]) -> None:
        self.methods = methods

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method not in self.methods:
            return None
        kind, function = self.methods[details.method]
        return getattr(grpc, f"{kind}_rpc_method_handler")(function)


@contextlib.contextmanager
def their_server(
    path: str, methods: dict[str, tuple[str, Callable[..., Any]]]
) -> Iterator[Channel]:
    """Our channel to grpcio's server."""
    server = grpc.server(ThreadPoolExecutor(8), handlers=[Raw(methods)], options=OPTIONS)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    with no_thread_left():
        channel = Channel(SocketTransport(sock))
        try:
            yield channel
        finally:
            channel.close()
    server.stop(0).wait()


@contextlib.contextmanager
def their_channel(path: str, handlers: dict[str, Callable[[Stream], None]]) -> Iterator[Any]:
    """grpcio's channel to our server."""
    with socket.socket(socket.AF_UNIX) as listener, no_thread_left():
        listener.bind(path)
        listener.listen()
        channel = grpc.insecure_channel(f"unix:{path}", options=OPTIONS)
        ready = grpc.channel_ready_future(channel)
        server = Server(SocketTransport(listener.accept()[0]), handlers)
        ready.result(WAIT_S)
        try:
            yield channel
        finally:
            channel.close()
            assert server.wait_closed(WAIT_S)


def big(size: int) -> bytes:
    return bytes(range(256)) * (size // 256)


def test_a_unary_call_brings_any_size_there_and_back(socket_path: str) -> None:
    with their_server(socket_path, {"/t.T/Echo": ("unary_unary", lambda m, c: m)}) as channel:
        for message in (b"", b"x", big(10 * MIB), big(65_536), b"y"):
            assert channel.unary("/t.T/Echo", message, timeout_s=WAIT_S) == message


def test_a_unary_call_to_us_brings_any_size_there_and_back(socket_path: str) -> None:
    def echo(stream: Stream) -> None:
        stream.send(*stream)

    with their_channel(socket_path, {"/t.T/Echo": echo}) as channel:
        call = channel.unary_unary("/t.T/Echo")
        for message in (b"", b"x", big(10 * MIB), big(65_536), b"y"):
            assert call(message, timeout=WAIT_S) == message


def test_streams_keep_order_in_both_directions(socket_path: str) -> None:
    def double(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for request in requests:
            yield request
            yield request

    messages = [big(size * 256) for size in (1, 400, 0, 3, 20_000, 1, 0)]
    with their_server(socket_path, {"/t.T/Double": ("stream_stream", double)}) as channel:
        stream = channel.open("/t.T/Double")
        sender = threading.Thread(target=lambda: (stream.send(*messages), stream.end()))
        sender.start()
        assert list(stream) == [m for m in messages for _ in range(2)]
        sender.join()
        assert stream.receive() is None


def test_streams_to_us_keep_order_in_both_directions(socket_path: str) -> None:
    def double(stream: Stream) -> None:
        for request in stream:
            stream.send(request, request)

    messages = [big(size * 256) for size in (1, 400, 0, 3, 20_000, 1, 0)]
    with their_channel(socket_path, {"/t.T/Double": double}) as channel:
        replies = channel.stream_stream("/t.T/Double")(iter(messages), timeout=WAIT_S)
        assert list(replies) == [m for m in messages for _ in range(2)]


def test_many_calls_run_side_by_side(socket_path: str) -> None:
    def add(requests: Iterator[bytes], _: Any) -> bytes:
        return str(sum(len(request) for request in requests)).encode()

    with their_server(socket_path, {"/t.T/Add": ("stream_unary", add)}) as channel:

        def call(number: int) -> bytes | None:
            stream = channel.open("/t.T/Add")
            for _ in range(20):
                stream.send(big(MIB // 8), b"x" * number)
            stream.end()
            return stream.receive(WAIT_S)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(call, range(8)))
    assert answers == [str(20 * (MIB // 8 + n)).encode() for n in range(8)]


def test_many_calls_to_us_run_side_by_side(socket_path: str) -> None:
    def add(stream: Stream) -> None:
        stream.send(str(sum(len(request) for request in stream)).encode())

    with their_channel(socket_path, {"/t.T/Add": add}) as channel:
        calls = [
            channel.stream_unary("/t.T/Add").future(
                iter([big(MIB // 8) + b"x" * number] * 20), timeout=WAIT_S
            )
            for number in range(8)
        ]
        assert [call.result() for call in calls] == [
            str(20 * (MIB // 8 + n)).encode() for n in range(8)
        ]


def test_metadata_arrives_with_repeated_keys_in_order(socket_path: str) -> None:
    seen: list[Any] = []

    def look(_: bytes, context: Any) -> bytes:
        seen.extend((str(key), value) for key, value in context.invocation_metadata())
        context.set_trailing_metadata((("t", "1"), ("t", "2"), ("t-bin", b"\x00\xff")))
        return b""

    metadata = (("k", "1"), ("other", "x y"), ("k", "2"), ("k-bin", "AP8"))
    with their_server(socket_path, {"/t.T/Look": ("unary_unary", look)}) as channel:
        stream = channel.open("/t.T/Look", metadata=metadata)
        stream.send(b"")
        stream.end()
        assert list(stream) == [b""]
    assert [value for key, value in seen if key == "k"] == ["1", "2"]
    assert ("k-bin", b"\x00\xff") in seen
    assert every(stream.trailers, "t") == ("1", "2")
    assert every(stream.trailers, "t-bin") in {("AP8",), ("AP8=",)}


def test_metadata_arrives_at_us_with_repeated_keys_in_order(socket_path: str) -> None:
    seen: list[Stream] = []

    def look(stream: Stream) -> None:
        seen.append(stream)
        stream.send(b"")

    metadata = (("k", "1"), ("other", "x y"), ("k", "2"), ("k-bin", b"\x00\xff"))
    with their_channel(socket_path, {"/T.t/LOOK": look}) as channel:
        channel.unary_unary("/t.T/Look")(b"", metadata=metadata, timeout=WAIT_S)
    assert seen[0].method == "/t.T/Look"
    assert every(seen[0].metadata, "k") == ("1", "2")
    assert every(seen[0].metadata, "other") == ("x y",)
    assert every(seen[0].metadata, "k-bin") in {("AP8",), ("AP8=",)}


def test_a_failure_arrives_with_its_details(socket_path: str) -> None:
    status = rpc_pb2.Status(
        code=9, details=[rpc_pb2.Detail(type_url=d.type_url, value=d.value) for d in DETAILS]
    )

    def fail(_: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "änders % \n\x00")
        return b""

    with (
        their_server(socket_path, {"/t.T/Fail": ("unary_unary", fail)}) as channel,
        pytest.raises(RpcError) as caught,
    ):
        channel.unary("/t.T/Fail", b"", timeout_s=WAIT_S)
    assert caught.value.code == Code.FAILED_PRECONDITION
    assert caught.value.message == "änders % \n\x00"
    assert caught.value.details == DETAILS


def test_a_failure_of_ours_arrives_with_its_details(socket_path: str) -> None:
    def fail(stream: Stream) -> None:
        raise RpcError(Code.FAILED_PRECONDITION, "änders % \n\x00", DETAILS)

    with (
        their_channel(socket_path, {"/t.T/Fail": fail}) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/t.T/Fail")(b"", timeout=WAIT_S)
    error: Any = caught.value
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "änders % \n\x00"
    sent = dict(error.trailing_metadata())["grpc-status-details-bin"]
    read = decode_status(
        (("grpc-status", "9"), ("grpc-status-details-bin", b64encode(sent).decode()))
    )
    assert read is not None
    assert read.details == DETAILS


def test_an_unknown_method_is_unimplemented_both_ways(socket_path: str) -> None:
    with their_server(socket_path, {}) as channel, pytest.raises(RpcError) as caught:
        channel.unary("/t.T/None", b"", timeout_s=WAIT_S)
    assert caught.value.code == Code.UNIMPLEMENTED
    with their_channel(f"{socket_path}2", {}) as theirs, pytest.raises(grpc.RpcError) as thrown:
        theirs.unary_unary("/t.T/None")(b"", timeout=WAIT_S)
    error: Any = thrown.value
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_ends_a_call_and_the_server_knows(socket_path: str) -> None:
    ended = threading.Event()

    def hang(_: bytes, context: Any) -> bytes:
        context.add_callback(ended.set)
        assert context.time_remaining() < 5
        ended.wait(WAIT_S)
        return b""

    with their_server(socket_path, {"/t.T/Hang": ("unary_unary", hang)}) as channel:
        with pytest.raises(RpcError) as caught:
            channel.unary("/t.T/Hang", b"", timeout_s=0.2)
        assert caught.value.code == Code.DEADLINE_EXCEEDED
        assert ended.wait(WAIT_S)
        assert channel.is_alive


def test_their_deadline_ends_our_handler(socket_path: str) -> None:
    ended: list[RpcError] = []
    done = threading.Event()

    def hang(stream: Stream) -> None:
        try:
            while stream.receive() is not None:
                pass
        except RpcError as error:
            ended.append(error)
            raise
        finally:
            done.set()

    def requests() -> Iterator[bytes]:
        yield b"x"
        done.wait(WAIT_S)

    with their_channel(socket_path, {"/t.T/Hang": hang}) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary("/t.T/Hang")(requests(), timeout=0.5)
        error: Any = caught.value
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert done.wait(WAIT_S)
    assert ended[0].code == Code.CANCELLED


def test_a_cancel_reaches_the_other_side(socket_path: str) -> None:
    ended = threading.Event()

    def talk(_: bytes, context: Any) -> Iterator[bytes]:
        context.add_callback(ended.set)
        yield b"first"
        ended.wait(WAIT_S)

    with their_server(socket_path, {"/t.T/Talk": ("unary_stream", talk)}) as channel:
        stream = channel.open("/t.T/Talk")
        stream.send(b"")
        assert stream.receive(WAIT_S) == b"first"
        stream.cancel()
        assert ended.wait(WAIT_S)
        with pytest.raises(RpcError) as caught:
            stream.receive()
        assert caught.value.code == Code.CANCELLED


def test_their_cancel_reaches_a_handler_that_sends(socket_path: str) -> None:
    ended: list[RpcError] = []

    def flood(stream: Stream) -> None:
        try:
            while True:
                stream.send(big(MIB))
        except RpcError as error:
            ended.append(error)

    with their_channel(socket_path, {"/t.T/Flood": flood}) as channel:
        call = channel.unary_stream("/t.T/Flood")(b"")
        assert next(call) == big(MIB)
        call.cancel()
        with pytest.raises(grpc.RpcError):
            list(call)
    assert ended[0].code == Code.CANCELLED


def test_a_handler_that_returns_early_ends_the_call_with_ok(socket_path: str) -> None:
    done = threading.Event()

    def first_only(stream: Stream) -> None:
        stream.send(stream.receive() or b"")

    def requests() -> Iterator[bytes]:
        yield b"one"
        done.wait(WAIT_S)

    with their_channel(socket_path, {"/t.T/First": first_only}) as channel:
        call = channel.stream_stream("/t.T/First")(requests(), timeout=WAIT_S)
        assert list(call) == [b"one"]
        done.set()
        assert call.code() == grpc.StatusCode.OK


def test_their_server_that_returns_early_ends_our_sending(socket_path: str) -> None:
    def first_only(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
        yield next(requests)

    with their_server(socket_path, {"/t.T/First": ("stream_stream", first_only)}) as channel:
        stream = channel.open("/t.T/First")
        stream.send(b"one")
        assert list(stream) == [b"one"]
        with pytest.raises(RpcError) as caught:
            stream.send(b"two")
        assert caught.value.code == Code.FAILED_PRECONDITION
        stream.end()


def test_an_exception_in_a_handler_shows_its_class_only(socket_path: str) -> None:
    def fail(stream: Stream) -> None:
        raise KeyError("a secret")

    with (
        their_channel(socket_path, {"/t.T/Fail": fail}) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/t.T/Fail")(b"", timeout=WAIT_S)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "KeyError")


def test_a_server_that_stops_ends_our_calls_as_unavailable(socket_path: str) -> None:
    entered = threading.Event()

    def hang(_: bytes, context: Any) -> bytes:
        entered.set()
        threading.Event().wait(0.5)
        return b""

    server = grpc.server(
        ThreadPoolExecutor(2), handlers=[Raw({"/t.T/Hang": ("unary_unary", hang)})]
    )
    server.add_insecure_port(f"unix:{socket_path}")
    server.start()
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(socket_path)
    channel = Channel(SocketTransport(sock))
    stream = channel.open("/t.T/Hang")
    stream.send(b"")
    stream.end()
    assert entered.wait(WAIT_S)
    stopped = server.stop(0)
    with pytest.raises(RpcError) as caught:
        stream.receive(WAIT_S)
    assert caught.value.code in {Code.UNAVAILABLE, Code.CANCELLED}
    stopped.wait()
    channel.close()
    assert not channel.is_alive
