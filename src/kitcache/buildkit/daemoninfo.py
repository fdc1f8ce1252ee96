"""What a daemon says of itself: its version, its workers and their platforms."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Channel

_EXECUTOR = "org.mobyproject.buildkit.worker.executor"

Message = TypeVar("Message")


class DaemonInfo(NamedTuple):
    """A daemon's version: "" for what it does not tell.

    Builds by a distribution say v0.0.0+unknown; a BuildKit before 0.11 says nothing at all.
    """

    version: str = ""
    revision: str = ""
    package: str = ""
    dockerfile_version: str = ""


class Worker(NamedTuple):
    """Where a daemon builds. platforms: such as linux/arm/v7, the native one first."""

    id: str
    labels: Mapping[str, str]
    platforms: tuple[str, ...]

    @property
    def exports_local_caches(self) -> bool:
        """False for a docker engine without the containerd image store."""
        return _EXECUTOR in self.labels


def read_info(channel: Channel) -> DaemonInfo:
    """The daemon's version. Raises RpcError."""
    request = control_pb2.InfoRequest().SerializeToString()
    try:
        answer = channel.unary("/moby.buildkit.v1.Control/Info", request)
    except RpcError as error:
        if error.code == Code.UNIMPLEMENTED:
            return DaemonInfo()
        raise
    found = _read(control_pb2.InfoResponse.FromString, answer).buildkit_version
    return DaemonInfo(found.version, found.revision, found.package, found.dockerfile_version)


def read_workers(channel: Channel) -> tuple[Worker, ...]:
    """The daemon's workers. Raises RpcError."""
    request = control_pb2.ListWorkersRequest().SerializeToString()
    answer = channel.unary("/moby.buildkit.v1.Control/ListWorkers", request)
    records = _read(control_pb2.ListWorkersResponse.FromString, answer).record
    return tuple(
        Worker(
            record.id,
            dict(record.labels),
            # One that differs from another by its features alone would come twice.
            tuple(
                dict.fromkeys(
                    "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))
                    for platform in record.platforms
                )
            ),
        )
        for record in records
    )


def _read(decode: Callable[[bytes], Message], answer: bytes) -> Message:
    try:
        return decode(answer)
    except DecodeError:
        raise RpcError(Code.INTERNAL, "its answer cannot be read") from None
