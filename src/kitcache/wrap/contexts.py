"""The local contexts of a command, and warnings about caches inside them.

A cache inside a context is sent to the daemon, and each export changes the context.
Source: BuildKit frontend/dockerui (which .dockerignore applies), buildx bake/bake.go (toBuildOpt).
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kitcache.wrap.flags import ParsedArgs, option_values

_LIMIT_BYTES = 64 * 1024
_CWD = "cwd://"
# Names in a cache: a pattern may exclude the directory, or only its content.
_PARTS = ("index.json", "blobs", ".kitcache")


class Context(NamedTuple):
    """A directory that a build sends.

    Attributes:
        dockerfile: The file whose own .dockerignore has precedence, or "".
    """

    directory: str
    dockerfile: str = ""

    @property
    def ignore_file(self) -> str:
        """The .dockerignore file that applies, whether it exists or not."""
        own = f"{self.dockerfile}.dockerignore"
        has_own = self.dockerfile and os.path.exists(own)
        usual = os.path.join(self.directory, ".dockerignore")
        return os.path.normpath(own if has_own else usual)


def contexts_of_build(words: Sequence[str], line: ParsedArgs) -> tuple[Context, ...]:
    """Return the contexts of docker build and its aliases."""
    path = words[line.positionals[-1]] if line.positionals else ""
    (*_, file) = ["", *option_values(line.options, "f", "file")]
    named = option_values(line.options, "build-context")
    return (
        *_local(path, file or os.path.join(path, "Dockerfile")),
        *(context for text in named for context in _local(text.partition("=")[2])),
    )


def contexts_of_buildctl(line: ParsedArgs) -> tuple[Context, ...]:
    """Return the contexts of buildctl build."""
    paths, options = (
        {key: value for key, _, value in (text.partition("=") for text in texts)}
        for texts in (option_values(line.options, "local"), option_values(line.options, "opt"))
    )
    file = os.path.join(paths.pop("dockerfile", ""), options.get("filename", "Dockerfile"))
    return tuple(
        context
        for name, path in paths.items()
        for context in _local(path, file if name == "context" else "")
    )


def contexts_of_definition(
    build: Mapping[str, Any], field: str, *, is_remote: bool = False
) -> tuple[Context, ...]:
    """Return the contexts of a bake target or a service's build.

    Args:
        field: The field with named contexts.
        is_remote: The definition was fetched. Its paths are remote unless they begin with cwd://.
    """
    main = str(build.get("context") or ".")
    named = build.get(field)
    paths = [main, *map(str, named.values())] if isinstance(named, dict) else [main]
    file = os.path.join(main.removeprefix(_CWD), str(build.get("dockerfile") or "Dockerfile"))
    return tuple(
        context
        for n, path in enumerate(paths)
        if path.startswith(_CWD) or not is_remote
        for context in _local(path.removeprefix(_CWD), "" if n else file)
    )


def _local(path: str, dockerfile: str = "") -> tuple[Context, ...]:
    """Return the context as a tuple; () if it is fetched or read from stdin."""
    return (Context(path, dockerfile),) if os.path.isdir(path) else ()


def warn_of_caches(contexts: Iterable[Context], dests: Iterable[str]) -> Iterator[str]:
    """Yield a warning for each cache that is exported to and is inside a context."""
    pairs = [(context, dest) for context in dict.fromkeys(contexts) for dest in dests]
    for context, dest in pairs:
        root, cache = os.path.realpath(context.directory), os.path.realpath(dest)
        if os.path.commonpath((root, cache)) != root:
            continue
        path = os.path.relpath(cache, root)
        if not _is_excluded(context.ignore_file, path):
            line = "" if path == "." else f"add the line '{path}' to {context.ignore_file}, or "
            yield (
                f"{dest}: the cache is sent with the context {context.directory}, so each export"
                f" changes the context: {line}move the cache elsewhere"
            )


def _is_excluded(ignore_file: str, path: str) -> bool:
    """Return True if a .dockerignore excludes a cache, or cannot be evaluated."""
    text = _read(ignore_file)
    if not text:
        return text is None
    from kitcache.options.globs import BadPattern  # noqa: PLC0415 - rarely needed
    from kitcache.options.ignore import Matcher, parse_ignore_file  # noqa: PLC0415

    try:
        matcher = Matcher(parse_ignore_file(text))
    except BadPattern:
        return True
    return all(matcher.takes(os.path.normpath(os.path.join(path, part))) for part in _PARTS)


def _read(path: str) -> str | None:
    """Return the text of a file; "" if it is missing; None if it is not regular or too long."""
    if not os.path.exists(path):
        return ""
    from kitcache.store.userfiles import read_regular  # noqa: PLC0415 - rarely needed

    try:
        return read_regular(path, _LIMIT_BYTES).decode(errors="replace")
    except OSError:
        return None
