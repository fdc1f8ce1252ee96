"""Handlers as a daemon calls them: over a real connection."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kitcache.buildkit.daemon.transport import SocketTransport
from kitcache.buildkit.wire.rpc import Channel, Handler, Server


@contextmanager
def served(handlers: Mapping[str, Handler]) -> Iterator[Channel]:
    """A channel to a server with these handlers."""
    ours, theirs = socket.socketpair()
    server = Server(SocketTransport(theirs), handlers)
    channel = Channel(SocketTransport(ours))
    try:
        yield channel
    finally:
        channel.close()
        server.close()
