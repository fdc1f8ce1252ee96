"""What the tests of calls share: handlers, and a channel whose server is h2."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from kitcache.buildkit.wire.grpc import RpcError
from kitcache.buildkit.wire.rpc import Channel, Handler, Server, Stream
from tests.unit.buildkit.wire.peers import Theirs
from tests.unit.buildkit.wire.sockets import WAIT_S, transport_pair


class Raw:
    """A channel, and h2 as its server; stream numbers are 1, 3, 5 in the order of opening."""

    def __init__(self) -> None:
        one, self.transport = transport_pair()
        self.channel = Channel(one)
        self.theirs = Theirs(is_client=False)

    def await_request(self, stream_id: int) -> None:
        while not self.theirs.arrived[stream_id].headers:
            self.theirs.receive(self.transport.read())

    def write(self) -> None:
        self.transport.write(self.theirs.output())


Connect = Callable[[dict[str, Handler]], tuple[Channel, Server]]


def in_thread(function: Callable[[], object]) -> Future[object]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function)
    pool.shutdown(wait=False)
    return future


def code_of(function: Callable[[], object]) -> int:
    with pytest.raises(RpcError) as caught:
        function()
    return int(caught.value.code)


def echo(stream: Stream) -> None:
    for message in stream:
        stream.send(message)


class Pause:
    """A handler that says when it was entered and returns when it is told."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, stream: Stream) -> None:
        self.entered.set()
        assert self.go_on.wait(WAIT_S)
