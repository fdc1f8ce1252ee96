"""What a fake daemon says: of itself, of a step, and as a cache that it has made."""

import json
from collections.abc import Mapping

from kitcache.buildkit.proto import control_pb2
from tests.hostile.build import CACHECONFIG, LAYER, MANIFEST, digest_of

EXECUTOR = "org.mobyproject.buildkit.worker.executor"


def info(version: str = "v0.99.0") -> bytes:
    """An answer to Info."""
    found = control_pb2.BuildkitVersion(version=version, package="fake", revision="0")
    return bytes(control_pb2.InfoResponse(buildkit_version=found).SerializeToString())


def workers(labels: Mapping[str, str] | None = None) -> bytes:
    """An answer to ListWorkers: one, which can export local caches."""
    record = control_pb2.WorkerRecord(
        id="fake",
        labels={EXECUTOR: "oci"} if labels is None else labels,
        platforms=[control_pb2.Platform(os="linux", architecture="amd64")],
    )
    return bytes(control_pb2.ListWorkersResponse(record=[record]).SerializeToString())


def vertex(digest: str, name: str, error: str = "") -> control_pb2.StatusResponse:
    """News of a step that has started, or failed."""
    step = control_pb2.Vertex(digest=digest, name=name, error=error)
    step.started.GetCurrentTime()
    if error:
        step.completed.GetCurrentTime()
    return control_pb2.StatusResponse(vertexes=[step])


def make_cache(*layers: bytes) -> tuple[bytes, bytes]:
    """Manifest and cacheconfig of a cache of these layers."""
    listed = [{"blob": digest_of(layer), "parent": -1} for layer in layers]
    config = json.dumps({"layers": listed, "records": []}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(CACHECONFIG, config),
        "layers": [_descriptor(LAYER, layer) for layer in layers],
    }
    return json.dumps(manifest).encode(), config


def _descriptor(media_type: str, data: bytes) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
