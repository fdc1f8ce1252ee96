"""wire/rpc.py: one call between our own two ends: what it brings, and how it ends for both."""

from concurrent.futures import Future
from queue import Queue

import pytest

from kitcache.buildkit.wire.grpc import MAX_MESSAGE, Code, RpcError
from kitcache.buildkit.wire.http2 import MAX_STREAMS
from kitcache.buildkit.wire.rpc import Stream
from tests.unit.buildkit.wire.rpckit import Connect, Pause, code_of, echo, in_thread
from tests.unit.buildkit.wire.sockets import WAIT_S


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


def test_metadata_that_cannot_be_carried_is_refused(connect: Connect) -> None:
    channel, _ = connect({})
    for metadata in ((("Upper", "x"),), (("a", "line\nbreak"),), (("a", "ä"),), ((":path", "x"),)):
        with pytest.raises(ValueError, match="cannot carry"):
            channel.open("/s/M", metadata=metadata)


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
