"""buildkit/solve.py: one Solve and its Status, to whatever end."""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event

import pytest

from kitcache.buildkit import solve as module
from kitcache.buildkit.proto import control_pb2 as pb
from kitcache.buildkit.solve import Solved, solve
from kitcache.buildkit.status import BuildUpdate
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Stream
from tests.unit.buildkit.calls import served

WAIT_S = 20.0
CONTROL = "/moby.buildkit.v1.Control/"
REQUEST = pb.SolveRequest(ref="r")
STEP = pb.StatusResponse(vertexes=[pb.Vertex(digest="d", name="a step")]).SerializeToString()
LINE = pb.StatusResponse(logs=[pb.VertexLog(vertex="d", msg=b"x")]).SerializeToString()
GOOD = pb.SolveResponse(exporter_response={"a": "b"}).SerializeToString()


class Daemon:
    """Its two calls. heard: set once our side has heard some news; say: what Status sends."""

    def __init__(self) -> None:
        self.heard = Event()
        self.updates: list[BuildUpdate] = []
        self.say: SimpleQueue[bytes | None] = SimpleQueue()
        self.cancel = Event()

    def hear(self, update: BuildUpdate) -> None:
        self.updates.append(update)
        self.heard.set()

    def run(
        self,
        answer: Callable[[Stream], None],
        status: Callable[[Stream], None] | None = None,
        on_update: Callable[[BuildUpdate], None] | None = None,
    ) -> Solved:
        def status_of(stream: Stream) -> None:
            assert pb.StatusRequest.FromString(stream.receive() or b"").ref == "r"
            for message in iter(self.say.get, None):
                stream.send(message)

        handlers = {f"{CONTROL}Solve": answer, f"{CONTROL}Status": status or status_of}
        with served(handlers) as channel:
            return solve(channel, REQUEST, on_update or self.hear, self.cancel)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def answering(daemon: Daemon, answer: bytes) -> Callable[[Stream], None]:
    def handle(stream: Stream) -> None:
        assert pb.SolveRequest.FromString(stream.receive() or b"") == REQUEST
        daemon.say.put(None)
        stream.send(answer)

    return handle


def test_a_good_solve_with_all_its_news(daemon: Daemon) -> None:
    for message in (STEP, LINE):
        daemon.say.put(message)
    assert daemon.run(answering(daemon, GOOD)) == Solved({"a": "b"})
    assert [v.name for u in daemon.updates for v in u.vertexes] == ["a step"]
    assert [log.data for u in daemon.updates for log in u.logs] == [b"x"]


def test_the_news_come_in_the_callers_thread(daemon: Daemon) -> None:
    daemon.say.put(STEP)
    threads: set[int] = set()
    daemon.run(answering(daemon, GOOD), on_update=lambda _: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_news_that_come_after_the_answer_are_waited_for(daemon: Daemon) -> None:
    def status(stream: Stream) -> None:
        answered.wait(WAIT_S)
        stream.send(STEP)

    answered = Event()

    def answer(stream: Stream) -> None:
        stream.send(GOOD)
        answered.set()

    assert daemon.run(answer, status).response == {"a": "b"}
    assert len(daemon.updates) == 1


def test_a_status_that_does_not_end_is_given_up(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAST_UPDATES_S", 0.2)
    ended = Event()

    def status(stream: Stream) -> None:
        stream.send(STEP)
        try:
            stream.receive(WAIT_S)
            while stream.receive(WAIT_S) is None and not ended.wait(0.01):
                stream.send(LINE)
        except RpcError:
            ended.set()

    assert daemon.run(answering(daemon, GOOD), status).response == {"a": "b"}
    assert ended.wait(WAIT_S)


def test_a_failure_before_any_step_does_not_wait_for_news(daemon: Daemon) -> None:
    """The daemon would search for the build for 6 seconds."""

    def fail(stream: Stream) -> None:
        raise RpcError(Code.UNKNOWN, "no such frontend")

    over = Event()
    was_waited_for: list[bool] = []

    def status(stream: Stream) -> None:
        was_waited_for.append(not over.wait(WAIT_S))

    found = daemon.run(fail, status)
    over.set()
    assert True not in was_waited_for
    assert found.response is None
    assert found.error is not None
    assert (found.error.code, found.error.message) == (Code.UNKNOWN, "no such frontend")
    assert not found.is_cancelled


def test_a_failure_after_a_step_waits_for_the_last_news(daemon: Daemon) -> None:
    def fail(stream: Stream) -> None:
        daemon.say.put(STEP)
        daemon.heard.wait(WAIT_S)
        raise RpcError(Code.UNKNOWN, "it broke")

    def status(stream: Stream) -> None:
        stream.send(STEP)
        daemon.heard.wait(WAIT_S)
        stream.send(LINE)

    assert daemon.run(fail, status).error is not None
    assert len(daemon.updates) == 2


def test_after_a_cancel_the_last_news_are_heard_though_there_is_no_answer(daemon: Daemon) -> None:
    over = Event()

    def hang(stream: Stream) -> None:
        daemon.heard.wait(WAIT_S)
        daemon.cancel.set()
        over.wait(WAIT_S)

    def status(stream: Stream) -> None:
        stream.send(STEP)
        daemon.cancel.wait(WAIT_S)
        stream.send(LINE)

    found = daemon.run(hang, status)
    over.set()
    assert (found.response, found.is_cancelled, found.is_confirmed) == (None, True, True)
    assert [bool(update.logs) for update in daemon.updates] == [False, True]


def test_a_daemon_that_says_nothing_has_confirmed_no_cancel(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAST_UPDATES_S", 0.0)
    over = Event()

    def hang(stream: Stream) -> None:
        daemon.cancel.set()
        over.wait(WAIT_S)

    def status(stream: Stream) -> None:
        over.wait(WAIT_S)

    found = daemon.run(hang, status)
    over.set()
    assert (found.is_cancelled, found.is_confirmed) == (True, False)


@pytest.mark.parametrize("answer", [b"\xff", b"\x0a\x04\x0a\x02\xff\xfe"])
def test_an_answer_that_is_none(daemon: Daemon, answer: bytes) -> None:
    found = daemon.run(answering(daemon, answer))
    assert found.response is None
    assert found.error is not None
    assert "no SolveResponse" in found.error.message


def test_no_answer_at_all(daemon: Daemon) -> None:
    def end(stream: Stream) -> None:
        daemon.say.put(None)

    found = daemon.run(end)
    assert found.error is not None
    assert "without an answer" in found.error.message


def test_an_answer_that_comes_before_the_question_was_sent(daemon: Daemon) -> None:
    with served({f"{CONTROL}Solve": lambda stream: stream.send(GOOD)}) as channel:
        stream = channel.open(f"{CONTROL}Solve")
        while channel._threads.calls:
            threading.Event().wait(0.01)
        assert module._ask(stream, b"question") == GOOD


def test_news_that_are_garbage_end_the_news_alone(daemon: Daemon) -> None:
    daemon.say.put(STEP)
    daemon.say.put(b"\xff")
    assert daemon.run(answering(daemon, GOOD)) == Solved({"a": "b"})
    assert len(daemon.updates) == 1


class OwnError(BaseException):
    """Whatever a caller's callback raises."""


def test_what_the_callback_raises_ends_both_calls(daemon: Daemon) -> None:
    ended: SimpleQueue[str] = SimpleQueue()

    def until_cancelled(stream: Stream) -> None:
        try:
            if stream.method.endswith("Status"):
                stream.send(STEP)
            while True:
                stream.receive(WAIT_S)
                stream.send(LINE)
        except RpcError as error:
            ended.put(f"{stream.method.rpartition('/')[2]} {Code(error.code).name}")
            raise

    def refuse(update: BuildUpdate) -> None:
        raise OwnError

    handlers = {f"{CONTROL}Solve": until_cancelled, f"{CONTROL}Status": until_cancelled}
    with served(handlers) as channel:
        with pytest.raises(OwnError):
            solve(channel, REQUEST, refuse, daemon.cancel)
        assert {ended.get(timeout=WAIT_S), ended.get(timeout=WAIT_S)} == {
            "Solve CANCELLED",
            "Status CANCELLED",
        }
        assert channel.is_alive


def test_news_that_nobody_takes_hold_up_the_daemon_and_not_the_memory(daemon: Daemon) -> None:
    """All 400 of these messages came into memory once; a window and 64 of them are a quarter."""
    line = pb.StatusResponse(logs=[pb.VertexLog(vertex="d", msg=b"x" * 100_000)])
    message, is_held, is_over = line.SerializeToString(), Event(), Event()

    def status(stream: Stream) -> None:
        stream.receive()
        for _ in range(400):
            try:
                stream.send_until((message,), time.monotonic() + 0.3)
            except RpcError:
                is_held.set()
                break
        is_over.set()
        stream.send(message)

    def answer(stream: Stream) -> None:
        assert is_over.wait(WAIT_S)
        stream.send(GOOD)

    def hear(update: BuildUpdate) -> None:
        assert is_over.wait(WAIT_S)
        daemon.updates.append(update)

    assert daemon.run(answer, status, hear).error is None
    assert is_held.is_set()
    assert 64 <= len(daemon.updates) < 400
