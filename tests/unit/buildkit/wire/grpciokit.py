"""grpcio as either end of a connection, over a unix socket, and what both ends carry."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from kitcache.buildkit.wire.grpc import Detail
from kitcache.buildkit.wire.rpc import Channel, Server, Stream
from tests.unit.buildkit.wire.sockets import WAIT_S, SocketTransport, no_thread_left

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


def big(size: int) -> bytes:
    return bytes(range(256)) * (size // 256)


# What goes there and comes back, whoever has which role.
MESSAGES = (b"", b"x", big(10 * MIB), big(65_536), b"y")
STREAM = tuple(big(size * 256) for size in (1, 400, 0, 3, 20_000, 1, 0))
PROBLEM = "änders % \n\x00"


class Service(grpc.GenericRpcHandler):
    """A grpcio service of functions over bytes."""

    def __init__(self, methods: dict[str, tuple[str, Callable[..., Any]]]) -> None:
        self.methods = methods

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method not in self.methods:
            return None
        kind, function = self.methods[details.method]
        return getattr(grpc, f"{kind}_rpc_method_handler")(function)


def serve(path: str, methods: dict[str, tuple[str, Callable[..., Any]]]) -> Any:
    """grpcio's server, started; methods: (kind as in unary_stream, function)."""
    server = grpc.server(ThreadPoolExecutor(8), handlers=[Service(methods)], options=OPTIONS)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    return server


def dial(path: str) -> Channel:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return Channel(SocketTransport(sock))


@contextlib.contextmanager
def their_server(
    path: str, methods: dict[str, tuple[str, Callable[..., Any]]]
) -> Iterator[Channel]:
    """Our channel to grpcio's server."""
    server = serve(path, methods)
    with no_thread_left():
        channel = dial(path)
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
