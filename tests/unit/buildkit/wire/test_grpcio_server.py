"""Our channel against grpcio's server; the other way round: test_grpcio_channel.py."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from kitcache.buildkit.proto import rpc_pb2
from kitcache.buildkit.wire.grpc import Code, RpcError, all_values
from tests.unit.buildkit.wire.grpciokit import (
    DETAILS,
    MESSAGES,
    MIB,
    PROBLEM,
    STREAM,
    big,
    dial,
    serve,
    their_server,
)
from tests.unit.buildkit.wire.sockets import WAIT_S


def test_a_unary_call_brings_any_size_there_and_back(socket_path: str) -> None:
    with their_server(socket_path, {"/t.T/Echo": ("unary_unary", lambda m, c: m)}) as channel:
        for message in MESSAGES:
            assert channel.unary("/t.T/Echo", message, timeout_s=WAIT_S) == message


def test_streams_keep_order_in_both_directions(socket_path: str) -> None:
    def double(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for request in requests:
            yield request
            yield request

    with their_server(socket_path, {"/t.T/Double": ("stream_stream", double)}) as channel:
        stream = channel.open("/t.T/Double")
        sender = threading.Thread(target=lambda: (stream.send(*STREAM), stream.end()))
        sender.start()
        assert list(stream) == [m for m in STREAM for _ in range(2)]
        sender.join()
        assert stream.receive() is None


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
    assert all_values(stream.trailers, "t") == ("1", "2")
    assert all_values(stream.trailers, "t-bin") in {("AP8",), ("AP8=",)}


def test_a_failure_arrives_with_its_details(socket_path: str) -> None:
    status = rpc_pb2.Status(
        code=9, details=[rpc_pb2.Detail(type_url=d.type_url, value=d.value) for d in DETAILS]
    )

    def fail(_: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, PROBLEM)
        return b""

    with (
        their_server(socket_path, {"/t.T/Fail": ("unary_unary", fail)}) as channel,
        pytest.raises(RpcError) as caught,
    ):
        channel.unary("/t.T/Fail", b"", timeout_s=WAIT_S)
    assert caught.value.code == Code.FAILED_PRECONDITION
    assert caught.value.message == PROBLEM
    assert caught.value.details == DETAILS


def test_an_unknown_method_is_unimplemented(socket_path: str) -> None:
    with their_server(socket_path, {}) as channel, pytest.raises(RpcError) as caught:
        channel.unary("/t.T/None", b"", timeout_s=WAIT_S)
    assert caught.value.code == Code.UNIMPLEMENTED


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


def test_a_server_that_stops_ends_our_calls_as_unavailable(socket_path: str) -> None:
    entered = threading.Event()

    def hang(_: bytes, context: Any) -> bytes:
        entered.set()
        threading.Event().wait(0.5)
        return b""

    server = serve(socket_path, {"/t.T/Hang": ("unary_unary", hang)})
    channel = dial(socket_path)
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
