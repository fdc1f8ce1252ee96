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
from kitcache.buildkit.wire.stream import make_deadline

_HISTORY = "/moby.buildkit.v1.Control/ListenBuildHistory"
_READ = "/containerd.services.content.v1.Content/Read"
_PREDICATE = "in-toto.io/predicate-type"
_PROVENANCE = "slsa.dev/provenance/"
_MAX_BYTES = 64 * 1024 * 1024


def read_provenance(channel: Channel, ref: str) -> Mapping[str, Any]:
    """Return the SLSA predicates of a finished build by platform; "" for a build of one platform.

    Empty if the daemon keeps no history, the build has no provenance, or the daemon does not send
    it within the channel's timeout.
    """
    deadline_s = make_deadline(channel.timeout_s)
    request = control_pb2.BuildHistoryRequest(ref=ref, early_exit=True).SerializeToString()
    predicates: dict[str, Any] = {}
    try:
        for message in _ask(channel, deadline_s, _HISTORY, request):
            record = control_pb2.BuildHistoryEvent.FromString(message).record
            if record.ref != ref:
                continue
            for platform, result in (dict(record.results) or {"": record.result}).items():
                for descriptor in result.attestations:
                    if _PROVENANCE in descriptor.annotations.get(_PREDICATE, ""):
                        data = _read_blob(channel, deadline_s, descriptor.digest)
                        predicates[platform] = _parse_predicate(data)
    except (RpcError, DecodeError, ValueError, AttributeError, TypeError, RecursionError):
        return {}
    return predicates


def _parse_predicate(data: bytes) -> dict[str, Any]:
    document = json.loads(data)
    # The history keeps only the predicate; an image has it within a statement.
    predicate = document.get("predicate", document)
    if not isinstance(predicate, dict):
        raise TypeError("a predicate is an object")
    return predicate


def _read_blob(channel: Channel, deadline_s: float | None, digest: str) -> bytes:
    request = content_pb2.ReadContentRequest(digest=digest).SerializeToString()
    data = bytearray()
    for message in _ask(channel, deadline_s, _READ, request):
        data += content_pb2.ReadContentResponse.FromString(message).data
        if len(data) > _MAX_BYTES:
            raise ValueError("too long for a provenance")
    return bytes(data)


def _ask(
    channel: Channel, deadline_s: float | None, method: str, request: bytes
) -> Iterator[bytes]:
    stream = channel.open(method)
    try:
        stream.send_until((request,), deadline_s, is_end=True)
        while (message := stream.receive_until(deadline_s)) is not None:
            yield message
    finally:
        stream.cancel()
