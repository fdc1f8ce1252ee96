"""Sockets as transports, and both ends of a connection."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from kitcache.buildkit.wire.frames import Buffer

# Longer than anything here takes: who waits for so long waits in vain.
WAIT_S = 20


class SocketTransport:
    """A connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def read(self) -> bytes:
        return self.sock.recv(256 * 1024)

    def write(self, data: Buffer) -> None:
        self.sock.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def transport_pair() -> tuple[SocketTransport, SocketTransport]:
    """Two ends of one connection."""
    one, other = socket.socketpair()
    return SocketTransport(one), SocketTransport(other)


@contextlib.contextmanager
def no_thread_left() -> Iterator[None]:
    """Every thread of a connection that was made in the block ends."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("rpc-"):
            thread.join(10)
            assert not thread.is_alive(), thread.name
