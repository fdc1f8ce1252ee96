"""docker compose: what is resolved is what `config` prints, and that is what is then built from.

Compose appends lists when it merges files, so the exports are replaced in the whole resolved
project. Its name, its directory and the profiles stay; relative cache paths are the working
directory's, as in compose.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kitcache.errors import UsageError
from kitcache.wrap import tables
from kitcache.wrap.argv import PLACE_OF_FILE, DirectJob, Job, Recognized, Rewritten
from kitcache.wrap.flags import Line, Table, read_line
from kitcache.wrap.resolving import ask, entries_of, is_remote, read_dotenv

_TABLES = {
    "build": tables.COMPOSE_BUILD,
    "up": tables.COMPOSE_UP,
    "create": tables.COMPOSE_UP,
    "run": tables.COMPOSE_RUN,
}
_BUILDS_NOTHING = ("help", "h", "no-build", "print", "dry-run")
_NO = ("false", "0")
_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")


class ComposeJob(NamedTuple):
    """services: name and exports of each that may be built, in the order of `exports`.

    project: the resolved one. start: of compose's own options; dropped: the words that name files
    and directory; directory: the project's.
    """

    argv: tuple[str, ...]
    start: int
    project: dict[str, Any]
    services: tuple[tuple[str, tuple[str, ...]], ...]
    imports: tuple[str, ...]
    dropped: frozenset[int]
    directory: str

    @property
    def exports(self) -> tuple[str, ...]:
        """All exports of all services."""
        return tuple(text for _, texts in self.services for text in texts)

    @property
    def solves(self) -> tuple[int, ...]:
        """Each service is a build."""
        return tuple(n for n, (_, texts) in enumerate(self.services) for _ in texts)

    def rewrite(self, exports: Sequence[str]) -> Rewritten:
        """The command, on the resolved project where anything changed."""
        if tuple(exports) == self.exports:
            return Rewritten(self.argv)
        rest = iter(exports)
        services = dict(self.project["services"])
        for name, texts in self.services:
            build = {**services[name]["build"], "cache_to": [next(rest) for _ in texts]}
            services[name] = {**services[name], "build": build}
        ours = ("--project-directory", self.directory, "--file", PLACE_OF_FILE)
        words = self.argv
        kept = [words[n] for n in range(self.start, len(words)) if n not in self.dropped]
        document = json.dumps({**self.project, "services": services}).encode()
        return Rewritten((*words[: self.start], *ours, *kept), None, document)


def compose_job(
    found: Recognized, environ: Mapping[str, str], read_stdin: Callable[[], bytes]
) -> Job:
    """The caches of what a compose command may build.

    Raises UsageError for a remote project, Refused where compose itself refuses, KitcacheError.
    """
    words, start = found.argv, found.at
    line = read_line(words, start, tables.COMPOSE, stops_at_argument=True)
    verb = words[line.end]
    below = _read_verb(words, line.end + 1, _TABLES[verb], is_run=verb == "run")
    given = (*line.options, *below.options)
    if any(o.name in _BUILDS_NOTHING and o.value not in _NO for o in given):
        return DirectJob(words, (), ())
    files = [o.value or "" for o in line.options if o.name in ("f", "file")]
    remote = next(filter(is_remote, files), None)
    if remote is not None:
        raise UsageError(
            f"the project {remote} is remote: what it says when compose fetches it cannot be known"
            " before",
            next_steps=("fetch it, and name the file with --file",),
        )
    where = _Where(line, files, environ)
    globals_ = words[start : line.end]
    asked = (*words[:start], *globals_, "--profile", "*", "config", "--format", "json")
    project = ask(asked, environ, read_stdin() if "-" in files else None)
    named = [words[n] for n in below.positionals]
    built = _built(project, named[:1] if verb == "run" else named, where.profiles())
    builds = [(name, project["services"][name]["build"]) for name in built]
    return ComposeJob(
        words,
        start,
        project,
        tuple((name, entries_of(build.get("cache_to"))) for name, build in builds),
        tuple(text for _, build in builds for text in entries_of(build.get("cache_from"))),
        frozenset(
            n
            for o in line.options
            if o.name in ("f", "file", "project-directory")
            for n in range(o.first, o.at + 1)
        ),
        where.directory(),
    )


def _read_verb(words: Sequence[str], start: int, table: Table, *, is_run: bool) -> Line:
    """The options of build, up or run; behind the service of run comes the container's command."""
    line = read_line(words, start, table, stops_at_argument=is_run)
    return line._replace(positionals=tuple(range(line.end, len(words)))) if is_run else line


def _built(project: dict[str, Any], named: Sequence[str], profiles: set[str]) -> tuple[str, ...]:
    """The services that may be built: those named and what they need, or those that are active."""
    services = project.get("services") or {}
    if named:
        todo = [name for name in named if name in services]
    else:
        todo = [name for name, service in services.items() if _is_active(service, profiles)]
    done: dict[str, None] = {}
    while todo:
        name = todo.pop(0)
        if name not in done and name in services:
            done[name] = None
            todo += services[name].get("depends_on") or ()
    return tuple(name for name in done if isinstance(services[name].get("build"), dict))


def _is_active(service: dict[str, Any], profiles: set[str]) -> bool:
    wanted = service.get("profiles") or ()
    return not wanted or "*" in profiles or bool(profiles & set(wanted))


class _Where:
    """Where the project is, and its profiles: what `config` does not print."""

    def __init__(self, line: Line, files: Sequence[str], environ: Mapping[str, str]) -> None:
        self._options = line.options
        self._files = files
        given = self._given("env-file")
        dotenv = given or [os.path.join(self._named_directory() or os.curdir, ".env")]
        found: dict[str, str] = {}
        for path in dotenv:
            found |= read_dotenv(path)
        self._environ = {**found, **environ}

    def _given(self, *names: str) -> list[str]:
        return [o.value or "" for o in self._options if o.name in names]

    def _named_directory(self) -> str:
        return next(reversed(self._given("project-directory")), "")

    def directory(self) -> str:
        """The project's directory: as named, the first file's, or where compose finds one."""
        if named := self._named_directory():
            return named
        separator = self._environ.get("COMPOSE_PATH_SEPARATOR", os.pathsep)
        listed = self._environ.get("COMPOSE_FILE", "").split(separator)
        first = next(iter([*self._files, *filter(None, listed)]), None)
        if first is not None:
            return os.curdir if first == "-" else os.path.dirname(first) or os.curdir
        here = os.getcwd()
        while not any(os.path.exists(os.path.join(here, name)) for name in _FILES):
            if here == os.path.dirname(here):
                return os.curdir
            here = os.path.dirname(here)
        return here

    def profiles(self) -> set[str]:
        """The profiles that are asked for."""
        told = self._environ.get("COMPOSE_PROFILES", "").split(",")
        return set(filter(None, [*self._given("profile"), *told]))
