"""The session of a buildkitd: a byte stream in both directions inside Control.Session.

The boundaries of its messages have no meaning.
"""

import threading

from kitcache.buildkit.wire.fields import unwrap_bytes, wrap_bytes
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.buildkit.wire.rpc import Stream

# Daemons accept 16 MiB, old ones 4.
_MAX_MESSAGE_BYTES = 1024 * 1024
_GRACE_S = 1.0


class Tunnel:
    """A transport inside a stream, which it owns."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._state = threading.Condition()
        self._is_reading = False
        self._is_over = False
        self._is_closed = False

    def read(self) -> bytes:
        """Return some bytes, b"" at the end. Raises OSError if the outer connection failed."""
        with self._state:
            if self._is_over:
                return b""
            self._is_reading = True
        data = b""
        try:
            while not data:
                message = self._stream.receive()
                if message is None:
                    break
                data = bytes(unwrap_bytes(message))
        except RpcError as error:
            if not self._is_closed:
                raise OSError(f"the session's connection failed: {error}") from error
        finally:
            with self._state:
                self._is_reading = False
                self._is_over = not data
                self._state.notify_all()
        return data

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of the data. Raises OSError."""
        view = memoryview(data).cast("B")
        parts = [
            wrap_bytes(view[i : i + _MAX_MESSAGE_BYTES])
            for i in range(0, len(view), _MAX_MESSAGE_BYTES)
        ]
        try:
            self._stream.send(*parts)
        except RpcError as error:
            raise OSError(f"the session's connection failed: {error}") from error

    def close(self) -> None:
        """Half-close, which ends the session on the daemon. A read has a second to see the end."""
        with self._state:
            if self._is_closed:
                return
            self._is_closed = True
        try:
            self._stream.end()
        except RpcError:
            return
        with self._state:
            self._state.wait_for(lambda: not self._is_reading, _GRACE_S)
            if self._is_over:
                return
        self._stream.cancel()
