"""One Solve on the daemon: starts it, receives its updates, cancels it.

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
_LAST_UPDATES_S = 5.0
"""Maximum wait for the end of Status after the end of the Solve."""
_FIRST_UPDATE_S = 0.2
"""The same after a failed Solve without a vertex: then Status would end only after 6 s."""
_POLL_S = 0.1
_MAX_QUEUED = 64
"""The number of updates that are queued for a slow on_update; then the daemon waits."""


class Solved(NamedTuple):
    """The end of a Solve.

    Attributes:
        response: The exporters' response; None if the Solve failed.
        is_cancelled: True if kitcache cancelled it.
        is_confirmed: True if the daemon has then reported the end of the build.
    """

    response: dict[str, str] | None
    error: RpcError | None = None
    is_cancelled: bool = False
    is_confirmed: bool = False


class _CallEnded(NamedTuple):
    """The end of the call "solve", with its response, or of the call "status"."""

    call: str
    response: bytes | None
    error: RpcError | None


def solve(
    channel: Channel, request: control_pb2.SolveRequest, on_update: OnUpdate, cancel: Event
) -> Solved:
    """Run the build to its end, and call on_update from this thread.

    Once cancel is set, the Solve is cancelled on the daemon, and its last updates are received for
    at most 5 seconds. If on_update raises, the build is cancelled too and the exception is raised.
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
        self._events: Queue[BuildUpdate | _CallEnded] = Queue(_MAX_QUEUED)
        self._is_over = Event()
        self._deadline_s: float | None = None
        self._solve = channel.open(_SOLVE)
        self._status = channel.open(_STATUS)
        status = control_pb2.StatusRequest(ref=request.ref)
        self._start("solve", lambda: _ask(self._solve, request.SerializeToString()))
        self._start("status", lambda: self._follow(status.SerializeToString()))

    def run(self) -> Solved:
        try:
            return self._run()
        finally:
            self._is_over.set()
            self._solve.cancel()
            self._status.cancel()

    def _run(self) -> Solved:
        error: RpcError | None = RpcError(Code.CANCELLED, "the build was cancelled")
        response = None
        running = {"solve", "status"}
        is_cancelled = has_vertex = False
        while running and (self._deadline_s is None or time.monotonic() < self._deadline_s):
            if self._cancel.is_set() and self._deadline_s is None:
                is_cancelled = True
                self._solve.cancel()
                self._stop_in(_LAST_UPDATES_S)
            try:
                event = self._events.get(timeout=_POLL_S)
            except Empty:
                continue
            if isinstance(event, BuildUpdate):
                has_vertex = has_vertex or bool(event.vertexes)
                self._on_update(event)
                continue
            running.discard(event.call)
            if event.call == "solve":
                response, error = event.response, event.error
                is_unborn = error is not None and not has_vertex
                self._stop_in(_FIRST_UPDATE_S if is_unborn else _LAST_UPDATES_S)
        if error is not None or response is None:
            # Cancelling ends only the call of kitcache. The end of Status confirms it.
            return Solved(None, error, is_cancelled, "status" not in running)
        try:
            message = control_pb2.SolveResponse.FromString(response)
        except DecodeError as problem:
            return Solved(None, RpcError(Code.INTERNAL, f"no SolveResponse: {problem}"))
        return Solved(dict(message.exporter_response))

    def _start(self, call: str, work: Callable[[], bytes | None]) -> None:
        def run() -> None:
            response, error = None, None
            try:
                response = work()
            except RpcError as problem:
                error = problem
            except (ValueError, DecodeError) as problem:
                error = RpcError(Code.INTERNAL, f"the daemon sent no {call} message: {problem}")
            self._put(_CallEnded(call, response, error))

        Thread(target=run, name=f"kitcache-{call}", daemon=True).start()

    def _follow(self, request: bytes) -> None:
        _send(self._status, request)
        for message in self._status:
            self._put(read_update(message))

    def _put(self, event: BuildUpdate | _CallEnded) -> None:
        while not self._is_over.is_set():
            with suppress(Full):
                self._events.put(event, timeout=_POLL_S)
                return

    def _stop_in(self, seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        if self._deadline_s is None or deadline_s < self._deadline_s:
            self._deadline_s = deadline_s


def _ask(stream: Stream, request: bytes) -> bytes:
    _send(stream, request)
    response = stream.receive()
    if response is None:
        raise RpcError(Code.INTERNAL, "the daemon ended the Solve without an answer")
    return response


def _send(stream: Stream, request: bytes) -> None:
    with suppress(RpcError):  # A daemon can respond before it has read all of the request.
        stream.send(request)
        stream.end()
