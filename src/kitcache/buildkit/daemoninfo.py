"""The version of a daemon, its workers and their platforms."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Channel

_EXECUTOR = "org.mobyproject.buildkit.worker.executor"

Message = TypeVar("Message")


class DaemonInfo(NamedTuple):
    """A daemon's version. A field is "" if the daemon does not report it.

    Builds of distributions report v0.0.0+unknown, and a BuildKit before 0.11 reports nothing.
    """

    version: str = ""
    revision: str = ""
    package: str = ""
    dockerfile_version: str = ""


class Worker(NamedTuple):
    """A worker of a daemon.

    Attributes:
        labels: Its properties, such as its executor.
        platforms: Such as linux/arm/v7, the native platform first.
    """

    id: str
    labels: Mapping[str, str]
    platforms: tuple[str, ...]

    @property
    def exports_local_caches(self) -> bool:
        """False for a docker engine without the containerd image store."""
        return _EXECUTOR in self.labels


def read_info(channel: Channel) -> DaemonInfo:
    """Return the daemon's version. Raise RpcError."""
    request = control_pb2.InfoRequest().SerializeToString()
    try:
        response = channel.unary("/moby.buildkit.v1.Control/Info", request)
    except RpcError as error:
        if error.code == Code.UNIMPLEMENTED:
            return DaemonInfo()
        raise
    version = _read(control_pb2.InfoResponse.FromString, response).buildkit_version
    return DaemonInfo(
        version.version, version.revision, version.package, version.dockerfile_version
    )


def read_workers(channel: Channel) -> tuple[Worker, ...]:
    """Return the daemon's workers. Raise RpcError."""
    request = control_pb2.ListWorkersRequest().SerializeToString()
    response = channel.unary("/moby.buildkit.v1.Control/ListWorkers", request)
    records = _read(control_pb2.ListWorkersResponse.FromString, response).record
    return tuple(
        Worker(
            record.id,
            dict(record.labels),
            # Platforms that differ only in their features would be listed twice.
            tuple(
                dict.fromkeys(
                    "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))
                    for platform in record.platforms
                )
            ),
        )
        for record in records
    )


def _read(decode: Callable[[bytes], Message], response: bytes) -> Message:
    try:
        return decode(response)
    except DecodeError:
        raise RpcError(Code.INTERNAL, "its answer cannot be read") from None
