"""Calls between our own two ends: how they end, whoever ends them, and that nobody hangs."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue

import pytest

from kitcache.buildkit.wire.frames import make_goaway
from kitcache.buildkit.wire.grpc import MAX_MESSAGE, Code, RpcError, frame_messages
from kitcache.buildkit.wire.http2 import MAX_STREAMS
from kitcache.buildkit.wire.rpc import Channel, Handler, Server, Stream
from tests.unit.buildkit.wire.peers import REPLY, REQUEST, Theirs
from tests.unit.buildkit.wire.sockets import SocketTransport, no_thread_left, transport_pair

WAIT_S = 20


@pytest.fixture(autouse=True)
def _threads_end_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    thrown: list[object] = []
    monkeypatch.setattr(threading, "excepthook", thrown.append)
    with no_thread_left():
        yield
    assert thrown == []


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


@pytest.fixture
def raw() -> Iterator[Raw]:
    made = Raw()
    yield made
    made.channel.close()
    made.transport.close()


@pytest.fixture
def connect() -> Iterator[Callable[[dict[str, Handler]], tuple[Channel, Server]]]:
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


def ignore(stream: Stream) -> None:
    """Reads nothing until the call is over."""
    with contextlib.suppress(RpcError):
        while True:
            stream.send(b"x" * 100_000)


class Pause:
    """A handler that says when it was entered and returns when it is told."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, stream: Stream) -> None:
        self.entered.set()
        assert self.go_on.wait(WAIT_S)


def test_a_call_that_ended_ends_again_in_the_same_way(connect: Connect) -> None:
    def fail(stream: Stream) -> None:
        raise RpcError(Code.NOT_FOUND, "nothing")

    channel, _ = connect({"/s/Echo": echo, "/s/Fail": fail})
    stream = channel.open("/s/Echo")
    stream.end()
    assert (stream.receive(), stream.receive()) == (None, None)
    stream.end()
    failed = channel.open("/s/Fail")
    for _ in range(3):
        assert code_of(failed.receive) == Code.NOT_FOUND
    assert code_of(lambda: failed.send(b"x")) == Code.NOT_FOUND


def test_messages_before_a_failure_are_received(connect: Connect) -> None:
    def fail(stream: Stream) -> None:
        stream.send(b"1", b"2")
        raise RpcError(Code.NOT_FOUND, "nothing")

    channel, _ = connect({"/s/Fail": fail})
    stream = channel.open("/s/Fail")
    assert [stream.receive(WAIT_S), stream.receive(WAIT_S)] == [b"1", b"2"]
    assert code_of(stream.receive) == Code.NOT_FOUND


def test_a_receive_that_timed_out_can_be_tried_again(connect: Connect) -> None:
    pause = Pause()

    def answer(stream: Stream) -> None:
        pause(stream)
        stream.send(b"late")

    channel, _ = connect({"/s/Answer": answer})
    stream = channel.open("/s/Answer")
    assert code_of(lambda: stream.receive(0.01)) == Code.DEADLINE_EXCEEDED
    pause.go_on.set()
    assert stream.receive(WAIT_S) == b"late"


def test_a_deadline_covers_a_request_that_nobody_reads(connect: Connect) -> None:
    pause = Pause()
    channel, _ = connect({"/s/Pause": pause})
    request = b"x" * MAX_MESSAGE
    assert code_of(lambda: channel.unary("/s/Pause", request, timeout_s=0.2)) == (
        Code.DEADLINE_EXCEEDED
    )
    pause.go_on.set()
    assert channel.is_alive


def test_a_unary_call_wants_one_answer(connect: Connect) -> None:
    def none(stream: Stream) -> None:
        stream.receive()

    def two(stream: Stream) -> None:
        stream.send(b"1", b"2")

    channel, _ = connect({"/s/None": none, "/s/Two": two})
    assert code_of(lambda: channel.unary("/s/None", b"")) == Code.INTERNAL
    assert code_of(lambda: channel.unary("/s/Two", b"")) == Code.INTERNAL


def test_a_server_may_answer_a_unary_call_before_it_has_read_it(connect: Connect) -> None:
    def hasty(stream: Stream) -> None:
        stream.send(b"done")

    channel, _ = connect({"/s/Hasty": hasty})
    assert channel.unary("/s/Hasty", b"x" * MAX_MESSAGE, timeout_s=WAIT_S) == b"done"


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


def test_cancel_wakes_who_sends_and_who_receives(connect: Connect) -> None:
    pause = Pause()
    channel, _ = connect({"/s/Pause": pause})
    stream = channel.open("/s/Pause")
    sending = in_thread(lambda: stream.send(b"x" * MAX_MESSAGE))
    receiving = in_thread(stream.receive)
    assert pause.entered.wait(WAIT_S)
    stream.cancel()
    for future in (sending, receiving):
        error = future.exception(WAIT_S)
        assert isinstance(error, RpcError)
        assert error.code == Code.CANCELLED
    pause.go_on.set()


def test_a_failed_handler_cuts_a_message_that_waits(connect: Connect) -> None:
    senders: Queue[Future[object]] = Queue()

    def fail(stream: Stream) -> None:
        senders.put(in_thread(lambda: stream.send(b"begun", b"x" * MAX_MESSAGE)))
        stream.receive()
        raise RpcError(Code.ABORTED, "no more")

    channel, _ = connect({"/s/Fail": fail})
    stream = channel.open("/s/Fail")
    assert stream.receive(WAIT_S) == b"begun"
    stream.end()
    assert isinstance(senders.get(timeout=WAIT_S).exception(WAIT_S), RpcError)
    assert code_of(stream.receive) == Code.CANCELLED


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
    # A window of a gigabyte, and nobody who reads: what is sent is stuck in the outbox.
    other.write(b"\0\0\6\4\0\0\0\0\0" + b"\0\4\x40\0\0\0" + b"\0\0\4\x08\0\0\0\0\0" + b"\x40\0\0\0")
    stream = channel.open("/s/M")
    sending = in_thread(lambda: [stream.send(b"x" * MAX_MESSAGE) for _ in range(10)])
    closing = in_thread(channel.close)
    assert closing.exception(WAIT_S) is None
    assert isinstance(sending.exception(WAIT_S), RpcError)
    other.close()


def test_a_peer_that_breaks_http2_gets_a_reason_and_so_do_we() -> None:
    for data, problem in (
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1"),
        (b"\0" * 40, "no SETTINGS"),
        (b"\xff" * 40, "over the limit"),
    ):
        one, other = transport_pair()
        channel = Channel(one)
        stream = channel.open("/s/M")
        other.write(data)
        with pytest.raises(RpcError, match=problem) as caught:
            stream.receive(WAIT_S)
        assert caught.value.code == Code.UNAVAILABLE
        assert problem in str(channel.failure)
        came = b""
        while piece := other.read():
            came += piece
        assert problem.encode() in came
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


def test_what_is_no_grpc_is_answered_or_refused() -> None:
    one, other = transport_pair()
    server = Server(one, {"/t.T/M": echo})
    theirs = Theirs(is_client=True)
    stream_id = theirs.open(REQUEST)
    theirs.connection.end_stream(stream_id)
    other.write(theirs.output())
    while not theirs.arrived[stream_id].is_ended:
        theirs.receive(other.read())
    assert theirs.arrived[stream_id].headers == [((":status", "415"),)]
    server.close()
    other.close()


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (((":status", "404"), ("content-type", "text/html")), Code.UNIMPLEMENTED),
        (((":status", "503"),), Code.UNAVAILABLE),
        (((":status", "200"), ("content-type", "text/html")), Code.UNKNOWN),
        (((":status", "200"), ("content-type", "application/grpc")), Code.UNKNOWN),
        (((":status", "200"), ("grpc-status", "5")), Code.NOT_FOUND),
    ],
)
def test_a_reply_that_is_not_grpc_is_named(
    raw: Raw, reply: tuple[tuple[str, str], ...], code: Code
) -> None:
    stream = raw.channel.open("/t.T/M")
    raw.await_request(1)
    raw.theirs.connection.send_headers(1, ((":status", "103"), ("link", "x")))
    raw.theirs.send_headers(1, reply, True)
    raw.write()
    assert code_of(lambda: stream.receive(WAIT_S)) == code


def test_metadata_that_cannot_be_carried_is_refused(connect: Connect) -> None:
    channel, _ = connect({})
    for metadata in ((("Upper", "x"),), (("a", "line\nbreak"),), (("a", "ä"),), ((":path", "x"),)):
        with pytest.raises(ValueError, match="cannot carry"):
            channel.open("/s/M", metadata=metadata)


def test_a_channel_waits_while_the_server_has_too_many_calls(raw: Raw) -> None:
    first = raw.channel.open("/t.T/First")
    raw.theirs.change_settings({3: 1})
    raw.await_request(1)
    raw.write()
    while raw.theirs.connection.local_settings.max_concurrent_streams != 1:
        raw.theirs.receive(raw.transport.read())
    opening = in_thread(lambda: raw.channel.open("/t.T/Second"))
    assert code_of(lambda: raw.channel.unary("/t.T/Third", b"", timeout_s=0.05)) == (
        Code.DEADLINE_EXCEEDED
    )
    assert not opening.done()
    raw.theirs.send_headers(1, (*REPLY, ("grpc-status", "0")), True)
    raw.write()
    assert first.receive(WAIT_S) is None
    assert isinstance(opening.result(WAIT_S), Stream)


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


def test_a_message_that_was_cut_off_is_no_success(raw: Raw) -> None:
    stream = raw.channel.open("/t.T/M")
    raw.await_request(1)
    raw.theirs.send_headers(1, REPLY, False)
    raw.theirs.send_data(1, frame_messages([b"message"])[0][:-1], None, False)
    raw.theirs.send_headers(1, (("grpc-status", "0"),), True)
    raw.write()
    assert code_of(lambda: stream.receive(WAIT_S)) == Code.INTERNAL


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
    while raw.channel._link.calls:
        threading.Event().wait(0.001)
    assert len(stream._pieces) == 2
    assert list(stream) == [bytes(100)] * 300


def test_a_call_that_timed_out_is_cancelled_on_the_server(connect: Connect) -> None:
    ended: Future[int] = Future()

    def wait(stream: Stream) -> None:
        stream.receive()
        # Over the window, and its caller has never asked for more than one.
        messages = [bytes(MAX_MESSAGE)] * 3
        stream.send(b"")
        ended.set_result(code_of(lambda: stream.send(*messages)))

    channel, _ = connect({"/s/Wait": wait})
    assert code_of(lambda: channel.unary("/s/Wait", b"", timeout_s=0.2)) == Code.INTERNAL
    assert ended.result(WAIT_S) == Code.CANCELLED


def test_the_limit_of_running_handlers_is_not_one_of_all_calls(connect: Connect) -> None:
    channel, _ = connect({"/s/Echo": echo})
    for _ in range(MAX_STREAMS + 10):
        assert channel.unary("/s/Echo", b"x", timeout_s=WAIT_S) == b"x"


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
