"""One call, on either side: complete messages in both directions."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from kitcache.buildkit.wire.frames import Buffer, ErrorCode
from kitcache.buildkit.wire.grpc import (
    CONTENT_TYPE,
    Code,
    MessageReader,
    Metadata,
    RpcError,
    check_reply,
    decode_status,
    encode_status,
    frame_messages,
    frame_parts,
)
from kitcache.buildkit.wire.headers import Headers
from kitcache.buildkit.wire.threads import MAX_PARTIAL_BYTES, MAX_QUEUED_BYTES, ConnectionThreads

# The bytes that are received or queued each time the lock is acquired.
_STEP = 256 * 1024
# Smaller pieces are copied together: each view keeps its whole read buffer in memory.
_SMALL_PIECE = 1024
_OVER = RpcError(Code.FAILED_PRECONDITION, "the call has ended")
REPLY = ((":status", "200"), ("content-type", CONTENT_TYPE))


class Stream:
    """A call. One thread can receive while others send; messages are never interleaved.

    An abandoned call must be cancelled, or the messages that it received stay in memory.

    Attributes:
        method: "/package.Service/Method".
        metadata: Of the request.
        trailers: The metadata at the end of the call (client side).
    """

    def __init__(
        self, threads: ConnectionThreads, stream_id: int, method: str, metadata: Metadata
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.trailers: Metadata = ()
        self._threads = threads
        self._id = stream_id
        self._is_client = threads.connection.is_client
        self._sending = threading.Lock()
        self._has_sent_headers = self._is_client
        self._is_sending_message = False
        self._arrived = threading.Condition(threads.lock)
        self._pieces: deque[Buffer] = deque()
        self._messages = MessageReader()
        self._partial_bytes = 0
        # The end of the receiving side, and its error.
        self._error: RpcError | None = None
        self._is_received = False
        self._is_abandoned = False
        self._has_reply = False
        # The reason why nothing can be sent.
        self._refusal: RpcError | None = None

    def send(self, *messages: bytes) -> None:
        """Send messages in order. Waits for the peer's window.

        Raises RpcError after the end of the call: its status, or FAILED_PRECONDITION after OK.
        """
        self.send_until(messages, None)

    def send_until(
        self, messages: Sequence[bytes], deadline: float | None, *, is_end: bool = False
    ) -> None:
        """Send messages before a time of the monotonic clock.

        Raises RpcError as `send`, and DEADLINE_EXCEEDED; then the call can only be cancelled.

        Args:
            messages: In order.
            deadline: None for none.
            is_end: These are the last messages.
        """
        self._send_buffers(frame_messages(messages), deadline, is_end=is_end)

    def send_parts(self, head: bytes, data: Buffer) -> None:
        """Send one message of two parts, without a copy of large data.

        Raises RpcError as `send`.
        """
        self._send_buffers(frame_parts(head, data), None, is_end=False)

    def receive(self, timeout_s: float | None = None) -> bytes | None:
        """Return the next message; None at the end, which is OK on the client side.

        Raises RpcError: the status of the call; CANCELLED or another code after a reset;
        UNAVAILABLE if the connection is lost; DEADLINE_EXCEEDED after the timeout, and the call
        continues. Only one thread can receive.
        """
        return self.receive_until(make_deadline(timeout_s))

    def receive_until(self, deadline: float | None) -> bytes | None:
        """Return the next message, as `receive`, before a time of the monotonic clock."""
        while True:
            if self._is_abandoned and self._error is not None:
                raise self._error.copy()
            message = self._messages.take()
            if message is not None:
                return message
            pieces = self._take_pieces(deadline)
            if not pieces:
                return None
            self._feed(pieces)

    def __iter__(self) -> Iterator[bytes]:
        while (message := self.receive()) is not None:
            yield message

    def end(self) -> None:
        """End the sending side (client side). Idempotent."""
        with self._sending, self._threads.lock:
            if self._refusal is None:
                self._threads.connection.send_data(self._id, memoryview(b""), is_end=True)
                self._refusal = _OVER
                self._threads.wake_writer()

    def cancel(self) -> None:
        """Cancel the call, from any thread; sends and receives raise RpcError CANCELLED.

        Nothing happens if the call has ended and all messages were received.
        """
        with self._threads.lock:
            if self._pieces or self._threads.calls.get(self._id) is self:
                error = RpcError(Code.CANCELLED, "the call was cancelled")
                self._abandon(error)
                self._close(error, ErrorCode.CANCEL)

    def finish(self, error: RpcError | None) -> None:
        """End the call with a status, None for OK (server side).

        If another thread is sending a message, an error truncates it and resets the call.
        """
        with self._threads.lock:
            if error is not None and self._refusal is None:
                self._refusal = error
                self._threads.can_send.notify_all()
        with self._sending, self._threads.lock:
            is_cut = self._is_sending_message
            if self._threads.calls.get(self._id) is self and not is_cut:
                trailers = encode_status(error)
                headers = trailers if self._has_sent_headers else REPLY + trailers
                self._threads.connection.send_headers(self._id, headers, is_end=True)
            self._abandon(error or _OVER)
            self._close(error or _OVER, ErrorCode.CANCEL if is_cut else ErrorCode.NO_ERROR)

    # Sending.

    def _send_buffers(
        self, buffers: Sequence[Buffer], deadline: float | None, *, is_end: bool
    ) -> None:
        with self._sending:
            for buffer in buffers:
                self._is_sending_message = True
                self._send_buffer(memoryview(buffer), deadline, is_end and buffer is buffers[-1])
            self._is_sending_message = False

    def _send_buffer(self, view: memoryview, deadline: float | None, is_end: bool) -> None:
        connection = self._threads.connection
        while True:
            with self._threads.lock:
                count = self._wait_for_window(len(view), deadline)
                if not self._has_sent_headers:
                    self._has_sent_headers = True
                    connection.send_headers(self._id, REPLY, is_end=False)
                is_last = count == len(view)
                connection.send_data(self._id, view[:count], is_end=is_end and is_last)
                if is_end and is_last:
                    self._refusal = _OVER
                self._threads.wake_writer()
            if is_last:
                return
            view = view[count:]

    def _wait_for_window(self, wanted: int, deadline: float | None) -> int:
        connection = self._threads.connection
        while True:
            if self._refusal is not None:
                raise self._refusal.copy()
            size = connection.send_window(self._id)
            if size > 0 and connection.send_queue.size < MAX_QUEUED_BYTES:
                return min(size, wanted, _STEP)
            wait_until(self._threads.can_send, deadline)

    # Receiving.

    def _take_pieces(self, deadline: float | None) -> list[Buffer]:
        with self._threads.lock:
            while not self._pieces and not self._is_received:
                wait_until(self._arrived, deadline)
            if not self._pieces:
                if self._error is None and self._messages.is_partial:
                    self._error = RpcError(Code.INTERNAL, "the call ended within a message")
                if self._error is not None:
                    raise self._error.copy()
            taken, size = [], 0
            while self._pieces and size < _STEP:
                taken.append(self._pieces.popleft())
                size += len(taken[-1])
            self._credit(size)
            return taken

    def _feed(self, pieces: list[Buffer]) -> None:
        try:
            for piece in pieces:
                self._messages.feed(piece)
            with self._threads.lock:
                count = self._messages.partial_bytes
                self._threads.partial_bytes += count - self._partial_bytes
                self._partial_bytes = count
                if count and self._threads.partial_bytes > MAX_PARTIAL_BYTES:
                    raise RpcError(Code.RESOURCE_EXHAUSTED, "too many incomplete messages")
        except RpcError as error:
            with self._threads.lock:
                self._abandon(error)
                if self._is_client:
                    self._close(error, ErrorCode.CANCEL)
            raise

    def _credit(self, count: int) -> None:
        self._threads.connection.credit(self._id, count)
        self._threads.wake_writer()

    def _end_receiving(self, error: RpcError | None) -> None:
        if not self._is_received:
            self._is_received, self._error = True, error
            self._arrived.notify()

    # StreamListener: the reader holds the lock.

    def receive_headers(self, headers: Headers, is_end: bool) -> None:
        """Receive the headers of a reply, or trailers."""
        if not self._is_client:
            self._end_receiving(None)
            return
        problem = None if self._has_reply else check_reply(headers)
        self._has_reply = True
        if problem is not None:
            self._end_receiving(problem)
            self._close(problem, ErrorCode.CANCEL)
        elif is_end:
            self.trailers = tuple(header for header in headers if header[0] != ":status")
            error = decode_status(self.trailers)
            self._end_receiving(error)
            self._close(error or _OVER, ErrorCode.NO_ERROR)

    def receive_data(self, data: memoryview, is_end: bool) -> None:
        """Receive bytes of messages."""
        if self._is_received:
            self._credit(len(data))
        elif len(data) >= _SMALL_PIECE:
            self._pieces.append(data)
        else:
            self._add_small(data)
        if is_end and self._is_client:
            error = RpcError(Code.INTERNAL, "the call ended without a status")
            self._end_receiving(error)
            self._close(error, ErrorCode.NO_ERROR)
        elif is_end:
            self._end_receiving(None)
        self._arrived.notify()

    def _add_small(self, data: memoryview) -> None:
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) < 16 * _SMALL_PIECE:
            last += data
        elif data:
            self._pieces.append(bytearray(data))

    def fail(self, error: RpcError) -> None:
        """End both sides: the peer or the connection has ended the call.

        A client can still receive earlier messages; a handler fails at once.
        """
        self._end_receiving(error)
        if self._refusal is None:
            self._refusal = error
        if not self._is_client:
            self._abandon(error)

    def _abandon(self, error: RpcError) -> None:
        """Discard received and future messages."""
        self._is_abandoned = self._is_received = True
        self._error = error
        self._credit(sum(map(len, self._pieces)))
        self._pieces.clear()
        self._threads.partial_bytes -= self._partial_bytes
        self._partial_bytes = 0
        self._messages = MessageReader()
        self._arrived.notify()

    def _close(self, error: RpcError, code: ErrorCode) -> None:
        """End the sending side and the stream; `code` is for a reset, if one is needed."""
        if self._refusal is None:
            self._refusal = error
        self._threads.drop(self._id, code)


def make_deadline(timeout_s: float | None) -> float | None:
    """Return the end of a timeout on the monotonic clock, None for none."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def wait_until(condition: threading.Condition, deadline: float | None) -> None:
    """Wait for the condition, whose lock is held. Raises RpcError DEADLINE_EXCEEDED."""
    timeout_s = None if deadline is None else deadline - time.monotonic()
    if timeout_s is not None and timeout_s <= 0:
        raise RpcError(Code.DEADLINE_EXCEEDED, "no answer in time")
    condition.wait(timeout_s)
