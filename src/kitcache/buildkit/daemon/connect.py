"""A connection to a daemon, once it has proven to be a BuildKit; and the session beside it."""

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
# docker's ports, for a DOCKER_HOST without one.
_PLAIN_PORT, _TLS_PORT = 2375, 2376
_H2, _HTTP = "h2", "http/1.1"


class DaemonConnection:
    """A daemon that answers. A context manager; closing ends the calls, and so a running build.

    is_engine: a docker engine, where `address` may have left that open. channel: for Control; its
    timeout bounds the start of a session, too.
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
        """What the daemon may call from now on, until the server is closed.

        metadata: x-docker-expose-session-…, as the daemon is to see it. Raises NoDaemon.
        """
        if not self.is_engine:
            try:
                stream = self.channel.open(f"{_CONTROL}Session", metadata=metadata)
            except RpcError as error:
                raise no_daemon(self.address, error, Attempt(self._transport)) from error
            return Server(Tunnel(stream), handlers)
        deadline = Deadline(self.channel.timeout_s or TIMEOUT_S)
        transport = _open_engine_session(self.address, metadata, deadline)
        return Server(transport, handlers)

    def within(self, timeout_s: float) -> "DaemonConnection":
        """Return the same connection with a shorter timeout for its calls."""
        made = copy(self)
        made.channel = copy(self.channel)
        made.channel.timeout_s = min(timeout_s, self.channel.timeout_s or timeout_s)
        return made

    def unanswered(self, error: RpcError) -> NoDaemon:
        """The failure to raise for a call that has failed."""
        return no_answer(self.address, error, is_lost=not self.channel.is_alive)

    def close(self) -> None:
        """Idempotent. Sessions are servers of their own, and closed on their own."""
        self.channel.close()
        self._transport.close()


class Opened(NamedTuple):
    """A transport whose next bytes are HTTP/2. answer: to an upgrade that was tried in vain."""

    transport: SocketTransport
    is_engine: bool
    answer: Answer | None = None


def connect(address: Address, *, timeout_s: float = TIMEOUT_S) -> DaemonConnection:
    """The daemon, which has answered a call by now. timeout_s: for all of it, and for later calls.

    A builder's container that is stopped is started. Raises NoDaemon, which says what happened and
    what to do next.
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
    """One small call. Raises RpcError, TimeoutError."""
    try:
        channel.unary(f"{_CONTROL}Info", b"", timeout_s=deadline.remaining_s())
    except RpcError as error:
        if error.code != Code.UNIMPLEMENTED:
            raise
        # BuildKit before 0.11 has no Info.
        channel.unary(f"{_CONTROL}ListWorkers", b"", timeout_s=deadline.remaining_s())


def _open(address: Address, deadline: Deadline) -> Opened:
    if address.is_engine is False:
        return Opened(_dial(address, deadline, (_H2,)), is_engine=False)
    if address.is_engine:
        return Opened(_upgraded(address, GRPC, deadline), is_engine=True)
    return _probe(address, deadline)


def _probe(address: Address, deadline: Deadline) -> Opened:
    """Asks for the engine's upgrade; a buildkitd hangs up, and is dialled again."""
    transport = _dial(address, deadline, (_H2, _HTTP))
    if transport.protocol == _H2:
        return Opened(transport, is_engine=False)
    with _closed_on_failure(transport):
        if transport.protocol == _HTTP:
            _switch(address, transport, GRPC, deadline)
            return Opened(transport, is_engine=True)
        try:
            # Half of the time, so that something is left for the other way.
            answer = request_upgrade(transport, GRPC, Deadline(deadline.remaining_s() / 2))
        except OSError:
            answer = Answer(0, "")
    if answer.status == SWITCHED:
        return Opened(transport, is_engine=True)
    transport.close()
    return Opened(_dial(address, deadline, (_H2,)), is_engine=False, answer=answer)


def _open_engine_session(
    address: Address, metadata: Metadata, deadline: Deadline
) -> SocketTransport:
    transport = _upgraded(address, SESSION, deadline, metadata)
    transport.set_timeout(None)
    return transport


def _upgraded(
    address: Address, path: str, deadline: Deadline, metadata: Metadata = ()
) -> SocketTransport:
    """A fresh connection to an engine, switched to HTTP/2. Raises NoDaemon."""
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
    """Makes the engine's upgrade. Raises NoDaemon."""
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
    """A fresh connection, nothing said yet but TLS's handshake. Raises NoDaemon."""
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
