"""Listeners of the tests' own: a buildkitd's address with a real BuildKit behind it, and worse.

dockerd's own BuildKit speaks plain HTTP/2 once its `/grpc` upgrade has been made. `into_engine`
makes it and then copies bytes, so that whoever connects finds what a buildkitd would be.
"""

import os
import select
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import trustme

from kitcache.buildkit.daemon.tlsconfig import TlsConfig
from kitcache.buildkit.daemon.transport import SocketTransport
from kitcache.buildkit.wire.rpc import Handler, Server

PATIENCE_S = 20.0
# Longer than any build: a build is silent for as long as its step runs.
_SILENCE_S = 600.0
_CHUNK_BYTES = 256 * 1024

Behaviour = Callable[[socket.socket], None]


class Listener:
    """Accepts until it is left; each connection is handled in a thread by `behave`.

    Context manager. count: of the connections so far.
    """

    def __init__(
        self, server: socket.socket, behave: Behaviour, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.count = 0
        self._server = server
        self._behave = behave
        self._tls = tls
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        _shut(self._server)
        self._threads[0].join(PATIENCE_S)
        self._server.close()
        for sock in self._open:
            _shut(sock)
        for thread in self._threads[1:]:
            thread.join(PATIENCE_S)
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            self.count += 1
            sock.settimeout(_SILENCE_S)
            if sock.family != socket.AF_UNIX:
                # As Go's servers do; else each small answer takes 40 ms.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError):
            if self._tls is None:
                self._behave(sock)
            else:
                self._serve_tls(sock, self._tls)
        _shut(sock)

    def _serve_tls(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """TLS ends here; what is within it goes on over a pair of plain sockets."""
        inner, outer = socket.socketpair()
        with inner, outer, context.wrap_socket(sock.dup(), server_side=True) as secret:
            thread = threading.Thread(target=_copy_tls, args=(secret, outer), daemon=True)
            thread.start()
            with suppress(OSError):
                self._behave(inner)
            _shut(inner)
            thread.join(PATIENCE_S)


def listen_unix(path: Path, behave: Behaviour) -> Listener:
    """On a unix socket; keep the path under 100 characters."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return Listener(server, behave)


def listen_tcp(behave: Behaviour, *, tls: ssl.SSLContext | None = None) -> Listener:
    """On a free port of 127.0.0.1."""
    return Listener(socket.create_server(("127.0.0.1", 0)), behave, tls=tls)


def into_engine(engine: Path, *, cut_after_bytes: int | None = None) -> Behaviour:
    """Pipes into the engine's `/grpc`. cut_after_bytes: of the client's, then all is closed."""

    return _into(lambda: upgraded(engine), cut_after_bytes)


def into_socket(path: Path) -> Behaviour:
    """Pipes into a unix socket as it is: an engine at another address."""
    return _into(lambda: _connected(path), None)


def _into(dial: Callable[[], socket.socket], cut_after_bytes: int | None) -> Behaviour:
    def pipe(client: socket.socket) -> None:
        with dial() as daemon:
            back = threading.Thread(target=_copy, args=(daemon, client, None), daemon=True)
            back.start()
            _copy(client, daemon, cut_after_bytes)
            if cut_after_bytes is not None:
                _shut(client)
            back.join(PATIENCE_S)

    return pipe


def silent(client: socket.socket) -> None:
    """Takes whatever comes and says nothing."""
    while client.recv(_CHUNK_BYTES):
        pass


def hang_up(client: socket.socket) -> None:
    """Hangs up at once."""


def web_server(client: socket.socket) -> None:
    """Knows HTTP/1.1 and nothing of BuildKit."""
    _say(client, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def https_server(client: socket.socket) -> None:
    """What Go's servers tell those who do not speak TLS."""
    _say(client, b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.")


def tls_alert(client: socket.socket) -> None:
    """What other servers tell them: a fatal alert, protocol version."""
    _say(client, b"\x15\x03\x01\x00\x02\x02\x46")


def gibberish(client: socket.socket) -> None:
    """Answers like an old mail server."""
    _say(client, b"220 mail.example ESMTP\r\n")


def _say(client: socket.socket, words: bytes) -> None:
    client.recv(_CHUNK_BYTES)
    client.sendall(words)
    # Closed with something unread, a connection is reset, and the words may be lost.
    _shut(client, socket.SHUT_WR)
    silent(client)


def grpc_server(handlers: Mapping[str, Handler]) -> Behaviour:
    """Speaks gRPC, and serves what it is given."""

    def serve(client: socket.socket) -> None:
        server = Server(SocketTransport(client.dup()), handlers)
        server.wait_closed(_SILENCE_S)
        server.close()

    return serve


def upgraded(engine: Path) -> socket.socket:
    """A connection to dockerd whose next bytes are HTTP/2."""
    sock = _connected(engine)
    sock.sendall(
        b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, f"dockerd hung up after {head!r}"
        head += byte
    assert head.startswith(b"HTTP/1.1 101"), head
    return sock


def _connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(_SILENCE_S)
    sock.connect(str(path))
    return sock


class Certificates(NamedTuple):
    """server: what a listener needs. client: what we need. stranger: signed by another CA."""

    server: ssl.SSLContext
    client: TlsConfig
    stranger: TlsConfig


def make_certificates(
    directory: Path, *, mutual: bool, protocols: tuple[str, ...] = ("h2",)
) -> Certificates:
    """A CA, a server's certificate for 127.0.0.1, a client's. mutual: the server wants the last.

    The directory is left as docker wants it: ca.pem, cert.pem, key.pem.
    """
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(str(directory / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("127.0.0.1").configure_cert(server)
    if protocols:
        server.set_alpn_protocols(list(protocols))
    if mutual:
        server.verify_mode = ssl.CERT_REQUIRED
        ours.configure_trust(server)
    clients = []
    for place, authority in ((directory, ours), (directory / "stranger", theirs)):
        place.mkdir(exist_ok=True)
        certificate = authority.issue_cert("client")
        certificate.private_key_pem.write_to_path(str(place / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(place / "cert.pem"))
        files = (str(place / name) for name in ("cert.pem", "key.pem"))
        clients.append(TlsConfig(str(directory / "ca.pem"), *files))
    return Certificates(server, *clients)


def stand_in_docker(directory: Path, engine: Path, container: str) -> None:
    """A program `docker` whose `exec -i CONTAINER buildctl dial-stdio` reaches a real BuildKit.

    Any other container is one that docker does not know.
    """
    program = directory / "docker"
    program.write_text(
        f"#!{sys.executable}\n"
        f"import sys\nsys.path[:0] = {sys.path!r}\n"
        "from tests.integration.listener import main\n"
        f"main({str(engine)!r}, {container!r})\n"
    )
    program.chmod(0o755)


def main(engine: str, container: str) -> None:
    """The stand-in itself: stdin and stdout are piped into the engine."""
    expected = ["exec", "-i", container, "buildctl", "dial-stdio"]
    arguments = [word for word in sys.argv[1:] if not word.startswith("--")]
    if arguments != expected:
        name = arguments[2] if len(arguments) > 2 else ""
        sys.exit(f"Error response from daemon: No such container: {name}")
    relay(engine)


def relay(engine: str) -> None:
    """Stdin and stdout are piped into the engine's BuildKit."""
    with upgraded(Path(engine)) as daemon:
        sender = threading.Thread(target=_copy_stdin, args=(daemon,), daemon=True)
        sender.start()
        with suppress(OSError):
            while data := daemon.recv(_CHUNK_BYTES):
                _write_all(1, data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _copy_stdin(daemon: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(0, _CHUNK_BYTES):
            daemon.sendall(data)
    _shut(daemon, socket.SHUT_WR)


def _copy(source: socket.socket, target: socket.socket, most_bytes: int | None) -> None:
    """Until the source ends, which ends the target's half, or most_bytes have passed."""
    passed = 0
    with suppress(OSError):
        while data := source.recv(_CHUNK_BYTES):
            passed += len(data)
            if most_bytes is not None and passed > most_bytes:
                break
            target.sendall(data)
    _shut(target, socket.SHUT_WR)


def _copy_tls(secret: ssl.SSLSocket, plain: socket.socket) -> None:
    """Both ways in one thread: Python's TLS sockets do not bear two."""
    with suppress(OSError):
        is_over = False
        while not is_over:
            ready = [secret] if secret.pending() else select.select([secret, plain], [], [])[0]
            for sock in ready:
                data = sock.recv(_CHUNK_BYTES)
                (plain if sock is secret else secret).sendall(data)
                is_over = is_over or not data
    _shut(plain)


def _shut(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    with suppress(OSError):
        sock.shutdown(how)
