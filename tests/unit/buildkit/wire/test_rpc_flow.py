"""wire/rpc.py: messages that are large or many, and readers that do not read."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

from kitcache.buildkit.wire import stream as module
from kitcache.buildkit.wire.grpc import MAX_MESSAGE, Code, RpcError, frame_messages
from kitcache.buildkit.wire.rpc import Stream
from tests.unit.buildkit.wire.peers import REPLY
from tests.unit.buildkit.wire.rpckit import Connect, Pause, Raw, code_of, echo, in_thread
from tests.unit.buildkit.wire.sockets import WAIT_S


def ignore(stream: Stream) -> None:
    """Reads nothing until the call is over."""
    with contextlib.suppress(RpcError):
        while True:
            stream.send(b"x" * 100_000)


def test_messages_of_many_senders_are_never_mixed(connect: Connect) -> None:
    def check(stream: Stream) -> None:
        kinds = [set(message) for message in stream]
        assert all(len(kind) == 1 for kind in kinds)
        stream.send(str(len(kinds)).encode())

    channel, _ = connect({"/s/Check": check})
    stream = channel.open("/s/Check")
    with ThreadPoolExecutor(4) as pool:
        for number in range(40):
            pool.submit(stream.send, bytes([number]) * 300_000, bytes([number]) * 3)
    stream.end()
    assert stream.receive(WAIT_S) == b"80"


def test_a_message_over_the_limit_fails_its_call_alone(connect: Connect) -> None:
    def huge(stream: Stream) -> None:
        stream.send(b"x" * (MAX_MESSAGE + 1))

    channel, _ = connect({"/s/Huge": huge, "/s/Echo": echo})
    assert code_of(lambda: channel.unary("/s/Huge", b"")) == Code.RESOURCE_EXHAUSTED
    stream = channel.open("/s/Echo")
    with contextlib.suppress(RpcError):
        stream.send(b"x" * (MAX_MESSAGE + 1))
    assert code_of(stream.receive) == Code.RESOURCE_EXHAUSTED
    assert channel.unary("/s/Echo", b"x" * MAX_MESSAGE) == b"x" * MAX_MESSAGE


def test_messages_over_every_window_pass_side_by_side(connect: Connect) -> None:
    channel, _ = connect({"/s/Echo": echo})
    message = b"x" * MAX_MESSAGE
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(channel.unary, "/s/Echo", message) for _ in range(4)]
        assert all(answer.result(WAIT_S) == message for answer in answers)


def test_a_stream_that_nobody_reads_does_not_hold_up_another(connect: Connect) -> None:
    channel, _ = connect({"/s/Ignore": ignore, "/s/Echo": echo})
    stream = channel.open("/s/Ignore")
    assert stream.receive(WAIT_S)
    for _ in range(50):
        assert len(channel.unary("/s/Echo", b"x" * 500_000, timeout_s=WAIT_S)) == 500_000
    stream.cancel()


def test_calls_that_were_given_up_do_not_eat_the_window(connect: Connect) -> None:
    channel, _ = connect({"/s/Ignore": ignore, "/s/Echo": echo})
    for _ in range(10):
        stream = channel.open("/s/Ignore")
        for _ in range(40):
            stream.receive(WAIT_S)
        stream.cancel()
        assert code_of(stream.receive) == Code.CANCELLED
    assert channel.unary("/s/Echo", b"x" * MAX_MESSAGE, timeout_s=WAIT_S)


def test_a_handler_that_returns_gives_back_what_it_did_not_read(connect: Connect) -> None:
    pause = Pause()
    channel, _ = connect({"/s/Pause": pause, "/s/Echo": echo})
    for _ in range(4):
        pause.entered.clear()
        pause.go_on.clear()
        stream = channel.open("/s/Pause")
        sender = in_thread(lambda stream=stream: stream.send(b"x" * MAX_MESSAGE))
        assert pause.entered.wait(WAIT_S)
        pause.go_on.set()
        assert stream.receive(WAIT_S) is None
        assert isinstance(sender.exception(WAIT_S), RpcError | None)
    assert channel.unary("/s/Echo", b"x" * MAX_MESSAGE, timeout_s=WAIT_S)


def test_data_in_tiny_frames_does_not_pile_up_as_such(raw: Raw) -> None:
    stream = raw.channel.open("/t.T/M")
    raw.await_request(1)
    raw.theirs.send_headers(1, REPLY, False)
    data = frame_messages([bytes(100)] * 300)[0]
    for place in range(len(data)):
        raw.theirs.send_data(1, data[place : place + 1], None, False)
    raw.theirs.send_headers(1, (("grpc-status", "0"),), True)
    sending = in_thread(raw.write)
    assert sending.exception(WAIT_S) is None
    # With the end of the call all its data is there.
    while raw.channel._threads.calls:
        threading.Event().wait(0.001)
    assert len(stream._pieces) == 2
    assert list(stream) == [bytes(100)] * 300


def test_many_messages_that_never_end_are_refused_together(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is below its own limit: 250 of them were 4 GB."""
    monkeypatch.setattr(module, "MAX_PARTIAL_BYTES", 10 * 2**20)
    errors: SimpleQueue[RpcError] = SimpleQueue()

    def collect(stream: Stream) -> None:
        try:
            for message in stream:
                stream.send(str(len(message)).encode())
        except RpcError as error:
            errors.put(error)
            raise

    channel, _ = connect({"/s/Collect": collect})
    streams = [channel.open("/s/Collect") for _ in range(4)]
    begun = b"\0" + (4 * 2**20).to_bytes(4, "big") + bytes(3 * 2**20)
    for stream in streams:
        with contextlib.suppress(RpcError):
            stream._send_buffers([begun], None, is_end=False)
    assert errors.get(timeout=WAIT_S).code == Code.RESOURCE_EXHAUSTED
    for stream in streams:
        stream.cancel()
    assert [errors.get(timeout=WAIT_S).code for _ in range(3)] == [Code.CANCELLED] * 3
    for _ in range(3):  # what was held is free again
        assert channel.unary("/s/Collect", bytes(9 * 2**20)) == b"%d" % (9 * 2**20)
