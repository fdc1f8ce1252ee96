"""The reason that is told is the one that helps most."""

import errno
import socket
from collections.abc import Iterator

import pytest

from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.daemon.connecterrors import Attempt, no_daemon, refused_upgrade
from kitcache.buildkit.daemon.engine import Answer
from kitcache.buildkit.daemon.transport import SocketTransport
from kitcache.buildkit.wire.grpc import Code, RpcError

ADDRESS = Address("tcp://h:1", "BUILDKIT_HOST")
LOST = RpcError(Code.UNAVAILABLE, "the connection was lost")


@pytest.fixture
def transport() -> Iterator[SocketTransport]:
    ours, theirs = socket.socketpair()
    made = SocketTransport(ours)
    yield made
    made.close()
    theirs.close()


def test_what_the_socket_failed_with_says_more_than_what_the_call_did(
    transport: SocketTransport,
) -> None:
    transport.failure = OSError(errno.EHOSTUNREACH, "No route to host")
    error = no_daemon(ADDRESS, LOST, Attempt(transport))
    assert "No route to host" in str(error)
    assert "chosen by BUILDKIT_HOST" in str(error)


def test_what_was_said_says_more_than_how_it_ended(transport: SocketTransport) -> None:
    transport.failure = ConnectionResetError(errno.ECONNRESET, "reset")
    transport.opening = b"HTTP/1.1 400 Bad Request\r\n"
    assert "a web server answers" in str(no_daemon(ADDRESS, LOST, Attempt(transport)))


def test_a_hint_is_given_for_a_stopped_builder(transport: SocketTransport) -> None:
    transport.last_stderr_line = lambda: "is not running"  # type: ignore[method-assign]
    container = Address("docker-container://buildx_buildkit_b0", "x", None, False, ("docker",))
    message = str(no_daemon(container, LOST, Attempt(transport)))
    assert "docker reports: is not running" in message
    assert "docker buildx inspect --bootstrap" in message
    message = str(no_daemon(container, TimeoutError(), Attempt(transport)))
    assert "it does not answer; docker reports: is not running" in message


@pytest.mark.parametrize(
    ("answer", "problem", "step"),
    [
        (Answer(404, "page not found"), "HTTP 404, page not found", "18.09 or newer"),
        (Answer(403, "by policy"), "HTTP 403, by policy", "name another daemon"),
        (Answer(400, "Client sent an HTTP request to an HTTPS server."), "expects TLS", "VERIFY=1"),
    ],
)
def test_an_engines_refusal_is_told_in_its_words(answer: Answer, problem: str, step: str) -> None:
    message = str(refused_upgrade(ADDRESS, answer))
    assert problem in message
    assert step in message
