"""buildkit/history.py: the provenance of a build, as the daemon's history has it."""

import json
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

import pytest

from kitcache.buildkit import history
from kitcache.buildkit.history import read_provenance
from kitcache.buildkit.proto import content_pb2
from kitcache.buildkit.proto import control_pb2 as pb
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Handler, Stream
from tests.unit.buildkit.calls import served

SLSA = {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}
SBOM = {"in-toto.io/predicate-type": "https://spdx.dev/Document"}


def info(*digests: str, annotations: Mapping[str, str] = SLSA) -> pb.BuildResultInfo:
    found = [pb.Descriptor(digest=digest, annotations=annotations) for digest in digests]
    return pb.BuildResultInfo(attestations=found)


def record(ref: str = "ours", **fields: Any) -> pb.BuildHistoryEvent:
    return pb.BuildHistoryEvent(record=pb.BuildHistoryRecord(ref=ref, **fields))


def provenance(
    *events: pb.BuildHistoryEvent | bytes, blobs: Mapping[str, bytes | Handler] | None = None
) -> Mapping[str, Any]:
    """What is read where the history tells these events; a blob comes in pieces."""

    def listen(stream: Stream) -> None:
        request = pb.BuildHistoryRequest.FromString(stream.receive() or b"")
        assert (request.ref, request.early_exit) == ("ours", True)
        for event in events:
            stream.send(event if isinstance(event, bytes) else event.SerializeToString())

    def read(stream: Stream) -> None:
        digest = content_pb2.ReadContentRequest.FromString(stream.receive() or b"").digest
        blob = (blobs or {}).get(digest)
        if blob is None:
            raise RpcError(Code.NOT_FOUND, digest)
        if callable(blob):
            blob(stream)
            return
        for at in range(0, len(blob), 7):
            piece = content_pb2.ReadContentResponse(offset=at, data=blob[at : at + 7])
            stream.send(piece.SerializeToString())

    handlers = {
        "/moby.buildkit.v1.Control/ListenBuildHistory": listen,
        "/containerd.services.content.v1.Content/Read": read,
    }
    with served(handlers) as channel:
        return read_provenance(channel, "ours")


def test_a_predicate_alone_and_one_in_a_statement() -> None:
    predicate = {"builder": {"id": "x"}}
    for document in (predicate, {"predicateType": "t", "predicate": predicate}):
        blobs: dict[str, bytes | Handler] = {"d": json.dumps(document).encode()}
        assert provenance(record(result=info("d")), blobs=blobs) == {"": predicate}


def test_one_for_each_platform() -> None:
    results = {"linux/amd64": info("a"), "linux/arm64": info("b")}
    found = provenance(record(results=results), blobs={"a": b'{"n": 1}', "b": b'{"n": 2}'})
    assert found == {"linux/amd64": {"n": 1}, "linux/arm64": {"n": 2}}


def test_other_builds_and_other_attestations_are_not_ours() -> None:
    events = (
        record(ref="other", result=info("d")),
        record(result=info("d", annotations=SBOM)),
        record(result=info("d", annotations={})),
        record(),
    )
    assert provenance(*events, blobs={"d": b"{}"}) == {}


@pytest.mark.parametrize(
    "blob",
    [b"", b"{", b"[]", b"1", b'{"predicate": 1}', b"\xff", b"[" * 100_000, None],
    ids=["empty", "wrong-size", "list", "number", "odd", "not UTF-8", "deep", "none"],
)
def test_a_blob_that_is_none_is_no_provenance(blob: bytes | None) -> None:
    blobs: dict[str, bytes | Handler] = {} if blob is None else {"d": blob}
    assert provenance(record(result=info("d")), blobs=blobs) == {}


def test_garbage_in_the_history_is_no_provenance() -> None:
    assert provenance(b"\xff\xff") == {}
    with served({}) as channel:
        assert read_provenance(channel, "ours") == {}


def test_a_blob_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_MAX_BYTES", 10_000)
    piece = content_pb2.ReadContentResponse(data=b"1" * 4096).SerializeToString()
    ended: SimpleQueue[int] = SimpleQueue()

    def flood(stream: Stream) -> None:
        try:
            while True:
                stream.send(piece)
        except RpcError as error:
            ended.put(error.code)
            raise

    assert provenance(record(result=info("d")), blobs={"d": flood}) == {}
    assert ended.get(timeout=20) == Code.CANCELLED
