"""BuildRequest: everything that a build is asked for, as one value."""

from typing import NamedTuple

from kitcache.options.attributes import Pairs
from kitcache.options.caches import CacheExport, CacheImport
from kitcache.options.outputs import Output
from kitcache.options.secrets import Secret


class BuildRequest(NamedTuple):
    """A build, with the names and meanings of `docker buildx build`.

    Attributes:
        context: A directory, a URL that the daemon fetches, or "-": a tar or a Dockerfile on stdin.
        dockerfile: Path as the user wrote it, "-" for stdin, None for Dockerfile in the context.
        add_hosts: "name:ip".
        network: default, none, host, sandbox.
        attests: A kind and its attributes, such as ("provenance", "mode=max").
        allow: Entitlements, such as "network.host".
        shm_size: Bytes of /dev/shm; 0 for the daemon's default.
        ulimits: "nofile=1024:2048".
        warnings: A sentence for each probable mistake; caches and outputs have their own.
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
