"""Progress as JSON, one line per update, as `docker buildx build --progress=rawjson` prints it.

The keys are those of BuildKit's client/graph.go and solver/pb.
"""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

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

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS = 10**9
_GO_ZERO_TIME = "0001-01-01T00:00:00Z"
# The keys of each object, in the order of Go: key=field if the names differ. Go omits empty values,
# except for keys with a `!`.
_KEYS: dict[type, str] = {
    BuildUpdate: "vertexes statuses=transfers logs warnings",
    Vertex: "digest inputs name started=started_ns completed=completed_ns cached error"
    " progressGroup!=group",
    ProgressGroup: "id name weak",
    Transfer: "id! vertex name total current! timestamp!=timestamp_ns started=started_ns"
    " completed=completed_ns",
    VertexLog: "vertex stream data! timestamp!=timestamp_ns",
    BuildWarning: "vertex level short detail url sourceInfo!=source range=ranges",
    SourceFile: "filename data language",
}


class RawJson:
    """A display for programs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def update(self, update: BuildUpdate) -> None:
        """Print the update."""
        self._stream.write(encode_update(update) + "\n")
        self._stream.flush()

    def tick(self) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def encode_update(update: BuildUpdate) -> str:
    """Return an update as one JSON object on one line of ASCII."""
    return json.dumps(_shape(update), separators=(",", ":"))


def _shape(value: Any) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    if isinstance(value, Range):
        start = {"line": value.start_line, "character": value.start_character}
        end = {"line": value.end_line, "character": value.end_character}
        return {"start": _without_empty(start), "end": _without_empty(end)}
    if isinstance(value, BuildWarning):
        short, *detail = (
            text.encode("utf-8", "surrogateescape") for text in (value.short, *value.detail)
        )
        value = value._replace(short=short, detail=tuple(detail))  # type: ignore[arg-type]
    if type(value) in _KEYS:
        return _shape_object(value)
    return list(map(_shape, value)) if isinstance(value, tuple) else value


def _shape_object(value: Any) -> dict[str, Any]:
    shape = {}
    for word in _KEYS[type(value)].split():
        key, _, field = word.partition("=")
        is_kept, key = key.endswith("!"), key.rstrip("!")
        item = getattr(value, field or key)
        if field.endswith("_ns"):
            item = _format_time(item) or (_GO_ZERO_TIME if is_kept else None)
        if item or (is_kept and item is not None):
            shape[key] = _shape(item)
    return shape


def _without_empty(shape: dict[str, int]) -> dict[str, int]:
    return {key: value for key, value in shape.items() if value}


def _format_time(time_ns: int | None) -> str | None:
    """Return a time in RFC 3339 with its decimals; None if it has no such form."""
    if time_ns is None:
        return None
    seconds, nanoseconds = divmod(time_ns, _SECOND_NS)
    try:
        time = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return None
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{time:%Y-%m-%dT%H:%M:%S}{fraction}Z".rjust(20 + len(fraction), "0")
