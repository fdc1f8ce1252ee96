"""A socket is read by one thread, written by another, closed by any."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kitcache.buildkit.daemon.transport import Deadline, SocketTransport, open_tcp, open_unix
from tests.unit.buildkit.daemon.peer import PATIENCE_S, Peer, played, read_exactly

BIG = bytes(range(256)) * 40_000


def wait_until_in_call(transport: SocketTransport, users: int = 1) -> None:
    """Until that many threads are within read or write."""
    while transport._users < users:
        threading.Event().wait(0.001)


def test_bytes_pass_whole_both_ways_at_once() -> None:
    def echo(sock: socket.socket) -> None:
        sock.sendall(BIG)
        assert read_exactly(sock, len(BIG)) == BIG

    with played(echo) as (ours, peer), ThreadPoolExecutor() as pool:
        transport = SocketTransport(ours)
        sent = pool.submit(transport.write, memoryview(BIG))
        received = b""
        while len(received) < len(BIG):
            received += transport.read()
        sent.result(PATIENCE_S)
        peer.join()
        assert received == BIG
        assert peer.failure is None
        assert transport.read() == b""
        assert transport.opening == BIG[:512]
        transport.close()


def test_what_was_unread_comes_first() -> None:
    with played(lambda sock: sock.sendall(b"later")) as (ours, _):
        transport = SocketTransport(ours)
        transport.unread(b"sooner")
        assert [transport.read(), transport.read(), transport.read()] == [b"sooner", b"later", b""]
        transport.close()


@pytest.mark.parametrize("what", ["read", "write"])
def test_close_ends_a_call_of_another_thread(what: str) -> None:
    stop = threading.Event()
    with (
        played(lambda _: stop.wait(PATIENCE_S) and None) as (ours, _),
        ThreadPoolExecutor() as pool,
    ):
        transport = SocketTransport(ours)
        call = pool.submit(transport.read) if what == "read" else pool.submit(transport.write, BIG)
        wait_until_in_call(transport)
        transport.close()
        transport.close()
        if what == "read":
            assert call.result(PATIENCE_S) == b""
        else:
            with pytest.raises(OSError):
                call.result(PATIENCE_S)
        assert transport.failure is None
        assert ours.fileno() == -1
        stop.set()


def test_after_close_reading_ends_and_writing_fails() -> None:
    with played(lambda sock: sock.sendall(b"x")) as (ours, _):
        transport = SocketTransport(ours)
        transport.close()
        assert transport.read() == b""
        with pytest.raises(OSError, match="closed"):
            transport.write(b"x")


def test_a_failure_is_kept_for_the_one_who_explains_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = open_tcp("127.0.0.1", server.getsockname()[1], Deadline(PATIENCE_S))
        theirs, _ = server.accept()
        # Closing with SO_LINGER 0 resets the connection.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        with pytest.raises(ConnectionResetError):
            transport.read()
        assert isinstance(transport.failure, ConnectionResetError)
        transport.close()


def test_a_limit_ends_a_read_of_a_silent_peer() -> None:
    stop = threading.Event()
    with played(lambda _: stop.wait(PATIENCE_S) and None) as (ours, _):
        transport = SocketTransport(ours)
        transport.set_timeout(0.01)
        with pytest.raises(TimeoutError):
            transport.read()
        stop.set()
        transport.close()


def test_a_deadline_that_is_over_raises() -> None:
    with pytest.raises(TimeoutError):
        Deadline(0).remaining_s()
    assert 0 < Deadline(60).remaining_s() <= 60


def test_no_socket_leaks_where_nobody_listens(tmp_path: object) -> None:
    # An unclosed socket would be a ResourceWarning, and so an error.
    with pytest.raises(FileNotFoundError):
        open_unix(f"{tmp_path}/none", Deadline(PATIENCE_S))
    with pytest.raises(OSError, match="too long"):
        open_unix("x" * 200, Deadline(PATIENCE_S))


def test_peer_failures_are_not_lost() -> None:
    def fail(_: socket.socket) -> None:
        raise ValueError("told")

    ours, theirs = socket.socketpair()
    peer = Peer(fail, theirs)
    peer.join()
    ours.close()
    assert str(peer.failure) == "told"
