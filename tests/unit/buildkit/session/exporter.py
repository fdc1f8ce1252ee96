"""The daemon's side of the content service: how BuildKit exports a cache, and imports it."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kitcache.buildkit.proto import content_pb2 as pb
from kitcache.buildkit.session.content import content_handlers
from kitcache.buildkit.session.stores import ContentStore
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Channel, Server, Stream
from tests.unit.buildkit.wire.sockets import transport_pair

CONTENT = "/containerd.services.content.v1.Content"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CACHECONFIG = "application/vnd.buildkit.cacheconfig.v0"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Exported(NamedTuple):
    """A cache to export. blobs: (ref, bytes) in the order in which BuildKit sends them."""

    blobs: tuple[tuple[str, bytes], ...]
    root: str

    @property
    def digests(self) -> set[str]:
        return {digest_of(data) for _, data in self.blobs}


def make_cache(layers: Sequence[bytes], *, media_type: str | None = MANIFEST) -> Exported:
    config = json.dumps(
        {"layers": [{"blob": digest_of(d), "parent": -1} for d in layers], "records": []}
    ).encode()
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "config": {"mediaType": CACHECONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": LAYER, "digest": digest_of(d), "size": len(d)} for d in layers],
    }
    if media_type is not None:
        body["mediaType"] = media_type
    manifest = json.dumps(body).encode()
    return Exported(
        (
            *((f"layer-{digest_of(data)}", data) for data in layers),
            (digest_of(config), config),
            (digest_of(manifest), manifest),
        ),
        digest_of(manifest),
    )


class Daemon:
    """Calls one store."""

    def __init__(self, channel: Channel, store_id: str) -> None:
        self.channel = channel
        self.metadata = (("buildkit-attachable-store-id", store_id),)

    def call(self, method: str, request: bytes) -> bytes:
        return self.channel.unary(
            f"{CONTENT}/{method}", request, metadata=self.metadata, timeout_s=20
        )

    def info(self, digest: str) -> pb.Info:
        answer = self.call("Info", pb.InfoRequest(digest=digest).SerializeToString())
        return pb.InfoResponse.FromString(answer).info

    def read(self, digest: str, offset: int = 0, size: int = 0) -> bytes:
        stream = self.open("Read")
        request = pb.ReadContentRequest(digest=digest, offset=offset, size=size)
        stream.send(request.SerializeToString())
        stream.end()
        found = bytearray()
        for message in stream:
            assert len(message) <= 3 << 20
            answer = pb.ReadContentResponse.FromString(message)
            assert answer.offset == len(found)
            found += answer.data
        return bytes(found)

    def statuses(self) -> list[pb.Status]:
        return list(pb.ListStatusesResponse.FromString(self.call("ListStatuses", b"")).statuses)

    def open(self, method: str) -> Stream:
        return self.channel.open(f"{CONTENT}/{method}", metadata=self.metadata)

    def upload(self, ref: str, data: bytes, *, expected: str | None = None) -> "Upload":
        return Upload(self, ref, len(data), digest_of(data) if expected is None else expected)

    def put(self, ref: str, data: bytes, *, chunk: int = 1 << 20) -> bool:
        """Whether it had to be sent."""
        upload = self.upload(ref, data)
        try:
            upload.stat()
            for start in range(0, len(data), chunk):
                upload.write(data[start : start + chunk])
            upload.commit()
        except RpcError as error:
            if error.code != Code.ALREADY_EXISTS:
                raise
            return False
        return True

    def export(self, cache: Exported) -> list[bool]:
        return [self.put(ref, data) for ref, data in cache.blobs]


class Upload:
    """One Write stream, a step at a time."""

    def __init__(self, daemon: Daemon, ref: str, total: int, expected: str) -> None:
        self.stream = daemon.open("Write")
        self.said = {"ref": ref, "total": total, "expected": expected}
        self.offset = 0

    def step(self, **fields: Any) -> pb.WriteContentResponse:
        self.stream.send(pb.WriteContentRequest(**fields).SerializeToString())
        message = self.stream.receive(20)
        assert message is not None, "the stream ended without an answer"
        return pb.WriteContentResponse.FromString(message)

    def stat(self) -> pb.WriteContentResponse:
        answer = self.step(action=pb.STAT, **self.said)
        assert answer.action == pb.STAT
        assert answer.total == self.said["total"]
        return answer

    def write(self, data: bytes) -> None:
        answer = self.step(action=pb.WRITE, data=data, offset=self.offset)
        self.offset += len(data)
        assert (answer.action, answer.offset) == (pb.WRITE, self.offset)

    def commit(self, **fields: Any) -> pb.WriteContentResponse:
        said = {"total": self.said["total"], "expected": self.said["expected"]}
        answer = self.step(action=pb.COMMIT, **(said | {"offset": self.offset} | fields))
        assert answer.action == pb.COMMIT
        assert self.stream.receive(20) is None, "a commit ends the stream with OK"
        return answer


@contextlib.contextmanager
def serving(stores: Mapping[str, ContentStore]) -> Iterator[Channel]:
    """A real connection to the handlers."""
    theirs, ours = transport_pair()
    server = Server(ours, content_handlers(stores))
    channel = Channel(theirs)
    try:
        yield channel
    finally:
        channel.close()
        server.close()


def code_of(call: Any, *args: Any, **kwargs: Any) -> RpcError:
    """The status with which a call ends that has to fail."""
    try:
        call(*args, **kwargs)
    except RpcError as error:
        return error
    raise AssertionError("it went well")
