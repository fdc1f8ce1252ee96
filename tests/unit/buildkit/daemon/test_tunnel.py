"""A connection inside a stream: what BytesMessages carry, whatever their boundaries."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from kitcache.buildkit.daemon.tunnel import Tunnel
from kitcache.buildkit.wire.rpc import Channel, Handler, Server, Stream
from tests.unit.buildkit.calls import served

SESSION = "/moby.buildkit.v1.Control/Session"
ECHO = "/test.Echo/Echo"
PATIENCE_S = 20.0


@contextmanager
def tunnelled(handler: Handler) -> Iterator[Tunnel]:
    with served({SESSION: handler}) as channel:
        tunnel = Tunnel(channel.open(SESSION))
        try:
            yield tunnel
        finally:
            tunnel.close()


def messages(*parts: bytes) -> Handler:
    def send(stream: Stream) -> None:
        stream.send(*parts)

    return send


def test_empty_messages_and_unknown_fields_are_not_the_end() -> None:
    parts = (b"", b"\x0a\x00", b"\x0a\x01a\x10\x07", b"\x0a\x01b")
    with tunnelled(messages(*parts)) as tunnel:
        assert [tunnel.read(), tunnel.read(), tunnel.read(), tunnel.read()] == [
            b"a",
            b"b",
            b"",
            b"",
        ]


def test_what_is_no_message_is_a_failure_of_the_connection() -> None:
    with (
        tunnelled(messages(b"\x0a\x05a")) as tunnel,
        pytest.raises(OSError, match="malformed"),
    ):
        tunnel.read()


def test_a_lost_connection_is_an_os_error_for_reader_and_writer() -> None:
    with served({SESSION: lambda stream: list(stream) and None}) as channel:
        tunnel = Tunnel(channel.open(SESSION))
        channel.close()
        with pytest.raises(OSError, match="connection failed"):
            tunnel.read()
        with pytest.raises(OSError, match="connection failed"):
            tunnel.write(b"x")
        tunnel.close()


def test_close_half_closes_and_lets_the_daemon_have_the_last_word() -> None:
    over: list[bytes | None] = []

    def last_word(stream: Stream) -> None:
        over.append(stream.receive(PATIENCE_S))
        stream.send(b"\x0a\x03bye")

    with served({SESSION: last_word}) as channel, ThreadPoolExecutor() as pool:
        tunnel = Tunnel(channel.open(SESSION))
        reading = pool.submit(tunnel.read)
        tunnel.close()
        tunnel.close()
        assert reading.result(PATIENCE_S) in (b"bye", b"")
        assert over == [None]


def test_close_ends_a_read_though_the_daemon_never_does() -> None:
    stop = threading.Event()

    def stubborn(stream: Stream) -> None:
        stop.wait(3 * PATIENCE_S)

    with served({SESSION: stubborn}) as channel, ThreadPoolExecutor() as pool:
        tunnel = Tunnel(channel.open(SESSION))
        reading = pool.submit(tunnel.read)
        while not tunnel._is_reading:
            threading.Event().wait(0.001)
        tunnel.close()
        try:
            assert reading.result(PATIENCE_S) == b""
        finally:
            stop.set()


def test_a_server_is_called_through_it() -> None:
    big = bytes(range(256)) * 20_000
    failures: list[str | None] = []

    def daemon(stream: Stream) -> None:
        """Calls back through the tunnel, as the daemon does."""
        inner = Channel(Tunnel(stream))
        assert inner.unary(ECHO, big, timeout_s=PATIENCE_S) == big
        inner.close()

    def echo(stream: Stream) -> None:
        stream.send(stream.receive() or b"")

    with served({SESSION: daemon}) as channel:
        server = Server(Tunnel(channel.open(SESSION)), {ECHO: echo})
        assert server.wait_closed(PATIENCE_S)
        failures.append(server.failure)
        server.close()
        assert channel.is_alive
    assert "Error" not in str(failures[0])
