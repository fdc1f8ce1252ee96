"""Two ends of one call, without a connection: each direction holds a bounded number of bytes.

A sender that never looks at what comes back, where the other side does the same, hangs here as it
would on the wire; what hangs fails after TIMEOUT_S.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from kitcache.buildkit.wire.frames import Buffer
from kitcache.buildkit.wire.grpc import Code, Metadata, RpcError
from kitcache.buildkit.wire.rpc import Handler, Stream

TIMEOUT_S = 20.0


class _Lane:
    """One direction."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._is_ended = False
        self._failure: RpcError | None = None

    def put(self, message: bytes) -> None:
        with self._changed:
            self._wait(lambda: self._bytes < self._window or self._is_ended, TIMEOUT_S)
            if self._failure or self._is_ended:
                raise self._failure or RpcError(Code.CANCELLED, "the stream is over")
            self._messages.append(message)
            self._bytes += len(message)
            self._changed.notify_all()

    def get(self, timeout_s: float | None) -> bytes | None:
        with self._changed:
            self._wait(
                lambda: self._messages or self._is_ended,
                TIMEOUT_S if timeout_s is None else timeout_s,
            )
            if self._messages:
                message = self._messages.popleft()
                self._bytes -= len(message)
                self._changed.notify_all()
                return message
            if self._failure:
                raise self._failure
            return None

    def end(self, failure: RpcError | None = None) -> None:
        with self._changed:
            self._is_ended = True
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _wait(self, is_ready: Callable[[], object], timeout_s: float) -> None:
        ends = time.monotonic() + timeout_s
        while not is_ready():
            left = ends - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                raise RpcError(Code.DEADLINE_EXCEEDED, "waited too long")


class PipeStream(Stream):
    """One end."""

    def __init__(self, out: _Lane, into: _Lane, method: str, metadata: Metadata) -> None:
        self.method = method
        self.metadata = metadata
        self.trailers = ()
        self._out = out
        self._into = into

    def send(self, *messages: bytes) -> None:
        for message in messages:
            self._out.put(bytes(message))

    def send_parts(self, head: bytes, data: Buffer) -> None:
        self._out.put(head + data)

    def receive(self, timeout_s: float | None = None) -> bytes | None:
        return self._into.get(timeout_s)

    def end(self) -> None:
        self._out.end()

    def cancel(self) -> None:
        for lane in (self._out, self._into):
            lane.end(RpcError(Code.CANCELLED, "cancelled"))


class Call:
    """A handler that runs in a thread; `stream` is the daemon's end. As rpc.Server does it."""

    def __init__(
        self,
        handler: Handler,
        *,
        metadata: Metadata = (),
        method: str = "/a/B",
        window: int = 1 << 20,
    ) -> None:
        there, back = _Lane(window), _Lane(window)
        self.stream = PipeStream(there, back, method, metadata)
        self._ours = PipeStream(back, there, method, metadata)
        self._back = back
        self._there = there
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(handler,), daemon=True)
        self._thread.start()

    def _run(self, handler: Handler) -> None:
        failure = None
        try:
            handler(self._ours)
        except RpcError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # the test is to see it
            self.failure = error
            failure = RpcError(Code.UNKNOWN, type(error).__name__)
        self._back.end(failure)
        self._there.end(failure)

    def say(self, *messages: bytes) -> None:
        """Send as the daemon, who may be refused at any of them."""
        with suppress(RpcError):
            self.stream.send(*messages)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Until the handler has returned, by itself."""
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the handler did not return"
        if self.failure:
            raise self.failure

    def outcome(self) -> RpcError | None:
        """How the call ended, once nothing more comes."""
        try:
            while self.stream.receive() is not None:
                pass
        except RpcError as error:
            self.wait()
            return error
        self.wait()
        return None
