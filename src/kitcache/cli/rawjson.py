"""Progress as JSON, a line an update, as `docker buildx build --progress=rawjson` has it.

The keys are those of BuildKit's client/graph.go and solver/pb; what is empty is left out where Go
leaves it out.
"""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import TextIO

from kitcache.buildkit.status import (
    BuildUpdate,
    BuildWarning,
    ProgressGroup,
    Range,
    SourceFile,
    Transfer,
    Vertex,
    VertexLog,
)

Json = dict[str, object]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS = 10**9
_GO_ZERO_TIME = "0001-01-01T00:00:00Z"


class RawJson:
    """A display for programs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def update(self, update: BuildUpdate) -> None:
        """Print the update."""
        self._stream.write(encode_update(update) + "\n")
        self._stream.flush()

    def tick(self) -> None:
        """Nothing is ever due."""

    def note(self, text: str) -> None:
        """Nothing: who reads JSON reads no remarks."""

    def close(self) -> None:
        """Nothing is left."""


def encode_update(update: BuildUpdate) -> str:
    """The update as one JSON object on one line, in ASCII."""
    shape: Json = {
        "vertexes": list(map(_vertex, update.vertexes)),
        "statuses": list(map(_transfer, update.transfers)),
        "logs": list(map(_log, update.logs)),
        "warnings": list(map(_warning, update.warnings)),
    }
    return json.dumps(_without_empty(shape), separators=(",", ":"))


def _vertex(vertex: Vertex) -> Json:
    return _without_empty(
        {
            "digest": vertex.digest,
            "inputs": list(vertex.inputs),
            "name": vertex.name,
            "started": _time(vertex.started_ns),
            "completed": _time(vertex.completed_ns),
            "cached": vertex.cached,
            "error": vertex.error,
        }
    ) | ({"progressGroup": _group(vertex.group)} if vertex.group else {})


def _group(group: ProgressGroup) -> Json:
    return _without_empty({"id": group.id, "name": group.name, "weak": group.weak})


def _transfer(transfer: Transfer) -> Json:
    return _without_empty(
        {
            "id": transfer.id,
            "vertex": transfer.vertex,
            "name": transfer.name,
            "total": transfer.total,
            "current": transfer.current,
            "timestamp": _time(transfer.timestamp_ns) or _GO_ZERO_TIME,
            "started": _time(transfer.started_ns),
            "completed": _time(transfer.completed_ns),
        },
        but=("id", "current"),
    )


def _log(log: VertexLog) -> Json:
    return _without_empty(
        {
            "vertex": log.vertex,
            "stream": log.stream,
            "data": _base64(log.data),
            "timestamp": _time(log.timestamp_ns) or _GO_ZERO_TIME,
        },
        but=("data",),
    )


def _warning(warning: BuildWarning) -> Json:
    shape: Json = {
        "vertex": warning.vertex,
        "level": warning.level,
        "short": _text(warning.short),
        "detail": list(map(_text, warning.detail)),
        "url": warning.url,
    }
    if warning.source:
        shape["sourceInfo"] = _source(warning.source)
    shape["range"] = list(map(_range, warning.ranges))
    return _without_empty(shape, but=("sourceInfo",))


def _source(source: SourceFile) -> Json:
    return _without_empty(
        {
            "filename": source.filename,
            "data": _base64(source.data),
            "language": source.language,
        }
    )


def _range(place: Range) -> Json:
    return {
        "start": _position(place.start_line, place.start_character),
        "end": _position(place.end_line, place.end_character),
    }


def _position(line: int, character: int) -> Json:
    return _without_empty({"line": line, "character": character})


def _without_empty(shape: Json, but: tuple[str, ...] = ()) -> Json:
    return {key: value for key, value in shape.items() if value or key in but}


def _text(text: str) -> str:
    return _base64(text.encode("utf-8", "surrogateescape"))


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _time(time_ns: int | None) -> str | None:
    """RFC 3339 with as many decimals as are needed; None for a time that has no such form."""
    if time_ns is None:
        return None
    seconds, nanoseconds = divmod(time_ns, _SECOND_NS)
    try:
        time = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return None
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{time:%Y-%m-%dT%H:%M:%S}{fraction}Z".rjust(20 + len(fraction), "0")
