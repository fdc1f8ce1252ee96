"""The provenance of a build, from the daemon's build history.

Source: BuildKit, api/services/control (ListenBuildHistory) and in-toto's attestation format.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from kitcache.buildkit.proto import content_pb2, control_pb2
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.buildkit.wire.rpc import Channel
from kitcache.buildkit.wire.stream import make_deadline

_HISTORY = "/moby.buildkit.v1.Control/ListenBuildHistory"
_READ = "/containerd.services.content.v1.Content/Read"
_PREDICATE = "in-toto.io/predicate-type"
_PROVENANCE = "slsa.dev/provenance/"
_LIMIT_BYTES = 64 * 1024 * 1024


def read_provenance(channel: Channel, ref: str) -> Mapping[str, Any]:
    """The SLSA predicates of a finished build, by platform; "" where it was built for one.

    Empty where the daemon keeps no history, the build had no provenance, or it does not come within
    the channel's timeout.
    """
    asked = _Asked(channel, make_deadline(channel.timeout_s))
    try:
        return {
            platform: _predicate(json.loads(_read_blob(asked, descriptor)))
            for platform, descriptor in _attestations(asked, ref)
        }
    except (RpcError, DecodeError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


class _Asked(NamedTuple):
    """The daemon that is asked, and until when: the channel's timeout is for all the answers."""

    channel: Channel
    deadline: float | None


def _predicate(document: dict[str, Any]) -> dict[str, Any]:
    """The history keeps the predicate alone; a statement around it is an image's."""
    found = document.get("predicate", document)
    if not isinstance(found, dict):
        raise TypeError("a predicate is an object")
    return found


def _attestations(asked: _Asked, ref: str) -> Iterator[tuple[str, control_pb2.Descriptor]]:
    for record in _records(asked, ref):
        results = dict(record.results) or {"": record.result}
        for platform, result in results.items():
            for descriptor in result.attestations:
                if _PROVENANCE in descriptor.annotations.get(_PREDICATE, ""):
                    yield platform, descriptor


def _records(asked: _Asked, ref: str) -> Iterator[control_pb2.BuildHistoryRecord]:
    request = control_pb2.BuildHistoryRequest(ref=ref, early_exit=True)
    for message in _ask(asked, _HISTORY, request.SerializeToString()):
        event = control_pb2.BuildHistoryEvent.FromString(message)
        if event.record.ref == ref:
            yield event.record


def _read_blob(asked: _Asked, descriptor: control_pb2.Descriptor) -> bytes:
    request = content_pb2.ReadContentRequest(digest=descriptor.digest)
    data = bytearray()
    for message in _ask(asked, _READ, request.SerializeToString()):
        data += content_pb2.ReadContentResponse.FromString(message).data
        if len(data) > _LIMIT_BYTES:
            raise ValueError("too long for a provenance")
    return bytes(data)


def _ask(asked: _Asked, method: str, request: bytes) -> Iterator[bytes]:
    stream = asked.channel.open(method)
    try:
        stream.send_until((request,), asked.deadline, is_end=True)
        while (message := stream.receive_until(asked.deadline)) is not None:
            yield message
    finally:
        stream.cancel()
