"""Builds of dockerd 26.1 that `docker buildx build --progress=rawjson` wrote down.

build: two stages at once, one of which sleeps for six seconds, logs in pieces, an export. failed: a
RUN that ends with 3.
"""

import json
from base64 import b64decode
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.status import BuildUpdate, read_update

RECORDED = Path(__file__).parent / "recorded"

Json = dict[str, Any]


def read_recording(name: str) -> list[tuple[Json, bytes]]:
    """Each update as buildx printed it, and as the daemon sent it."""
    lines = (RECORDED / f"{name}.jsonl").read_text().splitlines()
    return [(json.loads(line), encode(json.loads(line))) for line in lines]


def read_updates(name: str) -> list[BuildUpdate]:
    return [read_update(message) for _, message in read_recording(name)]


def latest_s(update: BuildUpdate) -> float:
    """The latest time that an update names, in seconds; 0 where it names none."""
    times = [t for v in update.vertexes for t in (v.started_ns, v.completed_ns) if t is not None]
    times += [part.timestamp_ns or 0 for part in (*update.transfers, *update.logs)]
    return max(times, default=0) / 1e9


def encode(shape: Json) -> bytes:
    response = control_pb2.StatusResponse()
    for vertex in shape.get("vertexes", ()):
        response.vertexes.add(
            digest=vertex["digest"],
            inputs=vertex.get("inputs", ()),
            name=vertex["name"],
            cached=vertex.get("cached", False),
            error=vertex.get("error", ""),
            **times(vertex, "started", "completed"),
        )
    for status in shape.get("statuses", ()):
        response.statuses.add(
            id=status["id"],
            vertex=status["vertex"],
            name=status.get("name", ""),
            current=status["current"],
            total=status.get("total", 0),
            **times(status, "timestamp", "started", "completed"),
        )
    for log in shape.get("logs", ()):
        response.logs.add(
            vertex=log["vertex"],
            stream=log["stream"],
            msg=b64decode(log["data"]),
            **times(log, "timestamp"),
        )
    return response.SerializeToString()


def times(shape: Json, *names: str) -> dict[str, Timestamp]:
    return {name: timestamp(shape[name]) for name in names if name in shape}


def timestamp(text: str) -> Timestamp:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return Timestamp(seconds=seconds, nanos=int(fraction.ljust(9, "0")))
