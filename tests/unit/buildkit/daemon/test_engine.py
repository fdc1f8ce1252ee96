"""The engine's upgrade: what we ask, what we make of the answers."""

import socket
from contextlib import suppress

import pytest

from kitcache.buildkit.daemon.engine import GRPC, SESSION, SWITCHED, Answer, request_upgrade
from kitcache.buildkit.daemon.transport import Deadline, SocketTransport
from kitcache.buildkit.wire.grpc import Metadata
from tests.unit.buildkit.daemon.peer import PATIENCE_S, played, read_head

YES = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


def ask(answer: bytes, *, step: int = 10**6) -> tuple[Answer, bytes]:
    """The answer as we understand it, and the bytes that follow it."""

    def play(sock: socket.socket) -> None:
        read_head(sock)
        for i in range(0, len(answer), step):
            sock.sendall(answer[i : i + step])

    with played(play) as (ours, peer):
        transport = SocketTransport(ours)
        found = request_upgrade(transport, GRPC, Deadline(PATIENCE_S))
        rest = b""
        while part := transport.read():
            rest += part
        peer.join()
        transport.close()
        assert peer.failure is None
        return found, rest


@pytest.mark.parametrize("step", [1, 7, 10**6])
def test_bytes_after_the_answer_belong_to_http2(step: int) -> None:
    found, rest = ask(YES + b"\0\0\0\4\0\0\0\0\0", step=step)
    assert found.status == SWITCHED
    assert rest == b"\0\0\0\4\0\0\0\0\0"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'HTTP/1.1 404 Not Found\r\n\r\n{"message":"page not found"}', (404, "page not found")),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", (403, "Forbidden")),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nno TLS\nmore", (400, "no TLS")),
        (b"HTTP/1.1 500\r\n\r\n[1]", (500, "")),
        (b'HTTP/1.1 500 x\r\n\r\n{"message": 5}', (500, "x")),
        (b"\0\0\0\4\0\0\0\0\0", (0, "")),
        (b"\x15\3\3\0\2\2\x46", (0, "")),
        (b"", (0, "")),
        (b"HTTP/1.1 2", (0, "")),
        (b"HTTP/1.1 two\r\n\r\n", (0, "")),
        (b"HTTP/\r\n\r\n", (0, "")),
    ],
)
@pytest.mark.parametrize("step", [1000, 10**6])
def test_every_other_answer_is_a_no(answer: bytes, expected: tuple[int, str], step: int) -> None:
    assert ask(answer, step=step)[0] == expected


def test_an_endless_head_is_cut_off() -> None:
    def flood(sock: socket.socket) -> None:
        read_head(sock)
        with suppress(OSError):
            while True:
                sock.sendall(b"HTTP/" + b"x" * 10_000)

    with played(flood) as (ours, _):
        transport = SocketTransport(ours)
        assert request_upgrade(transport, GRPC, Deadline(PATIENCE_S)) == Answer(0, "")
        transport.close()


def test_a_session_is_named_in_the_headers_repeated_ones_too() -> None:
    heads: list[bytes] = []

    def play(sock: socket.socket) -> None:
        heads.append(read_head(sock))
        sock.sendall(YES)

    metadata: Metadata = (("x-m", "/a/B"), ("x-m", "/c/D"), ("x-id", "é"))
    with played(play) as (ours, _):
        transport = SocketTransport(ours)
        request_upgrade(transport, SESSION, Deadline(PATIENCE_S), metadata=metadata)
        transport.close()
    lines = heads[0].decode().split("\r\n")
    assert lines[0] == "POST /session HTTP/1.1"
    assert {"Connection: Upgrade", "Upgrade: h2c"} < set(lines)
    assert lines[-5:] == ["x-m: /a/B", "x-m: /c/D", "x-id: é", "", ""]


def test_no_metadata_smuggles_a_header_in() -> None:
    with played(lambda sock: None) as (ours, _):
        transport = SocketTransport(ours)
        with pytest.raises(ValueError, match="x-name"):
            request_upgrade(
                transport, SESSION, Deadline(PATIENCE_S), metadata=(("x-name", "a\r\nx: y"),)
            )
        transport.close()


def test_a_silent_engine_is_not_waited_for_longer_than_the_deadline() -> None:
    with played(lambda sock: read_head(sock) and sock.recv(1) and None) as (ours, _):
        transport = SocketTransport(ours)
        with pytest.raises(TimeoutError):
            request_upgrade(transport, GRPC, Deadline(0.05))
        transport.close()
