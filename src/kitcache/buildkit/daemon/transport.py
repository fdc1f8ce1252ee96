"""A connection over a socket.

One thread reads a transport, another writes it, and any thread can close it. While a connection is
established its operations have a timeout; afterwards they block.
"""

import os
import socket
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakSet

READ_BYTES = 256 * 1024
_OPENING_BYTES = 512

# As Go's clients: a probe after 15 s of silence, then nine more, then the connection is lost.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 9}

# A result of getaddrinfo: family, type, protocol, canonical name, socket address.
_AddressInfo = tuple[Any, Any, int, str, Any]


class Deadline:
    """The time limit of all steps that establish a connection."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining_s(self) -> float:
        """Return the seconds that remain, more than 0. Raises TimeoutError if none do."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        return seconds

    def is_over(self, within_s: float) -> bool:
        """Return True if the deadline is over, or will be within that many seconds."""
        return self._end - time.monotonic() <= within_s


class SocketTransport:
    """A connected socket, which the transport owns.

    Attributes:
        opening: The first bytes that were received, at most 512, to identify the server.
        failure: The first error of a read or write before close, None for none.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.opening = b""
        self.failure: OSError | None = None
        self._sock = sock
        self._ahead = b""
        self._state = threading.Lock()
        self._users = 0
        self._is_closed = False
        _transports.add(self)

    @property
    def protocol(self) -> str | None:
        """The protocol that TLS negotiated, None for none."""
        return None

    def last_stderr_line(self) -> str:
        """Return the last line of the stderr of a program, "" if there is none."""
        return ""

    def set_timeout(self, seconds: float | None) -> None:
        """Set the timeout of each further read and write (TimeoutError); None for none."""
        self._sock.settimeout(seconds)

    def read(self) -> bytes:
        """Return some bytes; b"" at the end and after close. Raises OSError."""
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        if not self._enter():
            return b""
        try:
            data = self._receive()
        except OSError as error:
            if self._is_closed:
                return b""
            self._record(error)
            raise
        finally:
            self._leave()
        if len(self.opening) < _OPENING_BYTES:
            self.opening += data[: _OPENING_BYTES - len(self.opening)]
        return data

    def unread(self, data: bytes) -> None:
        """Put bytes back for the next read."""
        self._ahead = data + self._ahead

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of the data. Raises OSError, also after close."""
        if not self._enter():
            raise OSError("the connection is closed")
        try:
            self._send(data)
        except OSError as error:
            if not self._is_closed:
                self._record(error)
            raise
        finally:
            self._leave()

    def close(self) -> None:
        """Close the socket. Reads and writes in other threads end."""
        with self._state:
            if self._is_closed:
                return
            self._is_closed = True
            is_idle = not self._users
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if is_idle:
            self._sock.close()

    def leave_to_parent(self) -> None:
        """Close the copy of the socket in a child after fork. Nothing is sent.

        A thread of the parent can hold the lock during the fork, so the child gets a new one.
        """
        self._state = threading.Lock()
        self._is_closed = True
        self._sock.close()

    def _record(self, error: OSError) -> None:
        # The first error is the cause; the other thread gets a second one.
        self.failure = self.failure or error

    def _receive(self) -> bytes:
        return self._sock.recv(READ_BYTES)

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        self._sock.sendall(data)

    # The number of a closed socket can name another file a moment later, so the last thread that is
    # in a call closes it.
    def _enter(self) -> bool:
        with self._state:
            if not self._is_closed:
                self._users += 1
            return not self._is_closed

    def _leave(self) -> None:
        with self._state:
            self._users -= 1
            if self._is_closed and not self._users:
                self._sock.close()


_transports: WeakSet[SocketTransport] = WeakSet()


def _leave_all_to_parent() -> None:
    for transport in tuple(_transports):
        transport.leave_to_parent()


# A child that keeps the socket open would keep the build running after its parent has ended.
os.register_at_fork(after_in_child=_leave_all_to_parent)


def open_unix(path: str, deadline: Deadline) -> SocketTransport:
    """Connect to a Unix socket. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.remaining_s())
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return SocketTransport(sock)


def open_tcp(host: str, port: int, deadline: Deadline) -> SocketTransport:
    """Connect to a TCP port. Raises OSError."""
    return SocketTransport(connect_tcp(host, port, deadline))


def connect_tcp(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Connect to the first address of the host that answers. Raises OSError."""
    addresses = _resolve(host, port, deadline)
    for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
        sock = socket.socket(family, kind, protocol)
        try:
            # A silent address leaves time for the next ones.
            sock.settimeout(deadline.remaining_s() / (len(addresses) - number + 1))
            sock.connect(address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError) or number == len(addresses):
                raise
        else:
            break
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Without keepalive a build would wait forever for a host that is down; with Linux's defaults it
    # would wait for two hours.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # macOS has not all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _resolve(host: str, port: int, deadline: Deadline) -> list[_AddressInfo]:
    # In a thread, since the resolver has no timeout.
    answers: SimpleQueue[list[_AddressInfo] | OSError] = SimpleQueue()

    def resolve() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(
                error if isinstance(error, OSError) else OSError(f"not a host name: {error}")
            )

    threading.Thread(target=resolve, name="kitcache-resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.remaining_s())
    except Empty:
        raise TimeoutError("timed out") from None
    if isinstance(answer, OSError):
        raise answer
    return answer
