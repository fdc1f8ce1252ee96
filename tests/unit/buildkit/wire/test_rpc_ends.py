"""wire/rpc.py: when a connection ends, so do its calls, in bounded time."""

import contextlib
import threading

import pytest

from kitcache.buildkit.wire.frames import make_goaway
from kitcache.buildkit.wire.grpc import MAX_MESSAGE, Code, RpcError
from kitcache.buildkit.wire.rpc import Channel, Stream
from tests.unit.buildkit.wire.peers import REPLY
from tests.unit.buildkit.wire.rpckit import Connect, Pause, Raw, code_of, in_thread
from tests.unit.buildkit.wire.sockets import WAIT_S, SocketTransport, no_thread_left, transport_pair


def test_the_servers_end_fails_calls_as_unavailable(connect: Connect) -> None:
    pause = Pause()
    channel, server = connect({"/s/Pause": pause})
    stream = channel.open("/s/Pause")
    assert pause.entered.wait(WAIT_S)
    server.close()
    assert server.failure is None
    assert code_of(lambda: stream.receive(WAIT_S)) == Code.UNAVAILABLE
    assert not channel.is_alive
    assert code_of(lambda: channel.open("/s/Pause")) == Code.UNAVAILABLE
    pause.go_on.set()


def test_the_channels_end_wakes_handlers_and_is_no_mystery(connect: Connect) -> None:
    woken: list[int] = []
    entered = threading.Event()

    def wait(stream: Stream) -> None:
        entered.set()
        woken.append(code_of(stream.receive))

    channel, server = connect({"/s/Wait": wait})
    stream = channel.open("/s/Wait")
    assert entered.wait(WAIT_S)
    channel.close()
    channel.close()
    assert server.wait_closed(WAIT_S)
    assert server.failure == "the peer closed it"
    assert code_of(stream.receive) == Code.CANCELLED
    assert code_of(lambda: channel.open("/s/Wait")) == Code.CANCELLED
    with no_thread_left():
        assert woken in ([], [Code.UNAVAILABLE])


def test_a_close_is_bounded_though_the_peer_does_not_read() -> None:
    one, other = transport_pair()
    channel = Channel(one)
    # A window of a gigabyte, and nobody who reads: what is sent is stuck in the send_queue.
    other.write(b"\0\0\6\4\0\0\0\0\0" + b"\0\4\x40\0\0\0" + b"\0\0\4\x08\0\0\0\0\0" + b"\x40\0\0\0")
    stream = channel.open("/s/M")
    sending = in_thread(lambda: [stream.send(b"x" * MAX_MESSAGE) for _ in range(10)])
    closing = in_thread(channel.close)
    assert closing.exception(WAIT_S) is None
    assert isinstance(sending.exception(WAIT_S), RpcError)
    other.close()


def test_a_transport_that_fails_in_any_way_ends_the_calls() -> None:
    class Broken(SocketTransport):
        def write(self, data: object) -> None:
            raise KeyError("what no transport should raise")

    one, other = transport_pair()
    channel = Channel(Broken(one.sock))
    with pytest.raises(RpcError):
        channel.unary("/s/M", b"", timeout_s=WAIT_S)
    assert not channel.is_alive
    other.close()


def test_a_goaway_ends_the_calls_that_nobody_looked_at_and_no_others(raw: Raw) -> None:
    one, other = raw.channel.open("/t.T/One"), raw.channel.open("/t.T/Two")
    raw.await_request(3)
    raw.theirs.send_headers(1, REPLY, False)
    head = raw.theirs.output()
    raw.transport.write(head + make_goaway(1, 11, "enough"))
    with pytest.raises(RpcError, match=r"going away .*enough") as caught:
        other.receive(WAIT_S)
    assert caught.value.code == Code.UNAVAILABLE
    assert not raw.channel.is_alive
    assert code_of(lambda: raw.channel.open("/t.T/Three")) == Code.UNAVAILABLE
    one.send(b"still there")
    raw.theirs.send_headers(1, (("grpc-status", "0"),), True)
    raw.write()
    assert one.receive(WAIT_S) is None


def test_what_a_peer_said_before_it_hung_up_is_heard_though_writing_failed(raw: Raw) -> None:
    stream = raw.channel.open("/t.T/M")
    raw.await_request(1)
    raw.theirs.send_headers(1, (*REPLY, ("grpc-status", "7"), ("grpc-message", "why")), True)
    raw.write()
    raw.transport.close()
    with contextlib.suppress(RpcError):
        while True:
            stream.send(b"x" * 60_000)
    assert code_of(stream.receive) == Code.PERMISSION_DENIED
