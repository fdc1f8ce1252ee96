"""Calls over one HTTP/2 connection: Channel (client) and Server.

A connection has a reader and a writer thread; each call of a Server runs in its own thread. All are
daemon threads, which end with the connection or soon after.
"""

import threading
from collections.abc import Callable, Mapping

from kitcache.buildkit.wire.frames import ErrorCode
from kitcache.buildkit.wire.grpc import (
    CONTENT_TYPE,
    Code,
    Metadata,
    RpcError,
    check_metadata,
    encode_status,
    first,
)
from kitcache.buildkit.wire.headers import Headers
from kitcache.buildkit.wire.http2 import MAX_STREAMS, Http2Connection
from kitcache.buildkit.wire.stream import REPLY, Stream, make_deadline, wait_until
from kitcache.buildkit.wire.threads import ConnectionThreads, Transport

__all__ = ["Channel", "Handler", "Server", "Stream", "Transport"]

# Serves one call: returning is OK, RpcError is that status, any other exception is UNKNOWN.
Handler = Callable[[Stream], None]


class Channel:
    """The client side of a connection. It owns the transport.

    Args:
        transport: A connected transport.
        authority: The host in requests; BuildKit ignores it.
        timeout_s: For the start of each call, and for all of a unary call.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        authority: str = "localhost",
        timeout_s: float | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self._authority = authority
        self._threads = ConnectionThreads(transport, Http2Connection(is_client=True), None)
        self._threads.start()

    def unary(
        self,
        method: str,
        request: bytes,
        *,
        metadata: Metadata = (),
        timeout_s: float | None = None,
    ) -> bytes:
        """Send one message and return the response.

        The server gets the timeout, by default the channel's. Raises RpcError: the status of the
        call, DEADLINE_EXCEEDED, or UNAVAILABLE without a connection.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        deadline = make_deadline(timeout_s)
        if timeout_s is not None:
            timeout_ms = min(int(timeout_s * 1000), 99_999_999)
            metadata = (("grpc-timeout", f"{timeout_ms}m"), *metadata)
        stream = self._open(method, metadata, deadline)
        try:
            _send_request(stream, request, deadline)
            reply = stream.receive_until(deadline)
            if reply is None:
                raise RpcError(Code.INTERNAL, "the call ended without a response")
            if stream.receive_until(deadline) is not None:
                raise RpcError(Code.INTERNAL, "the call has more than one response")
            return reply
        finally:
            stream.cancel()

    def open(self, method: str, *, metadata: Metadata = ()) -> Stream:
        """Start a call. Waits while the server has too many calls.

        Raises RpcError: UNAVAILABLE without a connection, DEADLINE_EXCEEDED after the channel's
        timeout. Raises ValueError for invalid metadata.
        """
        return self._open(method, metadata, make_deadline(self.timeout_s))

    @property
    def is_alive(self) -> bool:
        """True if calls can start: connected, and the server has not sent GOAWAY."""
        return self._threads.is_open

    @property
    def failure(self) -> str | None:
        """Why the connection ended; None while it is open and after `close`."""
        return self._threads.failure

    def close(self) -> None:
        """End all calls with CANCELLED, and the connection. Idempotent; takes at most 2 s."""
        self._threads.close()

    def _open(self, method: str, metadata: Metadata, deadline: float | None) -> Stream:
        check_metadata(metadata)
        headers = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", CONTENT_TYPE),
            ("user-agent", "kitcache"),
            *metadata,
        )
        threads = self._threads
        with threads.lock:
            while threads.is_open and not threads.connection.can_open:
                wait_until(threads.can_send, deadline)
            if not threads.is_open:
                raise threads.closing_error
            stream_id = threads.connection.open_stream(headers)
            stream = Stream(threads, stream_id, method, metadata)
            threads.calls[stream_id] = stream
            threads.wake_writer()
            return stream


def _send_request(stream: Stream, request: bytes, deadline: float | None) -> None:
    try:
        stream.send_until((request,), deadline, is_end=True)
    except RpcError as error:
        # A server can respond before it has read everything; the response is received next.
        if error.code == Code.DEADLINE_EXCEEDED:
            raise


class Server:
    """The server side of a connection; it serves at once, and owns the transport.

    Args:
        transport: A connected transport.
        handlers: By path, "/package.Service/Method", in any case.
    """

    def __init__(self, transport: Transport, handlers: Mapping[str, Handler]) -> None:
        self._handlers = {path.lower(): handler for path, handler in handlers.items()}
        self._running = 0
        self._threads = ConnectionThreads(transport, Http2Connection(is_client=False), self._accept)
        self._is_idle = threading.Condition(self._threads.lock)
        self._threads.start()

    @property
    def failure(self) -> str | None:
        """Why the connection ended; None while it is open and after `close`."""
        return self._threads.failure

    def close(self) -> None:
        """End all calls and the connection. Handlers get RpcError CANCELLED and can still run."""
        self._threads.close()

    def wait_closed(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the connection. Return False after the timeout."""
        return self._threads.closed.wait(timeout_s)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no handler runs. Return False after the timeout."""
        with self._is_idle:
            return self._is_idle.wait_for(lambda: not self._running, timeout_s)

    def _accept(self, stream_id: int, headers: Headers, is_end: bool) -> Callable[[], None] | None:
        path = first(headers, ":path") or ""
        handler = self._handlers.get(path.lower())
        is_grpc = (first(headers, "content-type") or "").startswith(CONTENT_TYPE)
        if first(headers, ":method") != "POST" or not is_grpc:
            self._refuse(stream_id, ((":status", "415"),))
            return None
        if handler is None:
            error = RpcError(Code.UNIMPLEMENTED, f"unknown method {path}")
            self._refuse(stream_id, REPLY + encode_status(error))
            return None
        if self._running >= MAX_STREAMS:
            self._threads.drop(stream_id, ErrorCode.REFUSED_STREAM)
            return None
        metadata = tuple(header for header in headers if not header[0].startswith(":"))
        stream = Stream(self._threads, stream_id, path, metadata)
        self._threads.calls[stream_id] = stream
        self._running += 1
        if is_end:
            stream.receive_headers((), is_end)
        return lambda: self._start(handler, stream)

    def _refuse(self, stream_id: int, headers: Headers) -> None:
        self._threads.connection.send_headers(stream_id, headers, is_end=True)
        self._threads.drop(stream_id, ErrorCode.NO_ERROR)

    def _start(self, handler: Handler, stream: Stream) -> None:
        name = stream.method.rpartition("/")[2]
        try:
            threading.Thread(
                target=self._run, args=(handler, stream), name=f"rpc-{name}", daemon=True
            ).start()
        except RuntimeError:
            self._finish(stream, RpcError(Code.RESOURCE_EXHAUSTED, "no thread for the call"))

    def _run(self, handler: Handler, stream: Stream) -> None:
        error: RpcError | None = None
        try:
            handler(stream)
        except RpcError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - a handler's failure ends only its call
            error = RpcError(Code.UNKNOWN, type(raised).__name__)
        self._finish(stream, error)

    def _finish(self, stream: Stream, error: RpcError | None) -> None:
        stream.finish(error)
        with self._is_idle:
            self._running -= 1
            self._is_idle.notify_all()
