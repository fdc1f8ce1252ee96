"""One Solve on the daemon: asked for, followed, cancelled.

Source: BuildKit, client/solve.go and control/control.go.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import NamedTuple

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.status import BuildUpdate, OnUpdate, read_update
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Channel, Stream

_SOLVE = "/moby.buildkit.v1.Control/Solve"
_STATUS = "/moby.buildkit.v1.Control/Status"
_LAST_NEWS_S = 5.0
"""Status ends with the build; for so long it is waited for after the Solve has ended."""
_FIRST_NEWS_S = 0.2
"""The same where no step was heard of: the daemon searches 6 s for a build that never began."""
_GLANCE_S = 0.1
_MOST_NEWS = 64
"""So many are kept for a slow on_update; then the daemon has to wait."""


class Solved(NamedTuple):
    """How a Solve ended. response: the exporters' answer, None where it failed.

    is_cancelled: by us. is_confirmed: the daemon has said since that the build is over.
    """

    response: dict[str, str] | None
    error: RpcError | None = None
    is_cancelled: bool = False
    is_confirmed: bool = False


class _Ended(NamedTuple):
    """The end of one of the two calls. answer: what Solve answered."""

    call: str
    answer: bytes | None
    error: RpcError | None


def solve(
    channel: Channel, request: control_pb2.SolveRequest, on_update: OnUpdate, cancel: Event
) -> Solved:
    """Run the build to its end. on_update is called from this thread, news by news.

    Once cancel is set, the Solve is cancelled on the daemon, and its last news are waited for,
    5 seconds at most. What on_update raises ends the build, too, and is raised from here.
    """
    return _Solve(channel, request, on_update, cancel).run()


class _Solve:
    def __init__(
        self,
        channel: Channel,
        request: control_pb2.SolveRequest,
        on_update: OnUpdate,
        cancel: Event,
    ) -> None:
        self._on_update = on_update
        self._cancel = cancel
        self._events: Queue[BuildUpdate | _Ended] = Queue(_MOST_NEWS)
        self._is_over = Event()
        self._deadline_s: float | None = None
        self._is_cancelled = False
        self._has_vertex = False
        self._waiting = {"solve", "status"}
        self._solve = channel.open(_SOLVE)
        self._status = channel.open(_STATUS)
        status = control_pb2.StatusRequest(ref=request.ref)
        self._start("solve", lambda: _ask(self._solve, request.SerializeToString()))
        self._start("status", lambda: self._follow(status.SerializeToString()))

    def run(self) -> Solved:
        try:
            return self._judge(self._follow_to_the_end())
        finally:
            self._is_over.set()
            self._solve.cancel()
            self._status.cancel()

    def _follow_to_the_end(self) -> _Ended:
        ended = _Ended("solve", None, RpcError(Code.CANCELLED, "the build was cancelled"))
        while self._waiting and not self._is_late():
            self._look_at_cancel()
            event = self._next_event()
            if isinstance(event, BuildUpdate):
                self._has_vertex = self._has_vertex or bool(event.vertexes)
                self._on_update(event)
            elif event is not None:
                self._waiting.discard(event.call)
                if event.call == "solve":
                    ended = event
                    self._solve_ended(event)
        return ended

    def _start(self, call: str, work: Callable[[], bytes | None]) -> None:
        def run() -> None:
            answer, error = None, None
            try:
                answer = work()
            except RpcError as failure:
                error = failure
            except (ValueError, DecodeError) as failure:
                error = RpcError(Code.INTERNAL, f"the daemon sent no {call} message: {failure}")
            self._put(_Ended(call, answer, error))

        Thread(target=run, name=f"kitcache-{call}", daemon=True).start()

    def _follow(self, request: bytes) -> None:
        _send(self._status, request)
        for message in self._status:
            self._put(read_update(message))

    def _put(self, event: BuildUpdate | _Ended) -> None:
        while not self._is_over.is_set():
            try:
                self._events.put(event, timeout=_GLANCE_S)
            except Full:
                continue
            return

    def _next_event(self) -> BuildUpdate | _Ended | None:
        try:
            return self._events.get(timeout=_GLANCE_S)
        except Empty:
            return None

    def _look_at_cancel(self) -> None:
        if self._cancel.is_set() and not self._is_cancelled and self._deadline_s is None:
            self._is_cancelled = True
            self._solve.cancel()
            self._give_up_in(_LAST_NEWS_S)

    def _solve_ended(self, event: _Ended) -> None:
        is_stillborn = event.error is not None and not self._has_vertex
        self._give_up_in(_FIRST_NEWS_S if is_stillborn else _LAST_NEWS_S)

    def _give_up_in(self, seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        if self._deadline_s is None or deadline_s < self._deadline_s:
            self._deadline_s = deadline_s

    def _is_late(self) -> bool:
        return self._deadline_s is not None and time.monotonic() >= self._deadline_s

    def _judge(self, ended: _Ended) -> Solved:
        if ended.error is not None or ended.answer is None:
            # Our own cancel ends the Solve here; that the daemon has heard of it, Status tells.
            return Solved(None, ended.error, self._is_cancelled, "status" not in self._waiting)
        try:
            response = control_pb2.SolveResponse.FromString(ended.answer)
        except DecodeError as failure:
            return Solved(None, RpcError(Code.INTERNAL, f"no SolveResponse: {failure}"))
        return Solved(dict(response.exporter_response))


def _ask(stream: Stream, request: bytes) -> bytes:
    _send(stream, request)
    answer = stream.receive()
    if answer is None:
        raise RpcError(Code.INTERNAL, "the daemon ended the Solve without an answer")
    return answer


def _send(stream: Stream, request: bytes) -> None:
    with suppress(RpcError):  # a daemon may answer before it has read all: what it says counts
        stream.send(request)
        stream.end()
