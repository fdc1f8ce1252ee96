"""An address at which no BuildKit answers: what happened is told in bounded time, with a way on."""

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kitcache.buildkit.daemon.address import Address, find_daemon
from kitcache.buildkit.daemon.connect import connect
from kitcache.buildkit.daemon.tlsconfig import TlsConfig
from kitcache.errors import NoDaemon
from tests.integration.listener import (
    Behaviour,
    Listener,
    gibberish,
    hang_up,
    https_server,
    listen_tcp,
    listen_unix,
    make_certificates,
    silent,
    tls_alert,
    web_server,
)

# Long enough for whatever answers, short enough for what does not.
SHORT_S = 0.5
LONG_S = 20.0
ADM = 4


def refusal(address: Address, timeout_s: float = LONG_S) -> str:
    """What the user is told; the address and its origin are in it each time."""
    with pytest.raises(NoDaemon) as caught:
        connect(address, timeout_s=timeout_s)
    message = str(caught.value)
    assert message.startswith(f"{address.url}: ")
    assert f"chosen by {address.origin}" in message
    assert "nothing was built" in message
    assert "hint: " in message
    return message


def plain(listener: Listener, *, is_engine: bool | None = None) -> Address:
    return Address(f"tcp://127.0.0.1:{listener.port}", "--addr", None, is_engine)


KINDS = pytest.mark.parametrize("is_engine", [True, False, None])


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    found = find_daemon({}, addr=f"unix://{tmp_path}/none.sock")
    assert "there is no such socket" in refusal(found)


@KINDS
def test_a_socket_that_nobody_listens_on(tmp_path: Path, is_engine: bool | None) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    assert "nothing listens there" in refusal(Address(f"unix://{path}", "x", None, is_engine))


def test_a_port_that_nobody_listens_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "nothing listens there" in refusal(Address(f"tcp://127.0.0.1:{port}", "x"))


def test_a_file_that_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "nothing listens there" in refusal(Address(f"unix://{tmp_path}/file", "x"))


def test_a_path_that_no_socket_can_have() -> None:
    assert "too long" in refusal(Address(f"unix:///{'x' * 200}", "x"))


def test_a_host_that_is_not_known() -> None:
    assert "the host is unknown" in refusal(Address("tcp://nowhere.invalid:1", "x"))


@contextmanager
def as_nobody() -> Iterator[None]:
    """What the kernel asks of us is asked of uid 65534 without any group."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else")
def test_a_socket_that_we_may_not_use_names_the_group_that_may() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.sock")
        os.chmod(directory, 0o755)
        with listen_unix(path, silent):
            os.chown(path, 0, ADM)
            path.chmod(0o660)
            with as_nobody():
                message = refusal(Address(f"unix://{path}", "x"))
    assert "permission denied" in message
    assert "sudo usermod -aG adm" in message


@KINDS
def test_a_daemon_that_says_nothing(is_engine: bool | None) -> None:
    with listen_tcp(silent) as listener:
        assert "it does not answer" in refusal(plain(listener, is_engine=is_engine), SHORT_S)


@KINDS
def test_a_daemon_that_hangs_up(is_engine: bool | None) -> None:
    with listen_tcp(hang_up) as listener:
        message = refusal(plain(listener, is_engine=is_engine))
    assert "closed the connection" in message


@KINDS
def test_a_web_server(is_engine: bool | None) -> None:
    with listen_tcp(web_server) as listener:
        message = refusal(plain(listener, is_engine=is_engine))
    assert "web server" in message or "refuses BuildKit: HTTP 404" in message


@KINDS
def test_something_quite_different(is_engine: bool | None) -> None:
    with listen_tcp(gibberish) as listener:
        message = refusal(plain(listener, is_engine=is_engine))
    assert "no BuildKit" in message or "not answer like a docker engine" in message


@pytest.mark.parametrize("behave", [silent, hang_up, gibberish])
def test_tls_with_one_who_does_not_speak_it(tmp_path: Path, behave: Behaviour) -> None:
    tls = make_certificates(tmp_path, mutual=False).client
    with listen_tcp(behave) as listener:
        message = refusal(plain(listener)._replace(tls=tls), SHORT_S)
    problem = {
        silent: "does not answer",
        hang_up: "did not answer with TLS",
        gibberish: "answer with TLS",
    }
    assert problem[behave] in message


@KINDS
@pytest.mark.parametrize("behave", [https_server, tls_alert])
def test_no_tls_with_one_who_says_that_it_wants_it(
    behave: Behaviour, is_engine: bool | None
) -> None:
    with listen_tcp(behave) as listener:
        assert "it expects TLS" in refusal(plain(listener, is_engine=is_engine))


@KINDS
def test_no_tls_with_one_who_wants_it_and_hangs_up(tmp_path: Path, is_engine: bool | None) -> None:
    server = make_certificates(tmp_path, mutual=False).server
    with listen_tcp(silent, tls=server) as listener:
        message = refusal(plain(listener, is_engine=is_engine))
    assert "closed the connection" in message
    assert "if it expects TLS" in message


@pytest.mark.parametrize("behave", [web_server, hang_up, gibberish])
def test_an_engine_by_its_tls_that_does_not_switch(tmp_path: Path, behave: Behaviour) -> None:
    certificates = make_certificates(tmp_path, mutual=True, protocols=("http/1.1",))
    with listen_tcp(behave, tls=certificates.server) as listener:
        message = refusal(plain(listener)._replace(tls=certificates.client))
    problem = {web_server: "HTTP 404", hang_up: "refused the cert", gibberish: "docker engine"}
    assert problem[behave] in message


def test_a_daemon_whose_certificate_we_do_not_trust(tmp_path: Path) -> None:
    server = make_certificates(tmp_path, mutual=False).server
    with listen_tcp(silent, tls=server) as listener:
        message = refusal(plain(listener)._replace(tls=TlsConfig()))
    assert "its certificate is not trusted" in message


def test_a_daemon_whose_certificate_has_another_name(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, mutual=False)
    tls = certificates.client._replace(server_name="elsewhere")
    with listen_tcp(silent, tls=certificates.server) as listener:
        message = refusal(plain(listener)._replace(tls=tls))
    assert "not valid for 'elsewhere'" in message


Ours = Callable[[TlsConfig, TlsConfig], TlsConfig]


@KINDS
@pytest.mark.parametrize(
    ("ours", "problem"),
    [
        (lambda ours, stranger: stranger, "the daemon refused the certificate"),
        (
            lambda ours, stranger: ours._replace(cert=None, key=None),
            "requires a client certificate",
        ),
    ],
    ids=["a stranger's", "none"],
)
def test_a_daemon_that_refuses_our_certificate(
    tmp_path: Path, ours: Ours, problem: str, is_engine: bool | None
) -> None:
    protocols = ("http/1.1",) if is_engine else ("h2",)
    certificates = make_certificates(tmp_path, mutual=True, protocols=protocols)
    tls = ours(certificates.client, certificates.stranger)
    with listen_tcp(silent, tls=certificates.server) as listener:
        message = refusal(plain(listener, is_engine=is_engine)._replace(tls=tls))
    assert problem in message


def test_a_certificate_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with listen_tcp(silent) as listener:
        for tls in (TlsConfig(str(tmp_path / "ca.pem")), TlsConfig(str(tmp_path / "gone.pem"))):
            message = refusal(plain(listener)._replace(tls=tls))
            assert "a certificate cannot be used" in message
            assert str(tls.ca) in message


def program(tmp_path: Path, code: str) -> Address:
    (tmp_path / "ssh").write_text(f"#!{sys.executable}\n{code}\n")
    (tmp_path / "ssh").chmod(0o755)
    return Address("ssh://far", "DOCKER_HOST", None, None, (str(tmp_path / "ssh"), "far"))


@pytest.mark.parametrize("is_engine", [True, False])
def test_a_program_that_fails_is_quoted(tmp_path: Path, is_engine: bool) -> None:
    code = "import sys; sys.exit('Warning: a\\nssh: no route to \\x1b[31mhost')"
    message = refusal(program(tmp_path, code)._replace(is_engine=is_engine))
    assert r"ssh reports: ssh: no route to \x1b[31mhost" in message


@pytest.mark.parametrize("is_engine", [True, False])
def test_a_program_that_says_nothing_and_one_that_ends(tmp_path: Path, is_engine: bool) -> None:
    waits = program(tmp_path, "import sys; sys.stdin.read()")._replace(is_engine=is_engine)
    assert "it does not answer" in refusal(waits, SHORT_S)
    ends = program(tmp_path, "")._replace(is_engine=is_engine)
    assert "closed the connection" in refusal(ends)


def test_a_program_that_is_not_installed(tmp_path: Path) -> None:
    gone = Address("ssh://far", "x", None, False, ("kitcache-no-such-program",))
    assert "'kitcache-no-such-program' is not installed" in refusal(gone)
    (tmp_path / "plain").touch()
    plain_file = gone._replace(command=(str(tmp_path / "plain"),))
    assert "cannot be run: Permission denied" in refusal(plain_file)
