"""A TLS connection, on the client side.

This is a module of its own because `ssl` is slow to import, and a local build does not need it.
"""

import errno
import socket
import ssl
import threading
from contextlib import suppress

from kitcache.buildkit.daemon.tlsconfig import TlsConfig
from kitcache.buildkit.daemon.transport import READ_BYTES, Deadline, SocketTransport, connect_tcp
from kitcache.store.userfiles import check_regular

_WRITE_BYTES = 256 * 1024

_MAX_FILE_BYTES = 16 * 1024 * 1024
"""A file with every public authority has about 300 kB."""
REFUSED = "certificate"
OTHER_NAME = "its certificate is for another name"
# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_NAME = (62, 64)


class TlsTransport(SocketTransport):
    """TLS over a connected socket.

    Python's own TLS sockets must not be read and written at the same time.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._lock = threading.Lock()

    @property
    def protocol(self) -> str | None:
        """The protocol that ALPN selected, known after the handshake."""
        return self._tls.selected_alpn_protocol()

    def handshake(self, deadline: Deadline) -> None:
        """Perform the handshake. Raises OSError (ssl.SSLError, TimeoutError)."""
        while True:
            self.set_timeout(deadline.remaining_s())
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._outgoing.read())
                self._feed(self._sock.recv(READ_BYTES))
            except ssl.SSLError:
                # The server can log why its certificate was refused.
                with suppress(OSError):
                    self._sock.sendall(self._outgoing.read())
                raise
            else:
                self._sock.sendall(self._outgoing.read())
                return

    def _receive(self) -> bytes:
        while True:
            with self._lock:
                data = self._decrypt()
            if data is not None:
                return data
            received = self._sock.recv(READ_BYTES)
            with self._lock:
                self._feed(received)

    def _feed(self, received: bytes) -> None:
        if received:
            self._incoming.write(received)
        else:
            self._incoming.write_eof()

    def _decrypt(self) -> bytes | None:
        """Return all records that are complete; None if more must be received first."""
        parts: list[bytes] = []
        while True:
            try:
                part = self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                return b"".join(parts) if parts else None
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                part = b""
            except ssl.SSLError:
                if parts:
                    return b"".join(parts)
                raise
            if not part:
                return b"".join(parts)
            parts.append(part)

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        while view:
            with self._lock:
                try:
                    done = self._tls.write(view[:_WRITE_BYTES])
                except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                    raise BrokenPipeError(errno.EPIPE, "the server has closed it") from None
                encrypted = self._outgoing.read()
            self._sock.sendall(encrypted)
            view = view[done:]


def open_tls(
    host: str, port: int, context: ssl.SSLContext, server_name: str, deadline: Deadline
) -> TlsTransport:
    """Connect and perform the handshake. Raises OSError (ssl.SSLError)."""
    sock = connect_tcp(host, port, deadline)
    try:
        transport = TlsTransport(sock, context, server_name)
        transport.handshake(deadline)
    except BaseException:
        sock.close()
        raise
    return transport


def make_context(tls: TlsConfig, protocols: tuple[str, ...]) -> ssl.SSLContext:
    """Return a client's context that offers these ALPN protocols.

    Raises ValueError with the file that cannot be read or is not a certificate.
    """
    for path in filter(None, (tls.ca, tls.cert, tls.key)):
        try:
            check_regular(path, _MAX_FILE_BYTES)
        except OSError as error:
            raise ValueError(_unusable(path, error)) from error
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:
        raise ValueError(_unusable(tls.ca, error)) from error
    # As Go's clients: private CAs often lack fields that newer Pythons require, and the trusted
    # certificate can be an intermediate one.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        try:
            context.load_cert_chain(tls.cert, tls.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise ValueError(_unusable(f"{tls.cert} with {tls.key}", error)) from error
    context.set_alpn_protocols(list(protocols))
    return context


def _no_password() -> str:
    # Without this function OpenSSL asks on the terminal.
    raise ValueError("the key is encrypted")


def _unusable(files: str | None, error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "not PEM").replace("_", " ").lower()
    else:
        reason = getattr(error, "strerror", None) or str(error)
    return f"{files}: {reason}"


def explain(error: Exception) -> str | None:
    """Return a TLS error as one clause, REFUSED for the client certificate; None for others."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return f"{OTHER_NAME}: {error.verify_message}"
        return f"its certificate is not trusted: {error.verify_message}"
    if not isinstance(error, ssl.SSLError):
        return None
    reason = error.reason or ""
    if "ALERT" not in reason:
        return f"it did not answer with TLS ({reason.replace('_', ' ').lower() or error})"
    alert = reason.partition("ALERT_")[2]
    if "CERTIFICATE" in alert or alert in {"UNKNOWN_CA", "ACCESS_DENIED"}:
        return REFUSED
    return f"it refused the TLS connection: {alert.replace('_', ' ').lower()}"
