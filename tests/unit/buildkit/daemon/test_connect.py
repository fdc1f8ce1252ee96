"""Which answers make a daemon a BuildKit."""

import socket
from collections.abc import Callable

import pytest

from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.daemon.connect import connect
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Handler, Stream
from kitcache.errors import NoDaemon
from tests.integration.listener import Listener, grpc_server, hang_up, listen_tcp, silent

INFO = "/moby.buildkit.v1.Control/Info"
LIST_WORKERS = "/moby.buildkit.v1.Control/ListWorkers"

Play = Callable[[socket.socket], None]


def answer(stream: Stream) -> None:
    stream.receive()
    stream.send(b"")


def refuse(stream: Stream) -> None:
    raise RpcError(Code.PERMISSION_DENIED, "not for \x1b[31myou")


def address(listener: Listener, *, is_engine: bool | None = None) -> Address:
    return Address(f"tcp://127.0.0.1:{listener.port}", "x", None, is_engine)


def by_first_word(*, upgrade: Play, http2: Play) -> Play:
    """Plays one part for those who ask for an upgrade, another for those who speak HTTP/2."""

    def choose(sock: socket.socket) -> None:
        word = sock.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL)
        (upgrade if word == b"POST" else http2)(sock)

    return choose


@pytest.mark.parametrize("upgrade", [hang_up, silent])
def test_a_buildkitd_is_found_whatever_it_makes_of_the_engines_upgrade(upgrade: Play) -> None:
    behave = by_first_word(upgrade=upgrade, http2=grpc_server({INFO: answer}))
    with (
        listen_tcp(behave) as listener,
        connect(address(listener), timeout_s=2 if upgrade is silent else 20) as connection,
    ):
        assert connection.is_engine is False
        assert listener.count == 2


def test_what_is_known_to_be_a_buildkitd_is_not_probed() -> None:
    listening = listen_tcp(grpc_server({INFO: answer}))
    with listening as listener, connect(address(listener, is_engine=False)):
        assert listener.count == 1


def test_an_old_buildkit_has_no_info() -> None:
    listening = listen_tcp(grpc_server({LIST_WORKERS: answer}))
    with listening as listener, connect(address(listener, is_engine=False)) as connection:
        assert connection.channel.is_alive


@pytest.mark.parametrize(
    ("handlers", "problem"),
    [({}, "it is a gRPC server without moby"), ({INFO: refuse}, r"not for \\x1b\[31myou")],
)
def test_other_grpc_servers_are_no_buildkit(handlers: dict[str, Handler], problem: str) -> None:
    with listen_tcp(grpc_server(handlers)) as listener, pytest.raises(NoDaemon, match=problem):
        connect(address(listener, is_engine=False))


def test_closing_twice_is_closing() -> None:
    with listen_tcp(grpc_server({INFO: answer})) as listener:
        connection = connect(address(listener, is_engine=False))
        connection.close()
        connection.close()
        assert not connection.channel.is_alive
        with pytest.raises(NoDaemon):
            connection.open_session((), {})
