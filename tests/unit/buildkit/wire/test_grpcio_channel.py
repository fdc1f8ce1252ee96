"""grpcio's channel against our server; the other way round: test_grpcio_server.py."""

import threading
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from kitcache.buildkit.wire.grpc import Code, RpcError, all_values, decode_status
from kitcache.buildkit.wire.rpc import Stream
from tests.unit.buildkit.wire.grpciokit import (
    DETAILS,
    MESSAGES,
    MIB,
    PROBLEM,
    STREAM,
    big,
    their_channel,
)
from tests.unit.buildkit.wire.sockets import WAIT_S


def test_a_unary_call_to_us_brings_any_size_there_and_back(socket_path: str) -> None:
    def echo(stream: Stream) -> None:
        stream.send(*stream)

    with their_channel(socket_path, {"/t.T/Echo": echo}) as channel:
        call = channel.unary_unary("/t.T/Echo")
        for message in MESSAGES:
            assert call(message, timeout=WAIT_S) == message


def test_streams_to_us_keep_order_in_both_directions(socket_path: str) -> None:
    def double(stream: Stream) -> None:
        for request in stream:
            stream.send(request, request)

    with their_channel(socket_path, {"/t.T/Double": double}) as channel:
        replies = channel.stream_stream("/t.T/Double")(iter(STREAM), timeout=WAIT_S)
        assert list(replies) == [m for m in STREAM for _ in range(2)]


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


def test_metadata_arrives_at_us_with_repeated_keys_in_order(socket_path: str) -> None:
    seen: list[Stream] = []

    def look(stream: Stream) -> None:
        seen.append(stream)
        stream.send(b"")

    metadata = (("k", "1"), ("other", "x y"), ("k", "2"), ("k-bin", b"\x00\xff"))
    with their_channel(socket_path, {"/T.t/LOOK": look}) as channel:
        channel.unary_unary("/t.T/Look")(b"", metadata=metadata, timeout=WAIT_S)
    assert seen[0].method == "/t.T/Look"
    assert all_values(seen[0].metadata, "k") == ("1", "2")
    assert all_values(seen[0].metadata, "other") == ("x y",)
    assert all_values(seen[0].metadata, "k-bin") in {("AP8",), ("AP8=",)}


def test_a_failure_of_ours_arrives_with_its_details(socket_path: str) -> None:
    def fail(stream: Stream) -> None:
        raise RpcError(Code.FAILED_PRECONDITION, PROBLEM, DETAILS)

    with (
        their_channel(socket_path, {"/t.T/Fail": fail}) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/t.T/Fail")(b"", timeout=WAIT_S)
    error: Any = caught.value
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == PROBLEM
    sent = dict(error.trailing_metadata())["grpc-status-details-bin"]
    read = decode_status(
        (("grpc-status", "9"), ("grpc-status-details-bin", b64encode(sent).decode()))
    )
    assert read is not None
    assert read.details == DETAILS


def test_an_unknown_method_of_ours_is_unimplemented(socket_path: str) -> None:
    with their_channel(socket_path, {}) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/t.T/None")(b"", timeout=WAIT_S)
    error: Any = caught.value
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


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
