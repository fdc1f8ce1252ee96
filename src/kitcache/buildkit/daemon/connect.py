"""Connects to a daemon, checks that it is a BuildKit, and opens sessions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.daemon.connecterrors import (
    Attempt,
    NotAnEngineError,
    no_answer,
    no_daemon,
    refused_upgrade,
)
from kitcache.buildkit.daemon.engine import GRPC, SESSION, SWITCHED, Answer, request_upgrade
from kitcache.buildkit.daemon.transport import Deadline, SocketTransport, open_tcp, open_unix
from kitcache.buildkit.daemon.tunnel import Tunnel
from kitcache.buildkit.log import LOG
from kitcache.buildkit.wire.grpc import Code, Metadata, RpcError
from kitcache.buildkit.wire.rpc import Channel, Handler, Server
from kitcache.errors import NoDaemon
from kitcache.masking import hide_password

TIMEOUT_S = 10.0

_CONTROL = "/moby.buildkit.v1.Control/"
# docker's ports, for a DOCKER_HOST that has none.
_PLAIN_PORT, _TLS_PORT = 2375, 2376
_H2, _HTTP = "h2", "http/1.1"


class DaemonConnection:
    """A daemon that answers. A context manager; closing it ends all calls and running builds.

    Attributes:
        is_engine: True for a docker engine, also if `address` leaves it open.
        channel: For the service Control. Its timeout also limits the start of a session.
    """

    def __init__(self, address: Address, opened: "Opened", channel: Channel) -> None:
        self.address = address
        self.is_engine = opened.is_engine
        self.channel = channel
        self._transport = opened.transport

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def open_session(self, metadata: Metadata, handlers: Mapping[str, Handler]) -> Server:
        """Let the daemon call the handlers until the returned server is closed.

        Raises NoDaemon.

        Args:
            metadata: The x-docker-expose-session-… headers.
            handlers: By method path.
        """
        if not self.is_engine:
            try:
                stream = self.channel.open(f"{_CONTROL}Session", metadata=metadata)
            except RpcError as error:
                raise no_daemon(self.address, error, Attempt(self._transport)) from error
            return Server(Tunnel(stream), handlers)
        deadline = Deadline(self.channel.timeout_s or TIMEOUT_S)
        transport = _upgraded(self.address, SESSION, deadline, metadata)
        transport.set_timeout(None)
        return Server(transport, handlers)

    def within(self, timeout_s: float) -> "DaemonConnection":
        """Return the same connection with a shorter timeout for its calls."""
        connection = copy(self)
        connection.channel = copy(self.channel)
        connection.channel.timeout_s = min(timeout_s, self.channel.timeout_s or timeout_s)
        return connection

    def unanswered(self, error: RpcError) -> NoDaemon:
        """Return the error to raise for a call that failed."""
        return no_answer(self.address, error, is_lost=not self.channel.is_alive)

    def close(self) -> None:
        """Close the connection. Idempotent; sessions are closed separately."""
        self.channel.close()
        self._transport.close()


class Opened(NamedTuple):
    """A transport whose next bytes are HTTP/2, and the answer to an upgrade that was refused."""

    transport: SocketTransport
    is_engine: bool
    answer: Answer | None = None


def connect(address: Address, *, timeout_s: float = TIMEOUT_S) -> DaemonConnection:
    """Connect to a daemon, and return once it has answered a call.

    The stopped container of a builder is started. Raises NoDaemon.

    Args:
        address: Where the daemon is.
        timeout_s: For the whole attempt, and for the start of each later call.
    """
    deadline = Deadline(timeout_s)
    try:
        return _connect(address, deadline)
    except NoDaemon as failure:
        if not address.is_builder:
            raise
        from kitcache.buildkit.daemon.wake import connect_started  # noqa: PLC0415 - seldom needed

        return connect_started(address, deadline, lambda: _connect(address, deadline), failure)


def _connect(address: Address, deadline: Deadline) -> DaemonConnection:
    opened = _open(address, deadline)
    opened.transport.set_timeout(None)
    channel = Channel(opened.transport, timeout_s=deadline.seconds)
    with _closed_on_failure(opened.transport):
        try:
            _greet(channel, deadline)
        except BaseException as error:
            channel.close()
            if isinstance(error, (RpcError, OSError)):
                attempt = Attempt(opened.transport, opened.answer)
                raise no_daemon(address, error, attempt) from error
            raise
    LOG.debug("connected to %s, from %s", hide_password(address.url), address.origin)
    return DaemonConnection(address, opened, channel)


def _greet(channel: Channel, deadline: Deadline) -> None:
    try:
        channel.unary(f"{_CONTROL}Info", b"", timeout_s=deadline.remaining_s())
    except RpcError as error:
        if error.code != Code.UNIMPLEMENTED:
            raise
        # BuildKit before 0.11 does not have Info.
        channel.unary(f"{_CONTROL}ListWorkers", b"", timeout_s=deadline.remaining_s())


def _open(address: Address, deadline: Deadline) -> Opened:
    if address.is_engine is False:
        return Opened(_dial(address, deadline, (_H2,)), is_engine=False)
    if address.is_engine:
        return Opened(_upgraded(address, GRPC, deadline), is_engine=True)
    return _probe(address, deadline)


def _probe(address: Address, deadline: Deadline) -> Opened:
    """Request the engine's upgrade. A buildkitd closes the connection and is dialled again."""
    transport = _dial(address, deadline, (_H2, _HTTP))
    if transport.protocol == _H2:
        return Opened(transport, is_engine=False)
    with _closed_on_failure(transport):
        if transport.protocol == _HTTP:
            _switch(address, transport, GRPC, deadline)
            return Opened(transport, is_engine=True)
        try:
            # Half of the time, so that the second attempt has the other half.
            answer = request_upgrade(transport, GRPC, Deadline(deadline.remaining_s() / 2))
        except OSError:
            answer = Answer(0, "")
    if answer.status == SWITCHED:
        return Opened(transport, is_engine=True)
    transport.close()
    return Opened(_dial(address, deadline, (_H2,)), is_engine=False, answer=answer)


def _upgraded(
    address: Address, path: str, deadline: Deadline, metadata: Metadata = ()
) -> SocketTransport:
    transport = _dial(address, deadline, (_HTTP,))
    with _closed_on_failure(transport):
        _switch(address, transport, path, deadline, metadata)
    return transport


def _switch(
    address: Address,
    transport: SocketTransport,
    path: str,
    deadline: Deadline,
    metadata: Metadata = (),
) -> None:
    try:
        answer = request_upgrade(transport, path, deadline, metadata=metadata)
        if not answer.status:
            raise NotAnEngineError("it does not answer like a docker engine")
    except (OSError, NotAnEngineError) as error:
        raise no_daemon(address, error, Attempt(transport)) from error
    if answer.status != SWITCHED:
        raise refused_upgrade(address, answer)


@contextmanager
def _closed_on_failure(transport: SocketTransport) -> Iterator[None]:
    try:
        yield
    except BaseException:
        transport.close()
        raise


def _dial(address: Address, deadline: Deadline, protocols: tuple[str, ...]) -> SocketTransport:
    """Open a connection, including the TLS handshake. Raises NoDaemon."""
    try:
        return _dialled(address, deadline, protocols)
    except (OSError, ValueError) as error:
        raise no_daemon(address, error, Attempt()) from error


def _dialled(address: Address, deadline: Deadline, protocols: tuple[str, ...]) -> SocketTransport:
    if address.command:
        from kitcache.buildkit.daemon.child import ChildTransport  # noqa: PLC0415 - seldom needed

        return ChildTransport(address.command)
    if address.url.startswith("unix://"):
        return open_unix(address.url.removeprefix("unix://"), deadline)
    parts = urlsplit(address.url)
    host = parts.hostname or ""
    if address.tls is None:
        return open_tcp(host, parts.port or _PLAIN_PORT, deadline)
    from kitcache.buildkit.daemon.tlstransport import make_context, open_tls  # noqa: PLC0415 - 11 ms

    context = make_context(address.tls, protocols)
    server_name = address.tls.server_name or host
    return open_tls(host, parts.port or _TLS_PORT, context, server_name, deadline)
