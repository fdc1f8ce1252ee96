"""One BuildKit at every kind of address: it answers, and it calls back through a session."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from kitcache.buildkit.daemon.address import Address, find_daemon
from kitcache.buildkit.daemon.connect import DaemonConnection, connect
from kitcache.buildkit.daemon.tlsconfig import tls_from_directory
from kitcache.buildkit.proto.control_pb2 import (
    ListWorkersRequest,
    ListWorkersResponse,
    SolveRequest,
)
from kitcache.buildkit.session.health import health_handlers
from kitcache.buildkit.wire.grpc import Code, RpcError, first
from kitcache.buildkit.wire.rpc import Stream
from kitcache.errors import NoDaemon
from tests.integration.daemon import Daemon
from tests.integration.listener import (
    PATIENCE_S,
    into_engine,
    into_socket,
    listen_tcp,
    listen_unix,
    make_certificates,
    stand_in_docker,
)

CONTROL = "/moby.buildkit.v1.Control/"
DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
SESSION = "x-docker-expose-session-"


class Place(NamedTuple):
    """An address, and what a connection to it has to turn out to be."""

    address: Address
    is_engine: bool


Opener = Callable[[Daemon, Path, ExitStack], Place]


def engine_socket(daemon: Daemon, tmp: Path, stack: ExitStack) -> Place:
    environ = {"HOME": str(tmp), "DOCKER_HOST": f"unix://{daemon.socket}"}
    return Place(find_daemon(environ), is_engine=True)


def engine_socket_by_addr(daemon: Daemon, tmp: Path, stack: ExitStack) -> Place:
    return Place(find_daemon({}, addr=f"unix://{daemon.socket}"), is_engine=True)


def engine_mutual_tls(daemon: Daemon, tmp: Path, stack: ExitStack) -> Place:
    server = make_certificates(tmp, mutual=True, protocols=("http/1.1",)).server
    listener = stack.enter_context(listen_tcp(into_socket(daemon.socket), tls=server))
    environ = {
        "HOME": str(tmp),
        "DOCKER_HOST": f"tcp://127.0.0.1:{listener.port}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(tmp),
    }
    return Place(find_daemon(environ), is_engine=True)


def engine_mutual_tls_by_addr(daemon: Daemon, tmp: Path, stack: ExitStack) -> Place:
    host = engine_mutual_tls(daemon, tmp, stack).address.url
    return Place(find_daemon({}, addr=host, tls=tls_from_directory(str(tmp))), is_engine=True)


def buildkit_unix(daemon: Daemon, tmp: Path, stack: ExitStack) -> Place:
    path = daemon.root / f"{tmp.name[-20:]}.sock"
    stack.callback(path.unlink)
    stack.enter_context(listen_unix(path, into_engine(daemon.socket)))
    return Place(find_daemon({}, addr=f"unix://{path}"), is_engine=False)


def buildkit_tcp(daemon: Daemon, tmp: Path, stack: ExitStack) -> Place:
    listener = stack.enter_context(listen_tcp(into_engine(daemon.socket)))
    environ = {"BUILDKIT_HOST": f"tcp://127.0.0.1:{listener.port}", "HOME": str(tmp)}
    return Place(find_daemon(environ), is_engine=False)


def _tls(
    daemon: Daemon, tmp: Path, stack: ExitStack, *, mutual: bool, protocols: tuple[str, ...]
) -> Place:
    certificates = make_certificates(tmp, mutual=mutual, protocols=protocols)
    behave = into_engine(daemon.socket)
    listener = stack.enter_context(listen_tcp(behave, tls=certificates.server))
    tls = certificates.client if mutual else certificates.client._replace(cert=None, key=None)
    found = find_daemon({}, addr=f"tcp://127.0.0.1:{listener.port}", tls=tls)
    return Place(found, is_engine=False)


def buildkit_tls(daemon: Daemon, tmp: Path, stack: ExitStack) -> Place:
    return _tls(daemon, tmp, stack, mutual=False, protocols=("h2",))


def buildkit_mutual_tls(daemon: Daemon, tmp: Path, stack: ExitStack) -> Place:
    return _tls(daemon, tmp, stack, mutual=True, protocols=("h2",))


def buildkit_tls_without_alpn(daemon: Daemon, tmp: Path, stack: ExitStack) -> Place:
    return _tls(daemon, tmp, stack, mutual=True, protocols=())


def buildkit_container(daemon: Daemon, tmp: Path, stack: ExitStack) -> Place:
    stand_in_docker(tmp, daemon.socket, "bk")
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("PATH", f"{tmp}{os.pathsep}{os.environ['PATH']}")
    return Place(find_daemon({}, addr="docker-container://bk?context=here"), is_engine=False)


OPENERS = [
    engine_socket,
    engine_socket_by_addr,
    engine_mutual_tls,
    engine_mutual_tls_by_addr,
    buildkit_unix,
    buildkit_tcp,
    buildkit_tls,
    buildkit_mutual_tls,
    buildkit_tls_without_alpn,
    buildkit_container,
]


@pytest.fixture(params=OPENERS, ids=lambda opener: opener.__name__)
def place(request: pytest.FixtureRequest, daemon: Daemon, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield request.param(daemon, tmp_path, stack)


def workers(connection: DaemonConnection) -> ListWorkersResponse:
    request = ListWorkersRequest().SerializeToString()
    answer = connection.channel.unary(f"{CONTROL}ListWorkers", request, timeout_s=PATIENCE_S)
    return ListWorkersResponse.FromString(answer)


def test_a_buildkit_answers_at_every_kind_of_address(place: Place) -> None:
    with connect(place.address) as connection:
        assert connection.is_engine is place.is_engine
        assert len(workers(connection).record) == 1


def test_the_daemon_calls_back_through_a_session_until_it_is_closed(place: Place) -> None:
    asked: list[str | None] = []

    def refuse(stream: Stream) -> None:
        asked.append(first(stream.metadata, "dir-name"))
        raise RpcError(Code.PERMISSION_DENIED, "no context in this test")

    session_id = uuid4().hex
    metadata = (
        (f"{SESSION}uuid", session_id),
        (f"{SESSION}name", "kitcache"),
        (f"{SESSION}sharedkey", ""),
        (f"{SESSION}grpc-method", DIFF_COPY),
    )
    request = SolveRequest(ref=uuid4().hex, session=session_id, frontend="dockerfile.v0")
    with connect(place.address) as connection:
        session = connection.open_session(metadata, {DIFF_COPY: refuse} | health_handlers())
        with pytest.raises(RpcError, match="failed to read dockerfile"):
            connection.channel.unary(
                f"{CONTROL}Solve", request.SerializeToString(), timeout_s=PATIENCE_S
            )
        assert asked[0] == "dockerfile"
        session.close()
        assert session.wait_closed(PATIENCE_S)
        assert session.failure is None
        assert len(workers(connection).record) == 1


def test_a_container_that_docker_does_not_know_is_told_in_dockers_words(
    daemon: Daemon, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        buildkit_container(daemon, tmp_path, stack)
        with pytest.raises(NoDaemon, match="No such container: gone"):
            connect(find_daemon({}, addr="docker-container://gone"))


def test_a_connection_that_is_cut_ends_its_calls(daemon: Daemon) -> None:
    behave = into_engine(daemon.socket, cut_after_bytes=2000)
    with listen_tcp(behave) as listener:
        found = find_daemon({}, addr=f"tcp://127.0.0.1:{listener.port}")
        with connect(found) as connection:
            stream = connection.channel.open(f"{CONTROL}Session")
            stream.send(bytes(3000))
            with pytest.raises(RpcError, match="connection was lost"):
                stream.receive(PATIENCE_S)
            assert not connection.channel.is_alive
