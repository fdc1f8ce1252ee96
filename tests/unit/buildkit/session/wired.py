"""A handler behind a real connection: Channel and Server on two ends of a socket pair."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kitcache.buildkit.wire.grpc import Metadata
from kitcache.buildkit.wire.rpc import Channel, Handler, Server, Stream


class PairTransport:
    """One end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def read(self) -> bytes:
        return self._socket.recv(1 << 18)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def calling(handler: Handler, metadata: Metadata, method: str = "/a.B/C") -> Iterator[Stream]:
    """The daemon's end of one call."""
    ours, theirs = socket.socketpair()
    server = Server(PairTransport(ours), {method: handler})
    channel = Channel(PairTransport(theirs))
    try:
        yield channel.open(method, metadata=metadata)
    finally:
        channel.close()
        server.close()
