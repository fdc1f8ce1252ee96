"""Hints of the command line: the library gives general advice, and this adds the options for it."""

from kitcache.errors import KitcacheError, LimitNotReached, NotACache

OPTIONS = {
    "wait longer": "--lock-timeout 5m",
    "name a daemon": "--addr ADDRESS",
    "name another daemon": "--addr ADDRESS or --builder NAME",
    "name another builder": "--builder NAME",
    "state the name in the certificate": "--tlsservername NAME",
}
"""The options that follow an advice of the library, by its exact text."""

ALLOW_MORE = "allow that much"
_DAEMON_DIRECTORIES = ("/var/lib/docker/", "/var/lib/buildkit/")
_VOLUMES = "/var/lib/docker/volumes/"


def make_hints(error: KitcacheError) -> tuple[str, ...]:
    """Return the hints of an error, with the options that follow them."""
    options = dict(OPTIONS)
    if isinstance(error, LimitNotReached):
        options[ALLOW_MORE] = f"--max-used-space {error.needed_bytes}B"
    hints = [f"{hint}: {options[hint]}" if hint in options else hint for hint in error.hints]
    if _is_of_daemon(error):
        hints.insert(0, "docker buildx prune, if you mean the daemon's own cache")
    return tuple(hints)


def _is_of_daemon(error: KitcacheError) -> bool:
    """Return True if the path is in a daemon's own store: not a cache, or not readable."""
    path = f"{error.path}/"
    is_kind = type(error) in (NotACache, KitcacheError)
    return is_kind and path.startswith(_DAEMON_DIRECTORIES) and not path.startswith(_VOLUMES)
