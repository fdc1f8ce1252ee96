"""The result of a build: BuildResult."""

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from kitcache.buildkit.publish import CacheResult
from kitcache.buildkit.status import BuildWarning
from kitcache.oci.digest import parse_digest

_DIGEST = "containerimage.digest"
_CONFIG_DIGEST = "containerimage.config.digest"
_DESCRIPTOR = "containerimage.descriptor"


class BuildResult(NamedTuple):
    """A build that succeeded.

    Attributes:
        ref: The build's name in the daemon's history.
        digest: The image's digest; None without an image.
        metadata: The response of exporters and frontend; JSON values are decoded.
        caches: The result of each local cache export, and of each export to an object store that
            was swept.
        warnings: Findings of the frontend.
        notices: A sentence for each probable mistake in the request, and for each cache that
            could not be imported.
        logins: Registry hosts whose login the daemon requested and got.
        provenance: SLSA predicates by platform, if they were requested.
        image_id: The engine's name of the image, as `docker run` takes it.
    """

    ref: str
    digest: str | None
    metadata: Mapping[str, Any]
    caches: tuple[CacheResult, ...] = ()
    warnings: tuple[BuildWarning, ...] = ()
    notices: tuple[str, ...] = ()
    logins: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = {}
    image_id: str | None = None

    @property
    def exit_code(self) -> int:
        """0, or the highest exit code of a cache, such as 12 for a tag with a missing blob."""
        return max((cache.exit_code for cache in self.caches), default=0)


def find_image_id(response: Mapping[str, str], *, is_in_containerd: bool) -> str | None:
    """Return docker's name of the image.

    The containerd image store names an image by its manifest or index, docker's older store by its
    config. Source: buildx, build/opt.go and commands/build.go (prefer-image-digest, getImageID).
    """
    digest = known_digest(response.get(_DIGEST))
    config = known_digest(response.get(_CONFIG_DIGEST))
    return (is_in_containerd and digest) or config or digest


def known_digest(text: str | None) -> str | None:
    """Return a digest that a daemon reported; None if it is invalid."""
    try:
        return str(parse_digest(text))
    except ValueError:
        return None


def decode_response(response: Mapping[str, str]) -> dict[str, Any]:
    """Return the exporters' response as in buildx's metadata file, sorted by key."""
    return {key: _decode(key, response[key]) for key in sorted(response)}


def _decode(key: str, value: str) -> Any:
    try:
        if key == _DESCRIPTOR:
            return json.loads(base64.b64decode(value, validate=True))
        return json.loads(value) if key == "cache.manifest" else value
    except (ValueError, RecursionError):
        return value
