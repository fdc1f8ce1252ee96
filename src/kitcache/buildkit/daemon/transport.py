"""Bytes both ways over a socket.

A transport is read by one thread, written by another, and closed from any. While a connection is
being made its operations have a deadline; afterwards they block.
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

# As Go's clients have it: a question after 15 s of silence, nine more, then the connection is lost.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 9}

# What getaddrinfo gives: family, type, protocol, canonical name, socket address.
_Place = tuple[Any, Any, int, str, Any]


class Deadline:
    """A moment until which all steps of a connection have to be done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining_s(self) -> float:
        """Seconds left, more than 0. Raises TimeoutError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def is_over(self, within_s: float) -> bool:
        """Whether there are none left, or will be none so many seconds from now."""
        return self._end - time.monotonic() <= within_s


class SocketTransport:
    """A connected socket, which is this object's own from now on.

    opening: the first bytes that ever came, at most 512, to tell what it is at the far end.
    failure: what read or write failed with first, if one did before close.
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
        """What both sides have agreed to speak, None where nothing was said of it."""
        return None

    def last_stderr_line(self) -> str:
        """Why it ended, as the far end's program says; "" where there is none, or it said none."""
        return ""

    def set_timeout(self, seconds: float | None) -> None:
        """Bounds each further read and write, which then raises TimeoutError; None: unbounded."""
        self._sock.settimeout(seconds)

    def read(self) -> bytes:
        """Some bytes; b"" at the end, and after close."""
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
            self._note(error)
            raise
        finally:
            self._leave()
        if len(self.opening) < _OPENING_BYTES:
            self.opening += data[: _OPENING_BYTES - len(self.opening)]
        return data

    def unread(self, data: bytes) -> None:
        """Bytes that the next read is to find again."""
        self._ahead = data + self._ahead

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """All of it. Raises OSError, also after close."""
        if not self._enter():
            raise OSError("the connection is closed")
        try:
            self._send(data)
        except OSError as error:
            if not self._is_closed:
                self._note(error)
            raise
        finally:
            self._leave()

    def close(self) -> None:
        """Ends reads and writes of other threads, too."""
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
        """Close the copy of the socket that a child has after fork. Sends nothing, takes no lock.

        A thread of the parent may have held the lock: the child gets a new one.
        """
        self._state = threading.Lock()
        self._is_closed = True
        self._sock.close()

    def _note(self, error: OSError) -> None:
        """The first failure is the cause, the other side's thread has the next."""
        if self.failure is None:
            self.failure = error

    def _receive(self) -> bytes:
        return self._sock.recv(READ_BYTES)

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        self._sock.sendall(data)

    # The number of a closed socket may be another file's a moment later: the last thread that
    # still is in a call closes it.
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


# A child that keeps the socket open would keep the build alive after its parent is gone.
os.register_at_fork(after_in_child=_leave_all_to_parent)


def open_unix(path: str, deadline: Deadline) -> SocketTransport:
    """Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.remaining_s())
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return SocketTransport(sock)


def open_tcp(host: str, port: int, deadline: Deadline) -> SocketTransport:
    """Raises OSError."""
    return SocketTransport(connect_tcp(host, port, deadline))


def connect_tcp(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connected socket: the first address of the host that answers. Raises OSError."""
    places = _look_up(host, port, deadline)
    for number, (family, kind, protocol, _, place) in enumerate(places, 1):
        sock = socket.socket(family, kind, protocol)
        try:
            # An address that is silent leaves time for those behind it.
            sock.settimeout(deadline.remaining_s() / (len(places) - number + 1))
            sock.connect(place)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError) or number == len(places):
                raise
        else:
            break
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A machine that is gone says nothing: without it a build would wait for ever, and with what
    # Linux waits by itself for two hours.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # macOS has not all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _look_up(host: str, port: int, deadline: Deadline) -> list[_Place]:
    """The host's addresses. In a thread, since nothing else bounds the resolver."""
    answers: SimpleQueue[list[_Place] | OSError] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error if isinstance(error, OSError) else OSError(f"no host name: {error}"))

    threading.Thread(target=ask, name="kitcache-resolver", daemon=True).start()
    try:
        found = answers.get(timeout=deadline.remaining_s())
    except Empty:
        raise TimeoutError("timed out") from None
    if isinstance(found, OSError):
        raise found
    return found
