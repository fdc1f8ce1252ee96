"""One call, seen from either side: whole messages in and out."""

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
    decode_status,
    encode_status,
    frame_messages,
    frame_parts,
    problem_of_reply,
)
from kitcache.buildkit.wire.headers import Headers
from kitcache.buildkit.wire.threads import HELD_LIMIT, OUTBOX_LIMIT, ConnectionThreads

# How much is taken from a stream, or put in the outbox, each time the lock is had.
_STEP = 256 * 1024
# Pieces below this are copied together, so that they neither pile up nor keep what was read alive.
_SMALL_PIECE = 1024
_OVER = RpcError(Code.FAILED_PRECONDITION, "the call has ended")
REPLY = ((":status", "200"), ("content-type", CONTENT_TYPE))


class Stream:
    """A call. One thread may receive while others send; messages are never mixed.

    method: "/package.Service/Method". metadata: the request's. trailers: what came with the end
    of the call (client side). Drop a call that has not ended with `cancel`: what it received and
    nobody took would stay.
    """

    def __init__(
        self, link: ConnectionThreads, stream_id: int, method: str, metadata: Metadata
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.trailers: Metadata = ()
        self._link = link
        self._id = stream_id
        self._is_client = link.connection.is_client
        self._sending = threading.Lock()
        self._has_sent_headers = self._is_client
        self._is_amid_message = False
        self._arrived = threading.Condition(link.lock)
        self._pieces: deque[Buffer] = deque()
        self._messages = MessageReader()
        self._held = 0
        # How the receiving side ended: an error, or well.
        self._error: RpcError | None = None
        self._is_received = False
        self._is_abandoned = False
        self._has_reply = False
        # Why nothing can be sent any more.
        self._refusal: RpcError | None = None

    def send(self, *messages: bytes) -> None:
        """Send whole messages, in order; waits for the peer to make room.

        Raises RpcError once the call is over: with its status if it failed, else with
        FAILED_PRECONDITION.
        """
        self.send_until(messages, None)

    def send_until(
        self, messages: Sequence[bytes], deadline: float | None, *, is_end: bool = False
    ) -> None:
        """The same until a time of the monotonic clock; is_end: and nothing after them.

        Raises RpcError DEADLINE_EXCEEDED too; then the call can only be cancelled.
        """
        self._send_buffers(frame_messages(messages), deadline, is_end=is_end)

    def send_parts(self, head: bytes, data: Buffer) -> None:
        """Send one message, given in two parts: large data is not copied to join them.

        Raises RpcError like `send`.
        """
        self._send_buffers(frame_parts(head, data), None, is_end=False)

    def receive(self, timeout_s: float | None = None) -> bytes | None:
        """The next message; None when the other side is done, on the client side with OK.

        Raises RpcError: the status of the call; CANCELLED or another code after a reset;
        UNAVAILABLE when the connection is lost; DEADLINE_EXCEEDED after the timeout, and then
        the call goes on. Not for two threads at once.
        """
        return self.receive_until(make_deadline(timeout_s))

    def receive_until(self, deadline: float | None) -> bytes | None:
        """The same until a time of the monotonic clock."""
        while True:
            if self._is_abandoned and self._error is not None:
                raise self._error.again()
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
        """Say that nothing more will be sent (client side); again, or after the end: nothing."""
        with self._sending, self._link.lock:
            if self._refusal is None:
                self._link.connection.send_data(self._id, memoryview(b""), is_end=True)
                self._refusal = _OVER
                self._link.wake_writer()

    def cancel(self) -> None:
        """Give the call up, from any thread; who sends or receives gets RpcError CANCELLED.

        Nothing for a call that has ended and of which all was received.
        """
        with self._link.lock:
            if self._pieces or self._link.calls.get(self._id) is self:
                error = RpcError(Code.CANCELLED, "the call was cancelled")
                self._abandon(error)
                self._close(error, ErrorCode.CANCEL)

    def finish(self, error: RpcError | None) -> None:
        """End the call with a status, None for OK, whatever the client still sends (server side).

        After a failure a message that waits for room in another thread is cut short, and the call
        is reset.
        """
        with self._link.lock:
            if error is not None and self._refusal is None:
                self._refusal = error
                self._link.can_send.notify_all()
        with self._sending, self._link.lock:
            is_cut = self._is_amid_message
            if self._link.calls.get(self._id) is self and not is_cut:
                trailers = encode_status(error)
                headers = trailers if self._has_sent_headers else REPLY + trailers
                self._link.connection.send_headers(self._id, headers, is_end=True)
            self._abandon(error or _OVER)
            self._close(error or _OVER, ErrorCode.CANCEL if is_cut else ErrorCode.NO_ERROR)

    # Sending.

    def _send_buffers(
        self, buffers: Sequence[Buffer], deadline: float | None, *, is_end: bool
    ) -> None:
        with self._sending:
            for buffer in buffers:
                self._is_amid_message = True
                self._send_buffer(memoryview(buffer), deadline, is_end and buffer is buffers[-1])
            self._is_amid_message = False

    def _send_buffer(self, view: memoryview, deadline: float | None, is_end: bool) -> None:
        connection = self._link.connection
        while True:
            with self._link.lock:
                count = self._wait_for_room(len(view), deadline)
                if not self._has_sent_headers:
                    self._has_sent_headers = True
                    connection.send_headers(self._id, REPLY, is_end=False)
                is_last = count == len(view)
                connection.send_data(self._id, view[:count], is_end=is_end and is_last)
                if is_end and is_last:
                    self._refusal = _OVER
                self._link.wake_writer()
            if is_last:
                return
            view = view[count:]

    def _wait_for_room(self, wanted: int, deadline: float | None) -> int:
        connection = self._link.connection
        while True:
            if self._refusal is not None:
                raise self._refusal.again()
            room = connection.send_window(self._id)
            if room > 0 and connection.outbox.size < OUTBOX_LIMIT:
                return min(room, wanted, _STEP)
            wait(self._link.can_send, deadline)

    # Receiving.

    def _take_pieces(self, deadline: float | None) -> list[Buffer]:
        with self._link.lock:
            while not self._pieces and not self._is_received:
                wait(self._arrived, deadline)
            if not self._pieces:
                if self._error is None and self._messages.is_amid:
                    self._error = RpcError(Code.INTERNAL, "the call ended within a message")
                if self._error is not None:
                    raise self._error.again()
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
            self._hold(self._messages.held)
        except RpcError as error:
            with self._link.lock:
                self._abandon(error)
                if self._is_client:
                    self._close(error, ErrorCode.CANCEL)
            raise

    def _hold(self, count: int) -> None:
        with self._link.lock:
            self._link.held += count - self._held
            self._held = count
            if count and self._link.held > HELD_LIMIT:
                raise RpcError(Code.RESOURCE_EXHAUSTED, "too many messages are there in part")

    def _credit(self, count: int) -> None:
        self._link.connection.credit(self._id, count)
        self._link.wake_writer()

    def _end_receiving(self, error: RpcError | None) -> None:
        if not self._is_received:
            self._is_received, self._error = True, error
            self._arrived.notify()

    # What the link tells, with the lock held.

    def headers_came(self, headers: Headers, is_end: bool) -> None:
        """A reply's headers, or trailers of either side."""
        if not self._is_client:
            self._end_receiving(None)
            return
        problem = None if self._has_reply else problem_of_reply(headers)
        self._has_reply = True
        if problem is not None:
            self._end_receiving(problem)
            self._close(problem, ErrorCode.CANCEL)
        elif is_end:
            self.trailers = tuple(header for header in headers if header[0] != ":status")
            error = decode_status(self.trailers)
            self._end_receiving(error)
            self._close(error or _OVER, ErrorCode.NO_ERROR)

    def data_came(self, data: memoryview, is_end: bool) -> None:
        """Bytes of messages."""
        if self._is_received:
            self._credit(len(data))
        elif len(data) >= _SMALL_PIECE:
            self._pieces.append(data)
        else:
            self._add_small(data)
        if is_end:
            self._data_ended()
        self._arrived.notify()

    def _add_small(self, data: memoryview) -> None:
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) < 16 * _SMALL_PIECE:
            last += data
        elif data:
            self._pieces.append(bytearray(data))

    def _data_ended(self) -> None:
        if self._is_client:
            error = RpcError(Code.INTERNAL, "the call ended without a status")
            self._end_receiving(error)
            self._close(error, ErrorCode.NO_ERROR)
        else:
            self._end_receiving(None)

    def fail(self, error: RpcError) -> None:
        """The end of both sides, by the peer or with the connection.

        A client still gets what had come before; a handler is told at once.
        """
        self._end_receiving(error)
        if self._refusal is None:
            self._refusal = error
        if not self._is_client:
            self._abandon(error)

    def _abandon(self, error: RpcError) -> None:
        """What came and was not taken is void, and so is what is still to come."""
        self._is_abandoned = self._is_received = True
        self._error = error
        self._credit(sum(map(len, self._pieces)))
        self._pieces.clear()
        self._link.held -= self._held
        self._held = 0
        self._messages = MessageReader()
        self._arrived.notify()

    def _close(self, error: RpcError, code: ErrorCode) -> None:
        """The end of sending, and of the stream. code: for the reset, if it needs one."""
        if self._refusal is None:
            self._refusal = error
        self._link.drop(self._id, code)


def make_deadline(timeout_s: float | None) -> float | None:
    """The moment of the monotonic clock at which the time is over; None: never."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def wait(condition: threading.Condition, deadline: float | None) -> None:
    """Wait for a change, its lock held; raises RpcError DEADLINE_EXCEEDED at the deadline."""
    left_s = None if deadline is None else deadline - time.monotonic()
    if left_s is not None and left_s <= 0:
        raise RpcError(Code.DEADLINE_EXCEEDED, "no answer in time")
    condition.wait(left_s)
