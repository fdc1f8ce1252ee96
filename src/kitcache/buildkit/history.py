"""The provenance of a build, from the daemon's build history.

Source: BuildKit, api/services/control (ListenBuildHistory) and in-toto's attestation format.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto import content_pb2, control_pb2
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.buildkit.wire.rpc import Channel

_HISTORY = "/moby.buildkit.v1.Control/ListenBuildHistory"
_READ = "/containerd.services.content.v1.Content/Read"
_PREDICATE = "in-toto.io/predicate-type"
_PROVENANCE = "slsa.dev/provenance/"
_TIMEOUT_S = 10.0
_LIMIT_BYTES = 64 * 1024 * 1024


def read_provenance(channel: Channel, ref: str) -> Mapping[str, Any]:
    """The SLSA predicates of a finished build, by platform; "" where it was built for one.

    Empty where the daemon keeps no history, or the build had no provenance.
    """
    try:
        return {
            platform: _predicate(json.loads(_read_blob(channel, descriptor)))
            for platform, descriptor in _attestations(channel, ref)
        }
    except (RpcError, DecodeError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _predicate(document: dict[str, Any]) -> dict[str, Any]:
    """The history keeps the predicate alone; a statement around it is an image's."""
    found = document.get("predicate", document)
    if not isinstance(found, dict):
        raise TypeError("a predicate is an object")
    return found


def _attestations(channel: Channel, ref: str) -> Iterator[tuple[str, control_pb2.Descriptor]]:
    for record in _records(channel, ref):
        results = dict(record.results) or {"": record.result}
        for platform, result in results.items():
            for descriptor in result.attestations:
                if _PROVENANCE in descriptor.annotations.get(_PREDICATE, ""):
                    yield platform, descriptor


def _records(channel: Channel, ref: str) -> Iterator[control_pb2.BuildHistoryRecord]:
    request = control_pb2.BuildHistoryRequest(ref=ref, early_exit=True)
    for message in _ask(channel, _HISTORY, request.SerializeToString()):
        event = control_pb2.BuildHistoryEvent.FromString(message)
        if event.record.ref == ref:
            yield event.record


def _read_blob(channel: Channel, descriptor: control_pb2.Descriptor) -> bytes:
    request = content_pb2.ReadContentRequest(digest=descriptor.digest)
    data = bytearray()
    for message in _ask(channel, _READ, request.SerializeToString()):
        data += content_pb2.ReadContentResponse.FromString(message).data
        if len(data) > _LIMIT_BYTES:
            raise ValueError("too long for a provenance")
    return bytes(data)


def _ask(channel: Channel, method: str, request: bytes) -> Iterator[bytes]:
    stream = channel.open(method)
    try:
        stream.send(request)
        stream.end()
        while (message := stream.receive(_TIMEOUT_S)) is not None:
            yield message
    finally:
        stream.cancel()
