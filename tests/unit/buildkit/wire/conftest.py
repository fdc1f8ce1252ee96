"""Connections for the tests of calls; none may leave a thread or a traceback behind."""

import shutil
import tempfile
import threading
from collections.abc import Iterator

import pytest

from kitcache.buildkit.wire.rpc import Channel, Handler, Server
from tests.unit.buildkit.wire.rpckit import Connect, Raw
from tests.unit.buildkit.wire.sockets import WAIT_S, no_thread_left, transport_pair


@pytest.fixture(autouse=True)
def _threads_end_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    thrown: list[object] = []
    monkeypatch.setattr(threading, "excepthook", thrown.append)
    with no_thread_left():
        yield
    assert thrown == []


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Our channel to our server of the handlers that it is called with."""
    made: list[tuple[Channel, Server]] = []

    def make(handlers: dict[str, Handler]) -> tuple[Channel, Server]:
        one, other = transport_pair()
        made.append((Channel(one), Server(other, handlers)))
        return made[-1]

    yield make
    for channel, server in made:
        channel.close()
        server.close()
        assert server.wait_closed(WAIT_S)


@pytest.fixture
def raw() -> Iterator[Raw]:
    made = Raw()
    yield made
    made.channel.close()
    made.transport.close()


@pytest.fixture
def socket_path() -> Iterator[str]:
    """For grpcio; short, for a socket's path has room for 107 bytes."""
    folder = tempfile.mkdtemp(prefix="kc")
    yield f"{folder}/s"
    shutil.rmtree(folder)
