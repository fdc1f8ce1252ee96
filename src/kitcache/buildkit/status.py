"""The state of a running build: messages of the Status stream as values.

Times are nanoseconds since 1970, or None if the daemon sent none. Texts are as the daemon sent
them: callers have to make them printable. Source: BuildKit, api/services/control/control.proto.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.wire.fields import encode_varint, read_fields
from kitcache.buildkit.wire.frames import Buffer
from kitcache.buildkit.wire.grpc import RpcError

_SECOND_NS = 10**9


class ProgressGroup(NamedTuple):
    """Vertices that are displayed as one step. weak: a vertex that alone does not display it."""

    id: str
    name: str
    weak: bool


class Vertex(NamedTuple):
    """A vertex of the build graph in its current state.

    Attributes:
        digest: The vertex's id.
        inputs: Digests of the vertices that it needs.
        error: "" unless it failed.
    """

    digest: str
    inputs: tuple[str, ...] = ()
    name: str = ""
    cached: bool = False
    started_ns: int | None = None
    completed_ns: int | None = None
    error: str = ""
    group: ProgressGroup | None = None


class Transfer(NamedTuple):
    """A part of a vertex with its own progress: a download, an upload, an export.

    Attributes:
        id: The transfer's name within the vertex.
        vertex: Digest of the vertex.
        current: Done so far, usually bytes.
        total: In the same unit, or 0 if unknown.
    """

    id: str
    vertex: str
    name: str = ""
    current: int = 0
    total: int = 0
    timestamp_ns: int | None = None
    started_ns: int | None = None
    completed_ns: int | None = None


class VertexLog(NamedTuple):
    """A piece of a step's output, split at any byte.

    Attributes:
        vertex: Digest of the step's vertex.
        stream: 1 is stdout, 2 is stderr.
    """

    vertex: str
    stream: int
    data: bytes
    timestamp_ns: int | None = None


class SourceFile(NamedTuple):
    """The complete file that a warning applies to."""

    filename: str
    data: bytes
    language: str


class Range(NamedTuple):
    """A range in a file. Lines count from 1, characters from 0."""

    start_line: int
    start_character: int
    end_line: int
    end_character: int


class BuildWarning(NamedTuple):
    """A finding of the frontend, such as a lint rule that a Dockerfile breaks.

    Attributes:
        vertex: Digest of the vertex that it applies to.
        level: The severity that the frontend set.
        short: One sentence.
        detail: More sentences.
        url: A page about the finding, or "".
        source: The file that it applies to, if the frontend sent it.
        ranges: Places in the file.
    """

    vertex: str
    level: int
    short: str
    detail: tuple[str, ...] = ()
    url: str = ""
    source: SourceFile | None = None
    ranges: tuple[Range, ...] = ()


class BuildUpdate(NamedTuple):
    """Changes of a build: one message of the Status stream."""

    vertexes: tuple[Vertex, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    logs: tuple[VertexLog, ...] = ()
    warnings: tuple[BuildWarning, ...] = ()


OnUpdate = Callable[[BuildUpdate], object]


def read_update(message: bytes) -> BuildUpdate:
    """Return a StatusResponse as a value. Unknown fields are ignored.

    Daemons up to BuildKit 0.17 send names that are not UTF-8. Invalid bytes become U+FFFD, as in
    buildx's JSON. In logs they are kept, and in the texts of warnings they become surrogates. Raise
    ValueError if the message is not a StatusResponse.
    """
    kind = control_pb2.StatusResponse
    try:
        response = kind.FromString(message)
    except DecodeError:
        try:
            response = kind.FromString(_make_utf8(message, kind.DESCRIPTOR))
        except (DecodeError, RpcError) as error:
            raise ValueError(f"not a message of the Status stream: {error}") from None
    return BuildUpdate(
        tuple(map(_read_vertex, response.vertexes)),
        tuple(map(_read_transfer, response.statuses)),
        tuple(
            VertexLog(log.vertex, log.stream, log.msg, _time(log, "timestamp"))
            for log in response.logs
        ),
        tuple(map(_read_warning, response.warnings)),
    )


def _read_vertex(vertex: control_pb2.Vertex) -> Vertex:
    group = None
    if vertex.HasField("progress_group"):
        progress_group = vertex.progress_group
        group = ProgressGroup(progress_group.id, progress_group.name, progress_group.weak)
    return Vertex(
        vertex.digest,
        tuple(vertex.inputs),
        vertex.name,
        vertex.cached,
        _time(vertex, "started"),
        _time(vertex, "completed"),
        vertex.error,
        group,
    )


def _read_transfer(status: control_pb2.VertexStatus) -> Transfer:
    return Transfer(
        status.id,
        status.vertex,
        status.name,
        status.current,
        status.total,
        _time(status, "timestamp"),
        _time(status, "started"),
        _time(status, "completed"),
    )


def _read_warning(warning: control_pb2.VertexWarning) -> BuildWarning:
    source = None
    if warning.HasField("info"):
        info = warning.info
        source = SourceFile(info.filename, info.data, info.language)
    return BuildWarning(
        warning.vertex,
        warning.level,
        _text(warning.short),
        tuple(map(_text, warning.detail)),
        warning.url,
        source,
        tuple(
            Range(place.start.line, place.start.character, place.end.line, place.end.character)
            for place in warning.ranges
        ),
    )


def _time(message: Message, field: str) -> int | None:
    if not message.HasField(field):
        return None
    time: Timestamp = getattr(message, field)
    return time.seconds * _SECOND_NS + time.nanos


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _make_utf8(message: Buffer, descriptor: Any) -> bytes:
    """Return the message with U+FFFD for invalid bytes of strings. Raise RpcError."""
    parts: list[Buffer] = []
    for number, value in read_fields(message):
        if isinstance(value, int):
            parts += (encode_varint(number << 3), encode_varint(value))
            continue
        field = descriptor.fields_by_number.get(number)
        data: Buffer = value
        if field is not None and field.type == FieldDescriptor.TYPE_STRING:
            data = bytes(value).decode("utf-8", "replace").encode()
        elif field is not None and field.type == FieldDescriptor.TYPE_MESSAGE:
            data = _make_utf8(value, field.message_type)
        parts += (encode_varint(number << 3 | 2), encode_varint(len(data)), data)
    return b"".join(parts)
