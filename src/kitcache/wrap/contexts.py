"""The local contexts of a command, and which caches lie in them.

Such a cache is sent to the daemon with the context, and each export changes it.
Source: BuildKit frontend/dockerui (which .dockerignore counts), buildx bake/bake.go (toBuildOpt).
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kitcache.wrap.flags import Option, ParsedArgs

_LIMIT_BYTES = 64 * 1024
_HERE = "cwd://"
# What stands for a cache: a pattern may leave out a directory, or what is in it.
_PARTS = ("index.json", "blobs", ".kitcache")


class Context(NamedTuple):
    """A directory that a build sends. dockerfile: the file whose own .dockerignore wins, or ""."""

    directory: str
    dockerfile: str = ""

    @property
    def ignore_file(self) -> str:
        """The file that says what is left out, whether it is there or not."""
        own = f"{self.dockerfile}.dockerignore"
        has_own = self.dockerfile and os.path.exists(own)
        usual = os.path.join(self.directory, ".dockerignore")
        return os.path.normpath(own if has_own else usual)


def contexts_of_build(words: Sequence[str], line: ParsedArgs) -> tuple[Context, ...]:
    """Those of docker build and its like."""
    given = line.positionals[-1:]
    path = words[given[0]] if given else ""
    (*_, file) = ["", *_values(line.options, "f", "file")]
    named = _values(line.options, "build-context")
    return (
        *_local(path, file or os.path.join(path, "Dockerfile")),
        *(context for text in named for context in _local(text.partition("=")[2])),
    )


def contexts_of_buildctl(line: ParsedArgs) -> tuple[Context, ...]:
    """Those of buildctl build."""
    paths = dict(_pair(text) for text in _values(line.options, "local"))
    options = dict(_pair(text) for text in _values(line.options, "opt"))
    file = os.path.join(paths.pop("dockerfile", ""), options.get("filename", "Dockerfile"))
    return tuple(
        context
        for name, path in paths.items()
        for context in _local(path, file if name == "context" else "")
    )


def contexts_of_definition(
    build: Mapping[str, Any], named: str, *, is_remote: bool = False
) -> tuple[Context, ...]:
    """Those of a target of bake, or of a service's build. named: the field of further contexts.

    is_remote: the definition was fetched; a path in it is one there, unless it begins with cwd://.
    """
    main = str(build.get("context") or ".")
    others = build.get(named)
    paths = [main, *map(str, others.values())] if isinstance(others, dict) else [main]
    here = main.removeprefix(_HERE)
    file = os.path.join(here, str(build.get("dockerfile") or "Dockerfile"))
    return tuple(
        context
        for n, path in enumerate(paths)
        if path.startswith(_HERE) or not is_remote
        for context in _local(path.removeprefix(_HERE), "" if n else file)
    )


def _local(path: str, dockerfile: str = "") -> tuple[Context, ...]:
    """None for what is fetched, or comes from stdin."""
    return (Context(path, dockerfile),) if os.path.isdir(path) else ()


def _values(options: Iterable[Option], *names: str) -> list[str]:
    return [option.value or "" for option in options if option.name in names]


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def warn_of_caches(contexts: Iterable[Context], dests: Iterable[str]) -> Iterator[str]:
    """A sentence for each directory that is exported to and sent with a context."""
    places = [(context, dest) for context in dict.fromkeys(contexts) for dest in dests]
    for context, dest in places:
        path = _path_in(context, dest)
        if path is not None and not _leaves_out(context.ignore_file, path):
            line = "" if path == "." else f"add the line '{path}' to {context.ignore_file}, or "
            yield (
                f"{dest}: it is sent with the context {context.directory}, so that each export"
                f" changes what is built from: {line}keep the cache elsewhere"
            )


def _path_in(context: Context, dest: str) -> str | None:
    """The real path of a directory below a context, None where it is not in it."""
    root, cache = os.path.realpath(context.directory), os.path.realpath(dest)
    return os.path.relpath(cache, root) if os.path.commonpath((root, cache)) == root else None


def _leaves_out(ignore_file: str, path: str) -> bool:
    """Whether a .dockerignore leaves out a cache; also where it is none that can be judged."""
    text = _read(ignore_file)
    if not text:
        return text is None
    from kitcache.options.globs import BadPattern  # noqa: PLC0415 - seldom needed
    from kitcache.options.ignore import Matcher, parse_ignore_file  # noqa: PLC0415

    try:
        matcher = Matcher(parse_ignore_file(text))
    except BadPattern:
        return True
    return all(matcher.takes(os.path.normpath(os.path.join(path, part))) for part in _PARTS)


def _read(path: str) -> str | None:
    """The text of a file, "" where there is none, None where it is no file of usual size."""
    if not os.path.exists(path):
        return ""
    from kitcache.store.userfiles import read_regular  # noqa: PLC0415 - seldom needed

    try:
        return read_regular(path, _LIMIT_BYTES).decode(errors="replace")
    except OSError:
        return None
