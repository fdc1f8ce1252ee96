"""The threads of a connection: a reader that never waits for the writer, and a writer.

One lock protects all state of the connection. The reader passes events to the calls while it holds
the lock, so calls only record them. A sender queues its data and wakes the writer; it waits for
`can_send` if the window or the queue is full.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from kitcache.buildkit.wire.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    HeadersReceived,
    StreamReset,
)
from kitcache.buildkit.wire.frames import Buffer, ErrorCode, ProtocolError, error_name
from kitcache.buildkit.wire.grpc import Code, RpcError, reset_error
from kitcache.buildkit.wire.headers import Headers
from kitcache.buildkit.wire.http2 import Http2Connection

# The limit for the bytes of all incomplete messages.
MAX_PARTIAL_BYTES = 128 * 2**20
# Senders wait while the queue is longer.
MAX_QUEUED_BYTES = 2**20
WRITE_SIZE = 256 * 1024
# The time that a close waits for the writer.
_LINGER_S = 1.0


class Transport(Protocol):
    """A byte stream in both directions. One thread reads, one writes, any thread closes."""

    def read(self) -> bytes:
        """Return some bytes, 64 KiB or more if possible; b"" at the end. Can raise OSError."""
        ...

    def write(self, data: Buffer) -> None:
        """Write all of the data. Can raise OSError."""
        ...

    def close(self) -> None:
        """Close the transport. Idempotent; reads and writes in other threads end."""
        ...


class StreamListener(Protocol):
    """A call, as the reader sees it. The reader holds the lock; fail is the last event."""

    def receive_headers(self, headers: Headers, is_end: bool) -> None:
        """Receive headers or trailers."""
        ...

    def receive_data(self, data: memoryview, is_end: bool) -> None:
        """Receive bytes, which are credited after they are consumed."""
        ...

    def fail(self, error: RpcError) -> None:
        """End the call, which is no longer registered."""
        ...


# Accepts a new call while the lock is held; the result is called without the lock.
Accept = Callable[[int, Headers, bool], Callable[[], None] | None]


class ConnectionThreads:
    """A connection with its threads, which `start` starts.

    Attributes:
        failure: Why the connection ended; None while it is open and after `close`.
        partial_bytes: The bytes of the incomplete messages of all calls.
    """

    def __init__(
        self, transport: Transport, connection: Http2Connection, accept: Accept | None
    ) -> None:
        self.lock = threading.Lock()
        self.can_send = threading.Condition(self.lock)
        self.connection = connection
        self.calls: dict[int, StreamListener] = {}
        self.partial_bytes = 0
        self.failure: str | None = None
        self.closed = threading.Event()
        self._transport = transport
        self._accept = accept
        self._accepted: list[Callable[[], None]] = []
        self._has_output = threading.Condition(self.lock)
        self._is_writer_waiting = False
        self._is_closing = False
        self._read_all = threading.Event()
        self._wrote_all = threading.Event()
        self._goaway: GoAwayReceived | None = None
        side = "client" if connection.is_client else "server"
        self._reader = threading.Thread(target=self._read, name=f"rpc-{side}-reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name=f"rpc-{side}-writer", daemon=True)

    def start(self) -> None:
        """Start both threads."""
        self._writer.start()
        self._reader.start()

    # The caller holds the lock.

    @property
    def is_open(self) -> bool:
        """True if new calls can start."""
        return not self._is_closing and self._goaway is None

    @property
    def closing_error(self) -> RpcError:
        """The error of all calls after the connection has ended."""
        if self._is_closing and self.failure is None:
            return RpcError(Code.CANCELLED, "the connection was closed")
        if self.failure is None and self._goaway is not None:
            return RpcError(Code.UNAVAILABLE, _describe(self._goaway))
        return RpcError(Code.UNAVAILABLE, f"the connection was lost: {self.failure}")

    def wake_writer(self) -> None:
        """Wake the writer if the queue is not empty."""
        if self._is_writer_waiting and self.connection.send_queue.size:
            self._is_writer_waiting = False
            self._has_output.notify()

    def drop(self, stream_id: int, code: ErrorCode) -> None:
        """Remove a call, and reset its stream unless both sides have closed it."""
        self.calls.pop(stream_id, None)
        self.connection.reset(stream_id, code)
        self.can_send.notify_all()
        self.wake_writer()

    # The caller does not hold the lock.

    def close(self) -> None:
        """End all calls and the connection, in bounded time."""
        self._end(None)
        deadline = time.monotonic() + _LINGER_S
        for thread in (self._writer, self._reader):
            if thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0.1))

    def _end(self, failure: str | None, *, has_lost_peer: bool = False) -> None:
        with self.lock:
            is_first = not self._is_closing
            if is_first:
                self._is_closing = True
                self.failure = failure
                if failure is None:
                    self.connection.go_away(ErrorCode.NO_ERROR)
                self._fail_calls(list(self.calls), self.closing_error)
                self._is_writer_waiting = False
                self._has_output.notify()
        if is_first and not has_lost_peer:
            self._wrote_all.wait(_LINGER_S)
        self._transport.close()
        self.closed.set()

    def _fail_calls(self, stream_ids: Iterable[int], error: RpcError) -> None:
        for stream_id in stream_ids:
            call = self.calls.pop(stream_id, None)
            if call is not None:
                call.fail(error)
        self.can_send.notify_all()

    def _read(self) -> None:
        try:
            while data := self._transport.read():
                with self.lock:
                    for event in self.connection.receive(data):
                        self._take(event)
                    accepted, self._accepted = self._accepted, []
                    self.wake_writer()
                for start in accepted:
                    start()
        except ProtocolError as error:
            self._end(f"the peer violated HTTP/2: {error}")
        except Exception as error:  # noqa: BLE001 - no call may hang, whatever a transport raises
            self._end(str(error) or type(error).__name__, has_lost_peer=True)
        else:
            goaway = f": {_describe(self._goaway)}" if self._goaway else ""
            self._end(f"the peer closed it{goaway}", has_lost_peer=True)
        finally:
            self._read_all.set()

    def _take(self, event: Event) -> None:
        match event:
            case DataReceived(stream_id, data, is_end):
                call = self.calls.get(stream_id)
                if call is not None:
                    call.receive_data(data, is_end)
                else:
                    self.connection.credit(stream_id, len(data))
            case HeadersReceived(stream_id, headers, is_end):
                call = self.calls.get(stream_id)
                if call is not None:
                    call.receive_headers(headers, is_end)
                elif self._accept is not None:
                    start = self._accept(stream_id, headers, is_end)
                    self._accepted += [start] if start else []
            case StreamReset(stream_id, code, problem):
                self._fail_calls([stream_id], reset_error(code, problem))
            case GoAwayReceived(last_stream_id) if self.connection.is_client:
                self._goaway = event
                self._fail_calls([i for i in self.calls if i > last_stream_id], self.closing_error)
            case _:
                self.can_send.notify_all()

    def _write(self) -> None:
        try:
            while buffers := self._next_buffers():
                self._transport.write(b"".join(buffers) if len(buffers) > 1 else buffers[0])
            self._wrote_all.set()
        except Exception as error:  # noqa: BLE001 - as above
            self._wrote_all.set()
            # The last bytes of the peer can still be read, and explain more.
            self._read_all.wait(_LINGER_S)
            self._end(str(error) or type(error).__name__, has_lost_peer=True)

    def _next_buffers(self) -> list[Buffer]:
        send_queue = self.connection.send_queue
        with self.lock:
            while not send_queue.size and not self._is_closing:
                self._is_writer_waiting = True
                self._has_output.wait()
            was_full = send_queue.size >= MAX_QUEUED_BYTES
            buffers = send_queue.take(WRITE_SIZE)
            if was_full:
                self.can_send.notify_all()
            return buffers


def _describe(goaway: GoAwayReceived) -> str:
    text = f": {goaway.text}" if goaway.text else ""
    return f"the peer is going away ({error_name(goaway.code)}{text})"
