"""The far end of a connection, played from a thread by a function of the test's own."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PATIENCE_S = 20.0

Play = Callable[[socket.socket], None]


class Peer:
    """failure: what the function raised, if anything."""

    def __init__(self, play: Play, sock: socket.socket) -> None:
        self.failure: BaseException | None = None
        self._sock = sock
        self._thread = threading.Thread(target=self._run, args=(play,), daemon=True)
        self._thread.start()

    def _run(self, play: Play) -> None:
        try:
            play(self._sock)
        except Exception as error:  # noqa: BLE001 - told to the test
            self.failure = error
        finally:
            self._sock.close()

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@contextmanager
def played(play: Play) -> Iterator[tuple[socket.socket, Peer]]:
    """Our end, and the one who plays the other; at the end both are closed."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE_S)
    peer = Peer(play, theirs)
    try:
        yield ours, peer
    finally:
        with suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)
        ours.close()
        peer.join()


def with_tls(context: ssl.SSLContext, play: Play) -> Play:
    """The same behind a server's handshake."""

    def shake(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secret:
            play(secret)

    return shake


def read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        assert part, f"the end came after {len(data)} of {count} bytes"
        data += part
    return data


def read_head(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += read_exactly(sock, 1)
    return data
