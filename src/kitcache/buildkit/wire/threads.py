"""One connection's threads: a reader that never waits for a writer, and a writer that joins.

All state of the connection is kept by one lock. The reader hands events to the calls while it
holds it, so calls only take note; whoever has something to send puts it in the outbox and wakes
the writer. What waits for room to send waits for `can_send`.
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

# A peer that begins many messages and ends none is refused at so many bytes.
HELD_LIMIT = 128 * 2**20
# Senders wait while so much is unwritten.
OUTBOX_LIMIT = 2**20
WRITE_SIZE = 256 * 1024
# For how long what is still unwritten holds up a close.
_LINGER_S = 1.0


class Transport(Protocol):
    """Bytes both ways. read and write are called by a thread each, close by any."""

    def read(self) -> bytes:
        """Some bytes, 64 KiB or more at a time if there are; b"" at the end. May raise OSError."""
        ...

    def write(self, data: Buffer) -> None:
        """Write all of it. May raise OSError."""
        ...

    def close(self) -> None:
        """Idempotent. Ends a read and a write that wait in other threads."""
        ...


class StreamListener(Protocol):
    """What a link tells a call, with the lock held. After fail it tells nothing more."""

    def headers_came(self, headers: Headers, is_end: bool) -> None:
        """Headers, or trailers."""
        ...

    def data_came(self, data: memoryview, is_end: bool) -> None:
        """Bytes, which want credit once they are consumed."""
        ...

    def fail(self, error: RpcError) -> None:
        """The call is over, and the link has forgotten it."""
        ...


# Takes a new call in, with the lock held; what it returns is run without it.
Accept = Callable[[int, Headers, bool], Callable[[], None] | None]


class ConnectionThreads:
    """A connection with its threads, which `start` starts.

    failure: why it ended, None while it lives and when it was closed by us. held: bytes of messages
    that have not ended, of all calls.
    """

    def __init__(
        self, transport: Transport, connection: Http2Connection, accept: Accept | None
    ) -> None:
        self.lock = threading.Lock()
        self.can_send = threading.Condition(self.lock)
        self.connection = connection
        self.calls: dict[int, StreamListener] = {}
        self.held = 0
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
        """Begin to read and to write."""
        self._writer.start()
        self._reader.start()

    # For callers that hold the lock.

    @property
    def is_open(self) -> bool:
        """Whether new calls can be made."""
        return not self._is_closing and self._goaway is None

    @property
    def ending(self) -> RpcError:
        """Why there are no calls any more."""
        if self._is_closing and self.failure is None:
            return RpcError(Code.CANCELLED, "the connection was closed")
        if self.failure is None and self._goaway is not None:
            return RpcError(Code.UNAVAILABLE, _describe(self._goaway))
        return RpcError(Code.UNAVAILABLE, f"the connection was lost: {self.failure}")

    def wake_writer(self) -> None:
        """Something was put in the outbox."""
        if self._is_writer_waiting and self.connection.outbox.size:
            self._is_writer_waiting = False
            self._has_output.notify()

    def drop(self, stream_id: int, code: ErrorCode) -> None:
        """Forget a call, and reset its stream unless that is closed on both sides."""
        self.calls.pop(stream_id, None)
        self.connection.reset(stream_id, code)
        self.can_send.notify_all()
        self.wake_writer()

    # For callers that do not.

    def close(self) -> None:
        """End every call and the connection. Returns in bounded time, whatever the peer does."""
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
                self._fail_calls(list(self.calls), self.ending)
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
            self._end(f"the peer broke HTTP/2: {error}")
        except Exception as error:  # noqa: BLE001  # whatever a transport raises, nobody hangs
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
                    call.data_came(data, is_end)
                else:
                    self.connection.credit(stream_id, len(data))
            case HeadersReceived(stream_id, headers, is_end):
                self._take_headers(stream_id, headers, is_end)
            case StreamReset(stream_id, code, problem):
                self._fail_calls([stream_id], reset_error(code, problem))
            case GoAwayReceived(last_stream_id) if self.connection.is_client:
                self._goaway = event
                self._fail_calls([i for i in self.calls if i > last_stream_id], self.ending)
            case _:
                self.can_send.notify_all()

    def _take_headers(self, stream_id: int, headers: Headers, is_end: bool) -> None:
        call = self.calls.get(stream_id)
        if call is not None:
            call.headers_came(headers, is_end)
        elif self._accept is not None:
            start = self._accept(stream_id, headers, is_end)
            if start is not None:
                self._accepted.append(start)

    def _write(self) -> None:
        try:
            while buffers := self._next_buffers():
                self._transport.write(b"".join(buffers) if len(buffers) > 1 else buffers[0])
            self._wrote_all.set()
        except Exception as error:  # noqa: BLE001  # as above
            self._wrote_all.set()
            # What the peer said before it hung up may still be read, and explains more.
            self._read_all.wait(_LINGER_S)
            self._end(str(error) or type(error).__name__, has_lost_peer=True)

    def _next_buffers(self) -> list[Buffer]:
        outbox = self.connection.outbox
        with self.lock:
            while not outbox.size and not self._is_closing:
                self._is_writer_waiting = True
                self._has_output.wait()
            was_full = outbox.size >= OUTBOX_LIMIT
            buffers = outbox.take(WRITE_SIZE)
            if was_full:
                self.can_send.notify_all()
            return buffers


def _describe(goaway: GoAwayReceived) -> str:
    text = f": {goaway.text}" if goaway.text else ""
    return f"the peer is going away ({error_name(goaway.code)}{text})"
