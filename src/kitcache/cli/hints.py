"""Options of the command line for the general advice of the library, in hints and in warnings."""

from kitcache.errors import KitcacheError, LimitNotReached, NotACache

OPTIONS = {
    "wait longer": "--lock-timeout 5m",
    "name a daemon": "--addr ADDRESS",
    "name another daemon": "--addr ADDRESS or --builder NAME",
    "name another builder": "--builder NAME",
    "state the name in the certificate": "--tlsservername NAME",
    "allow buildx.local.delete if that is meant": "--allow=buildx.local.delete",
    "give the cache a tag of its own": "--cache-to type=local,dest=DIR,tag=cache",
    "keep both, each by the name of its directory": "--rename '{dir}-{tag}'",
    "leave the minimum age out": "without --min-age, or with more",
    "let the tags of the target move": "--replace",
    "name the other tags to copy": "--tag GLOB",
    "copy such tags without their least recently used steps": "--trim",
    "no output was requested, so the result is only in the daemon's build cache": (
        "--load, --push or --output also writes it elsewhere"
    ),
    "another export was running in it; staged exports can run at the same time": (
        "run it without --in-place"
    ),
}
"""The options that follow an advice or a warning of the library, by its exact text."""

COMMANDS = {
    "list the tags": ("ls",),
    "confirm one run of reset on this cache": ("reset", "--yes"),
    "list the tags with full digests": ("ls", "--json"),
    "trim everything that the tags reach": (
        *("prune", "--trim", "--keep-tag", "*", "--max-used-space", "SIZE"),
    ),
}
"""The commands, on the directory of the error, that follow an advice."""

ALLOW_MORE = "allow that much"
_DAEMON_DIRECTORIES = ("/var/lib/docker/", "/var/lib/buildkit/")
_VOLUMES = "/var/lib/docker/volumes/"


def make_hints(error: KitcacheError) -> tuple[str, ...]:
    """Return the hints of an error, with the options and commands that follow them."""
    hints = [_complete(hint, error) for hint in error.hints]
    if _is_of_daemon(error):
        hints.insert(0, "docker buildx prune, if you mean the daemon's own cache")
    return tuple(hints)


def add_options(sentence: str) -> str:
    """Return a warning of the library, with the options that follow it."""
    return f"{sentence}: {OPTIONS[sentence]}" if sentence in OPTIONS else sentence


def name_options(origin: str) -> str:
    """Return the origin of a daemon's address, with options in place of find_daemon's arguments."""
    return origin.replace("the argument addr", "--addr").replace(
        "the argument builder", "--builder"
    )


def _complete(hint: str, error: KitcacheError) -> str:
    if hint in COMMANDS:
        from kitcache.store.ioerrors import command_line  # noqa: PLC0415 - few errors need it

        command, *words = COMMANDS[hint]
        return f"{hint}: {command_line(command, error.path, *words)}"
    if hint == ALLOW_MORE and isinstance(error, LimitNotReached):
        return f"{hint}: --max-used-space {error.needed_bytes}B"
    return add_options(hint)


def _is_of_daemon(error: KitcacheError) -> bool:
    """Return True if the path is in a daemon's own store: not a cache, or not readable."""
    path = f"{error.path}/"
    is_kind = type(error) in (NotACache, KitcacheError)
    return is_kind and path.startswith(_DAEMON_DIRECTORIES) and not path.startswith(_VOLUMES)
