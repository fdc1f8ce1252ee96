"""BuildRequest: all that a build was asked for, as one value."""

from typing import NamedTuple

from kitcache.options.attributes import Pairs
from kitcache.options.caches import CacheExport, CacheImport
from kitcache.options.outputs import Output
from kitcache.options.secrets import Secret


class BuildRequest(NamedTuple):
    """All that a build was asked for, with the names and meanings of `docker buildx build`.

    context: a directory, a URL that the daemon fetches, or "-" (a tar or a Dockerfile on stdin).
    dockerfile: a path as the user wrote it, "-" for stdin, None for Dockerfile in the context.
    add_hosts: "name:ip". network: default, none, host, sandbox. attests: a kind and its attributes,
    such as ("provenance", "mode=max"). allow: entitlements. shm_size: bytes of /dev/shm, 0 for the
    daemon's own choice. ulimits: "nofile=1024:2048". warnings: what looked odd in how this was
    asked for, besides what the caches' own warnings say.
    """

    context: str = "."
    dockerfile: str | None = None
    target: str = ""
    build_args: Pairs = ()
    labels: Pairs = ()
    platforms: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    pull: bool = False
    build_contexts: Pairs = ()
    add_hosts: tuple[str, ...] = ()
    network: str = "default"
    secrets: tuple[Secret, ...] = ()
    tags: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    cache_to: tuple[CacheExport, ...] = ()
    cache_from: tuple[CacheImport, ...] = ()
    attests: Pairs = ()
    allow: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
