"""TLS is read and written by two threads at once, and loses nothing."""

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.daemon.connecterrors import Attempt, no_daemon
from kitcache.buildkit.daemon.tlsconfig import TlsConfig
from kitcache.buildkit.daemon.tlstransport import REFUSED, TlsTransport, explain, make_context
from kitcache.buildkit.daemon.transport import Deadline
from tests.integration.listener import Certificates, make_certificates
from tests.unit.buildkit.daemon.peer import PATIENCE_S, played, read_exactly, with_tls

BIG = bytes(range(256)) * 20_000


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path, mutual=True)


def shaken(sock: object, tls: TlsConfig) -> TlsTransport:
    transport = TlsTransport(sock, make_context(tls, ("h2",)), "127.0.0.1")  # type: ignore[arg-type]
    transport.handshake(Deadline(PATIENCE_S))
    transport.set_timeout(None)
    return transport


def test_bytes_pass_whole_while_both_sides_send(certificates: Certificates) -> None:
    def echo(secret: ssl.SSLSocket) -> None:
        for i in range(0, len(BIG), 50_000):
            part = read_exactly(secret, len(BIG[i : i + 50_000]))
            secret.sendall(part)

    with (
        played(with_tls(certificates.server, echo)) as (ours, peer),
        ThreadPoolExecutor() as pool,
    ):
        transport = shaken(ours, certificates.client)
        assert transport.protocol == "h2"
        sent = pool.submit(transport.write, memoryview(BIG))
        received = b""
        while len(received) < len(BIG):
            received += transport.read()
        sent.result(PATIENCE_S)
        peer.join()
        assert received == BIG
        assert transport.read() == b""
        transport.close()


def test_a_write_does_not_wait_for_a_read_that_waits(certificates: Certificates) -> None:
    got = threading.Event()

    def hear(secret: ssl.SSLSocket) -> None:
        read_exactly(secret, 5)
        got.set()

    with played(with_tls(certificates.server, hear)) as (ours, _), ThreadPoolExecutor() as pool:
        transport = shaken(ours, certificates.client)
        reading = pool.submit(transport.read)
        while not transport._users:
            threading.Event().wait(0.001)
        transport.write(b"hello")
        assert got.wait(PATIENCE_S)
        assert reading.result(PATIENCE_S) == b""
        transport.close()


def test_close_ends_a_read_of_another_thread(certificates: Certificates) -> None:
    stop = threading.Event()
    wait = with_tls(certificates.server, lambda _: stop.wait(PATIENCE_S) and None)
    with played(wait) as (ours, _), ThreadPoolExecutor() as pool:
        transport = shaken(ours, certificates.client)
        reading = pool.submit(transport.read)
        while not transport._users:
            threading.Event().wait(0.001)
        transport.close()
        assert reading.result(PATIENCE_S) == b""
        assert transport.failure is None
        stop.set()


def test_a_refused_certificate_is_seen_by_the_reader_and_a_broken_pipe_to_the_writer(
    certificates: Certificates,
) -> None:
    def never(_: ssl.SSLSocket) -> None:
        raise AssertionError("let in without a certificate")

    with played(with_tls(certificates.server, never)) as (ours, peer):
        transport = shaken(ours, certificates.client._replace(cert=None, key=None))
        with pytest.raises(ssl.SSLError) as refused:
            transport.read()
        assert explain(refused.value) == REFUSED
        with pytest.raises(BrokenPipeError):
            transport.write(b"x")
        assert transport.failure is refused.value
        transport.close()
        peer.join()
        assert isinstance(peer.failure, ssl.SSLError)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("builder", "Hostname mismatch, certificate is not valid for 'builder'"),
        ("127.0.0.2", "IP address mismatch, certificate is not valid for '127.0.0.2'"),
    ],
)
def test_another_name_in_the_certificate_is_told_with_the_way_to_give_it(
    certificates: Certificates, name: str, problem: str
) -> None:
    with played(with_tls(certificates.server, lambda _: None)) as (ours, _):
        transport = TlsTransport(ours, make_context(certificates.client, ("h2",)), name)
        with pytest.raises(ssl.SSLError) as refused:
            transport.handshake(Deadline(PATIENCE_S))
        transport.close()
    address = Address(f"tcp://{name}:1234", "--addr", certificates.client)
    error = no_daemon(address, refused.value, Attempt(transport))
    assert f"its certificate is for another name: {problem}" in str(error)
    assert "state the name in the certificate" in str(error)


def test_an_intermediate_certificate_may_be_the_one_that_is_trusted(tmp_path: Path) -> None:
    middle = trustme.CA().create_child_ca()
    middle.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    middle.issue_cert("127.0.0.1").configure_cert(server)
    with played(with_tls(server, lambda secret: secret.sendall(b"hello"))) as (ours, _):
        transport = shaken(ours, TlsConfig(str(tmp_path / "ca.pem")))
        assert transport.read() == b"hello"
        transport.close()


def test_a_key_that_needs_a_password_asks_nobody(certificates: Certificates) -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    key = Path(str(certificates.client.key))
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    with pytest.raises(ValueError, match="the key is encrypted"):
        make_context(certificates.client, ("h2",))


def test_a_key_of_another_certificate_is_refused(certificates: Certificates) -> None:
    mixed = certificates.client._replace(key=certificates.stranger.key)
    with pytest.raises(ValueError, match=r"(?i)key.*mismatch"):
        make_context(mixed, ("h2",))
