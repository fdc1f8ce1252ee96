"""A buildkitd that builds nothing: it writes down what it is asked, and says that all went well.

Its gRPC is grpcio's, so that what it reads has crossed an implementation that is not ours.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from kitcache.buildkit.proto import control_pb2

_SERVICE = "moby.buildkit.v1.Control"


class Recorder:
    """What came. solves: in order. sessions: the metadata of each. answer: to every Solve."""

    def __init__(self) -> None:
        self.solves: list[control_pb2.SolveRequest] = []
        self.sessions: list[tuple[tuple[str, str], ...]] = []
        self.answer: dict[str, str] = {}
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self._ended = threading.Event()

    @property
    def solve(self) -> control_pb2.SolveRequest:
        """The one Solve that came."""
        assert len(self.solves) == 1
        return self.solves[0]

    def handlers(self) -> grpc.GenericRpcHandler:
        empty = control_pb2.InfoRequest
        return grpc.method_handlers_generic_handler(
            _SERVICE,
            {
                "Info": grpc.unary_unary_rpc_method_handler(
                    lambda request, context: control_pb2.InfoResponse(),
                    empty.FromString,
                    control_pb2.InfoResponse.SerializeToString,
                ),
                "Solve": grpc.unary_unary_rpc_method_handler(
                    self._solve,
                    control_pb2.SolveRequest.FromString,
                    control_pb2.SolveResponse.SerializeToString,
                ),
                "Status": grpc.unary_stream_rpc_method_handler(lambda request, context: iter(())),
                "Session": grpc.stream_stream_rpc_method_handler(self._session),
            },
        )

    def _solve(self, request: control_pb2.SolveRequest, context: Any) -> control_pb2.SolveResponse:
        self.solves.append(request)
        if self.failure:
            context.abort(*self.failure)
        return control_pb2.SolveResponse(exporter_response=self.answer)

    def _session(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.sessions.append(tuple((m.key, m.value) for m in context.invocation_metadata()))
        for _ in messages:  # until the client is done
            pass
        yield from ()


@contextmanager
def recording(path: Path) -> Iterator[Recorder]:
    """A recorder at a unix socket; keep the path under 100 characters."""
    recorder = Recorder()
    server = grpc.server(ThreadPoolExecutor(8), handlers=[recorder.handlers()])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield recorder
    finally:
        server.stop(0).wait()
