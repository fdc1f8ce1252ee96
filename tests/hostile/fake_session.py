"""A session from the daemon's side, over grpcio: what a build lets it ask."""

from collections.abc import Iterable
from queue import SimpleQueue
from typing import Any

import grpc

from kitcache.buildkit.proto import content_pb2
from tests.hostile.build import digest_of

WAIT_S = 20.0
CONTENT = "/containerd.services.content.v1.Content/"
DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
FILE_SEND = "/moby.filesync.v1.FileSend/DiffCopy"
GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
STORE_ID = "buildkit-attachable-store-id"
EXPOSE = "x-docker-expose-session-"
Metadata = tuple[tuple[str, str], ...]


class Session:
    """What a build lets us ask. metadata: as the client introduced itself."""

    def __init__(self, metadata: Metadata, channel: grpc.Channel) -> None:
        self.metadata = metadata
        self._channel = channel
        self._begun: list[Any] = []

    @property
    def methods(self) -> tuple[str, ...]:
        """What it says that it serves."""
        return tuple(v for k, v in self.metadata if k == f"{EXPOSE}grpc-method")

    def unary(self, method: str, request: bytes = b"", metadata: Metadata = ()) -> bytes:
        """One message there and one back. Raises grpc.RpcError."""
        call = self._channel.unary_unary(method)
        return bytes(call(request, metadata=metadata, timeout=WAIT_S))

    def stream(self, method: str, requests: Iterable[bytes], metadata: Metadata = ()) -> Any:
        """Messages both ways: iterate for the answers. Raises grpc.RpcError."""
        call = self._channel.stream_stream(method)
        return call(iter(requests), metadata=metadata, timeout=WAIT_S)

    def begin_upload(self, store: str, data: bytes, ref: str = "") -> Any:
        """All of a blob but its commit; waits until it has come to rest in the store's ingest."""
        digest = digest_of(data)
        ref = ref or f"layer-{digest}"
        requests: SimpleQueue[bytes | None] = SimpleQueue()
        stat = content_pb2.WriteContentRequest(ref=ref, total=len(data), expected=digest)
        requests.put(stat.SerializeToString())
        call = self.stream(f"{CONTENT}Write", iter(requests.get, None), ((STORE_ID, store),))
        next(call)
        for action in (content_pb2.WRITE, content_pb2.STAT):
            request = content_pb2.WriteContentRequest(action=action)
            if action == content_pb2.WRITE:
                request.data = data
            requests.put(request.SerializeToString())
            next(call)
        self._begun.append(call)  # grpcio would cancel a call that nobody has any more
        return call

    def upload(self, store: str, data: bytes, ref: str = "") -> None:
        """A whole blob, unless it is there. ref: `layer-<digest>` unless it is given."""
        digest = digest_of(data)
        commit = content_pb2.WriteContentRequest(
            action=content_pb2.COMMIT,
            ref=ref or f"layer-{digest}",
            total=len(data),
            expected=digest,
            data=data,
        )
        try:
            list(self.stream(f"{CONTENT}Write", [commit.SerializeToString()], ((STORE_ID, store),)))
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.ALREADY_EXISTS:
                raise
