"""A proxy in front of a real object store that holds, answers or breaks chosen requests.

It can also set the store's clock ahead: the headers Date and Last-Modified of its answers. In a
listing, objects then seem older.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

HOLD_TIMEOUT_S = 60.0


class Request(NamedTuple):
    """The head of a request. `path` is decoded; `query` is not."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


Predicate = Callable[[Request], bool]


class Hold:
    """A request that arrived and was not forwarded. Only the first that matches is held."""

    def __init__(self, matches: Predicate) -> None:
        self.matches = matches
        self._arrived, self._released = threading.Event(), threading.Event()

    def wait(self) -> None:
        assert self._arrived.wait(HOLD_TIMEOUT_S), "no request arrived that is to be held"

    def release(self) -> None:
        self._released.set()

    def stop_here(self) -> None:
        self._arrived.set()
        self._released.wait(HOLD_TIMEOUT_S)


class Answer(NamedTuple):
    """The answer of the proxy itself, for the first `times` requests that match.

    `response` is a whole response; b"" closes the connection.
    """

    matches: Predicate
    response: bytes
    times: list[None]


class Proxy:
    """A running proxy. `requests` has each request that it forwarded, in order.

    Args:
        ahead: By how much the clock of the store is set ahead.
    """

    def __init__(self, upstream: str, ahead: timedelta = timedelta()) -> None:
        self._ahead = ahead
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._holds: list[Hold] = []
        self._answers: list[Answer] = []
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def hold(self, matches: Predicate) -> Hold:
        """Hold the next request that matches until it is released."""
        hold = Hold(matches)
        self._holds.append(hold)
        return hold

    def answer(self, matches: Predicate, response: bytes, times: int = 10**6) -> None:
        """Answer requests that match, or close their connections, instead of forwarding them."""
        self._answers.append(Answer(matches, response, [None] * times))

    def close(self) -> None:
        for hold in self._holds:
            hold.release()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._open):
            _shut(each)
        self._accepting.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as server:
            self._open |= {client, server}
            pumped = (server, client, self._ahead)
            answering = threading.Thread(target=_pump, args=pumped, daemon=True)
            answering.start()
            try:
                with client.makefile("rb") as reading:
                    while self._forward(reading.readline, reading.read, client, server):
                        pass
            except OSError:
                pass
            finally:
                _shut(server)
                answering.join()
                self._open -= {client, server}

    def _forward(
        self,
        readline: Callable[[], bytes],
        read: Callable[[int], bytes],
        client: socket.socket,
        server: socket.socket,
    ) -> bool:
        """Forward one request. Return False if the connection has ended, or is to end."""
        lines = [readline()]
        while lines[-1] not in (b"\r\n", b"\n", b""):
            lines.append(readline())
        if not lines[0]:
            return False
        request = _parse(lines)
        body_left = int(request.headers.get("content-length", "0"))
        hold, response = self._choose(request)
        if hold:
            hold.stop_here()
        if response is not None:
            if "expect" not in request.headers:
                read(body_left)
            client.sendall(response)
            return False
        server.sendall(b"".join(lines))
        while body_left:
            data = read(min(body_left, 1 << 16))
            if not data:
                return False
            server.sendall(data)
            body_left -= len(data)
        return True

    def _choose(self, request: Request) -> tuple[Hold | None, bytes | None]:
        with self._lock:
            for answer in self._answers:
                if answer.times and answer.matches(request):
                    answer.times.pop()
                    return None, answer.response
            self.requests.append(request)
            for hold in self._holds:
                if hold.matches(request):
                    self._holds.remove(hold)
                    return hold, None
            return None, None


@contextmanager
def run_proxy(upstream: str, ahead: timedelta = timedelta()) -> Iterator[Proxy]:
    proxy = Proxy(upstream, ahead)
    try:
        yield proxy
    finally:
        proxy.close()


def error_response(status: str, code: str) -> bytes:
    """Return S3's answer for an error, such as ("503 Slow Down", "SlowDown")."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told so</Message></Error>"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _parse(lines: list[bytes]) -> Request:
    method, target, _ = lines[0].decode("latin-1").split(" ", 2)
    pairs = (line.decode("latin-1").partition(":") for line in lines[1:])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs if name.strip()}
    assert "transfer-encoding" not in headers, "the proxy forwards bodies of known length only"
    path, _, query = target.partition("?")
    return Request(method, unquote(path), query, headers)


def _pump(source: socket.socket, sink: socket.socket, ahead: timedelta) -> None:
    def shift(match: re.Match[bytes]) -> bytes:
        date = parsedate_to_datetime(match[2].decode()) + ahead
        return match[1] + format_datetime(date, usegmt=True).encode()

    with suppress(OSError):
        while data := source.recv(1 << 16):
            if ahead and data.startswith(b"HTTP/1.1"):
                data = re.sub(rb"(\r\n(?:Date|Last-Modified): )([^\r]+)", shift, data, count=2)
            sink.sendall(data)
    _shut(sink)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
