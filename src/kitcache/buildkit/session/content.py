"""containerd's Content service over content stores: export and import of caches.

The metadata of each call names its store. Semantics: containerd, plugins/services/content; which
store: BuildKit, session/content/attachable.go.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from kitcache.buildkit.proto import content_pb2 as pb
from kitcache.buildkit.session.bulk import (
    COMMIT,
    STAT,
    WRITE,
    WriteRequest,
    encode_read_head,
    read_request,
)
from kitcache.buildkit.session.stores import (
    BlobFile,
    ContentStore,
    ExistingBlob,
    IncomingBlob,
    UploadInProgress,
    WritableContentStore,
)
from kitcache.buildkit.wire.grpc import Code, RpcError, first
from kitcache.buildkit.wire.rpc import Handler, Stream
from kitcache.errors import KitcacheError, Unreadable, printable
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.ingest import DigestMismatch, IngestStatus

STORE_ID = "buildkit-attachable-store-id"

_SERVICE = "/containerd.services.content.v1.Content"
_CHUNK_BYTES = 256 * 1024

Message = TypeVar("Message")
_Serve = Callable[[Stream, ContentStore], None]


def content_handlers(stores: Mapping[str, ContentStore]) -> dict[str, Handler]:
    """Return the methods of the service; store ids are such as local:abc, oci:name or export."""
    methods: dict[str, _Serve] = {
        "Info": _info,
        "Read": _read,
        "Status": _status,
        "ListStatuses": _list_statuses,
        "Write": _write,
        "Abort": _abort,
        "Delete": _refuse(Code.PERMISSION_DENIED, "blobs cannot be deleted"),
        "Update": _refuse(Code.FAILED_PRECONDITION, "labels are not supported"),
    }
    return {f"{_SERVICE}/{name}": _handler(serve, stores) for name, serve in methods.items()}


def _handler(serve: _Serve, stores: Mapping[str, ContentStore]) -> Handler:
    def handle(stream: Stream) -> None:
        store_id = first(stream.metadata, STORE_ID)
        if store_id is None:
            raise RpcError(Code.INVALID_ARGUMENT, f"request lacks metadata {STORE_ID!r}")
        store = stores.get(store_id)
        if store is None:
            name = printable(store_id[:200])
            raise RpcError(Code.NOT_FOUND, f"unknown store {name}: not found")
        serve(stream, store)

    return handle


def _refuse(code: Code, reason: str) -> _Serve:
    def refuse(_stream: Stream, _store: ContentStore) -> None:
        raise RpcError(code, reason)

    return refuse


def _info(stream: Stream, store: ContentStore) -> None:
    digest = _digest(_receive_request(stream, pb.InfoRequest.FromString).digest)
    blob = _open(store, digest)
    os.close(blob.fd)
    time = _timestamp(blob.written_ns)
    info = pb.Info(digest=str(digest), size=blob.size, created_at=time, updated_at=time)
    stream.send(pb.InfoResponse(info=info).SerializeToString())


def _read(stream: Stream, store: ContentStore) -> None:
    request = _receive_request(stream, pb.ReadContentRequest.FromString)
    digest = _digest(request.digest)
    blob = _open(store, digest)
    store.read.add(digest)
    try:
        if not 0 <= request.offset <= blob.size:
            raise RpcError(Code.OUT_OF_RANGE, f"read past object length {blob.size} bytes")
        # A range can exceed the end.
        end = blob.size
        if request.size > 0:
            end = min(end, request.offset + request.size)
        position = request.offset
        while position < end:
            data = os.pread(blob.fd, min(_CHUNK_BYTES, end - position), position)
            if not data:
                raise RpcError(Code.DATA_LOSS, "the blob was truncated during the read")
            stream.send_parts(encode_read_head(position - request.offset, len(data)), data)
            position += len(data)
    except OSError as error:
        raise RpcError(Code.DATA_LOSS, f"cannot read a blob: {error.strerror}") from None
    finally:
        os.close(blob.fd)


def _status(stream: Stream, store: ContentStore) -> None:
    ref = _receive_request(stream, pb.StatusRequest.FromString).ref
    status = next((upload for upload in _uploads(store) if upload.ref == ref), None)
    if status is None:
        raise RpcError(Code.NOT_FOUND, f"ref {printable(ref[:200])}: not found")
    stream.send(pb.StatusResponse(status=_encode_status(status)).SerializeToString())


def _list_statuses(stream: Stream, store: ContentStore) -> None:
    stream.receive()
    statuses = [_encode_status(upload) for upload in _uploads(store)]
    stream.send(pb.ListStatusesResponse(statuses=statuses).SerializeToString())


def _uploads(store: ContentStore) -> tuple[IngestStatus, ...]:
    return store.progress() if isinstance(store, WritableContentStore) else ()


def _abort(stream: Stream, store: ContentStore) -> None:
    ref = _receive_request(stream, pb.AbortRequest.FromString).ref
    if not (isinstance(store, WritableContentStore) and store.abort(ref)):
        raise RpcError(Code.NOT_FOUND, f"ref {printable(ref[:200])}: not found")
    stream.send(b"")


def _write(stream: Stream, store: ContentStore) -> None:
    """Receive one blob. The ref and an incomplete upload are released however the stream ends."""
    request = _next_request(stream)
    if request is None:
        return
    if not isinstance(store, WritableContentStore):
        raise RpcError(Code.PERMISSION_DENIED, "this store is read-only")
    if not request.ref:
        raise RpcError(Code.INVALID_ARGUMENT, "first message must have a reference")
    with _failures():
        incoming = _begin(store, request)
        try:
            _Writing(stream, incoming, request).run()
        finally:
            incoming.close()


def _begin(store: WritableContentStore, request: WriteRequest) -> IncomingBlob:
    expected = _digest(request.expected) if request.expected else None
    try:
        begun = store.begin(request.ref, request.total, expected)
    except UploadInProgress:
        # The daemon retries after a pause, and finds the blob or a free ref.
        name = printable(request.ref[:200])
        raise RpcError(Code.UNAVAILABLE, f"ref {name} locked: unavailable") from None
    if isinstance(begun, ExistingBlob):
        raise _already_exists(begun.digest)
    return begun


class _Writing:
    """The requests of one upload (STAT, WRITE, COMMIT) and their responses."""

    def __init__(self, stream: Stream, incoming: IncomingBlob, request: WriteRequest) -> None:
        self._stream = stream
        self._incoming = incoming
        self._ref = request.ref
        self._total = 0
        self._expected: Digest | None = None
        self._request: WriteRequest | None = request

    def run(self) -> None:
        while self._request is not None:
            request = self._request
            self._check(request)
            if request.action == STAT:
                self._answer(request.action, self._incoming.progress.offset)
            elif self._step(request):
                return
            self._request = _next_request(self._stream)

    def _check(self, request: WriteRequest) -> None:
        if request.ref not in ("", self._ref):
            raise RpcError(Code.INVALID_ARGUMENT, "a stream writes one reference only")
        if request.action not in (STAT, WRITE, COMMIT):
            raise RpcError(Code.INVALID_ARGUMENT, f"unknown action {request.action}")
        if self._incoming.is_aborted:
            raise RpcError(Code.ABORTED, "the upload was aborted")
        self._total = request.total if request.total > 0 else self._total
        if request.expected:
            self._expected = _digest(request.expected)

    def _step(self, request: WriteRequest) -> bool:
        """Perform WRITE or COMMIT. Return True after COMMIT."""
        offset = self._incoming.progress.offset
        if request.offset not in (0, offset):
            raise RpcError(
                Code.OUT_OF_RANGE,
                f"write @{request.offset} must occur at current offset {offset}",
            )
        if request.offset == 0 and offset:
            self._incoming.truncate()
            offset = 0
        is_last = request.action == COMMIT
        if not is_last:
            # Respond first, so that the next bytes arrive while these are hashed and written. A
            # failure ends the stream, and only the response to COMMIT is a guarantee.
            self._answer(request.action, offset + len(request.data))
        if request.data:
            self._incoming.write(request.data)
        if is_last:
            size = self._incoming.progress.offset
            digest, is_new = self._incoming.commit(self._total, self._expected)
            if not is_new:
                raise _already_exists(digest)
            self._answer(request.action, size, str(digest))
        return is_last

    def _answer(self, action: int, offset: int, digest: str = "") -> None:
        progress = self._incoming.progress
        response = pb.WriteContentResponse(
            action=pb.WriteAction.Name(action),
            started_at=_timestamp(progress.started_ns),
            updated_at=_timestamp(progress.updated_ns),
            offset=offset,
            total=self._total,
            digest=digest,
        )
        self._stream.send(response.SerializeToString())


def _next_request(stream: Stream) -> WriteRequest | None:
    message = stream.receive()
    if message is None:
        return None
    try:
        return read_request(message)
    except ValueError as error:
        raise RpcError(Code.INVALID_ARGUMENT, f"not a WriteContentRequest: {error}") from None


def _already_exists(digest: Digest) -> RpcError:
    return RpcError(Code.ALREADY_EXISTS, f"content {digest}: already exists")


@contextmanager
def _failures() -> Iterator[None]:
    """Convert errors of the disk and of the data to statuses that the daemon does not retry."""
    try:
        yield
    except DigestMismatch as error:
        raise RpcError(Code.FAILED_PRECONDITION, f"{error}: failed precondition") from None
    except KitcacheError as error:
        raise RpcError(Code.INTERNAL, printable(error.headline)) from None


def _open(store: ContentStore, digest: Digest) -> BlobFile:
    try:
        blob = store.open_blob(digest)
    except Unreadable as error:
        raise RpcError(Code.DATA_LOSS, f"content {digest} {error.clause}") from None
    if blob is None:
        raise RpcError(Code.NOT_FOUND, f"content {digest}: not found")
    return blob


def _digest(text: str) -> Digest:
    try:
        digest = parse_digest(text)
    except ValueError as error:
        raise RpcError(Code.INVALID_ARGUMENT, str(error)) from None
    if not digest.is_known:
        problem = f"{printable(text[:80])}: unknown algorithm"
        raise RpcError(Code.INVALID_ARGUMENT, problem)
    return digest


def _receive_request(stream: Stream, decode: Callable[[bytes], Message]) -> Message:
    try:
        return decode(stream.receive() or b"")
    except DecodeError as error:
        raise RpcError(Code.INVALID_ARGUMENT, f"cannot parse the request: {error}") from None


def _encode_status(progress: IngestStatus) -> pb.Status:
    return pb.Status(
        started_at=_timestamp(progress.started_ns),
        updated_at=_timestamp(progress.updated_ns),
        ref=progress.ref,
        offset=progress.offset,
        total=progress.total,
    )


def _timestamp(ns: int) -> Timestamp:
    return Timestamp(seconds=ns // 10**9, nanos=ns % 10**9)
