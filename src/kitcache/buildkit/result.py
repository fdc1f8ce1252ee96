"""What a build comes to: BuildResult."""

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from kitcache.buildkit.publish import CacheResult
from kitcache.buildkit.status import BuildWarning
from kitcache.oci.digest import parse_digest

_DIGEST = "containerimage.digest"
_CONFIG_DIGEST = "containerimage.config.digest"
_BASE64_JSON = ("containerimage.descriptor",)


class BuildResult(NamedTuple):
    """A build that succeeded.

    ref: its name in the daemon's history. digest: of the image, None where none was made.
    image_id: what the engine that has the image calls it, as `docker run` takes it.
    metadata: what the exporters and the frontend answered, values decoded where they are JSON.
    caches: what became of each local cache export. warnings: findings of the frontend. notices:
    what seemed wrong with the request, or a cache that could not be imported; a sentence each.
    logins: registry hosts that the daemon asked for, and whose login it got.
    provenance: SLSA predicates by platform, where they were asked for.
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
        """0, or the worst of the caches': 12 where a tag of ours has a hole."""
        return max((cache.exit_code for cache in self.caches), default=0)


def find_image_id(response: Mapping[str, str], *, is_in_containerd: bool) -> str | None:
    """Return what docker calls the image.

    The containerd image store names an image by its manifest or index, docker's older store by its
    config. Source: buildx, build/opt.go and commands/build.go (prefer-image-digest, getImageID).
    """
    digest = known_digest(response.get(_DIGEST))
    config = known_digest(response.get(_CONFIG_DIGEST))
    return (is_in_containerd and digest) or config or digest


def known_digest(text: str | None) -> str | None:
    """A digest as a daemon told it; None where it is none."""
    try:
        return str(parse_digest(text))
    except ValueError:
        return None


def decode_response(response: Mapping[str, str]) -> dict[str, Any]:
    """The exporters' answer as `docker buildx build --metadata-file` has it, sorted by key."""
    return {key: _decode(key, response[key]) for key in sorted(response)}


def _decode(key: str, value: str) -> Any:
    if key in _BASE64_JSON:
        try:
            return json.loads(base64.b64decode(value, validate=True))
        except (ValueError, RecursionError):
            return value
    if key == "cache.manifest":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
