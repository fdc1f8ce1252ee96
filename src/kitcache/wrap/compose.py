"""docker compose: what is resolved is what `config` prints, and that is what is then built from.

Compose appends lists when it merges files, so the exports are replaced in the whole resolved
project. Its name, its directory and the profiles stay; relative cache paths are the working
directory's, as in compose.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from threading import Event
from typing import Any, NamedTuple

from kitcache.wrap import flagtables
from kitcache.wrap.argv import FILE_PLACEHOLDER, ClientFailed, DirectJob, Job, Recognized, Rewritten
from kitcache.wrap.cacheflags import drop_reset
from kitcache.wrap.contexts import Context, contexts_of_definition
from kitcache.wrap.flags import FlagTable, NotUnderstood, Option, ParsedArgs, is_flag_set, read_line
from kitcache.wrap.query import Said, ask, entries_of, is_remote, read_answer

_TABLES = {
    "build": flagtables.COMPOSE_BUILD,
    "up": flagtables.COMPOSE_UP,
    "create": flagtables.COMPOSE_UP,
    "run": flagtables.COMPOSE_RUN,
}
_BUILDS_NOTHING = ("help", "h", "check", "no-build", "print", "dry-run")
_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_REPLACED = ("f", "file", "project-directory")
_AS_WRITTEN = "--no-interpolate"
# `config` checks and fills in all services, a build only what it needs: ask for less and less.
_WAYS = (
    (),
    ("--no-consistency",),
    ("--no-consistency", "--no-env-resolution"),
    ("--no-consistency", _AS_WRITTEN),
)

Project = dict[str, Any]


class ComposeJob(NamedTuple):
    """services: name and exports of each that may be built, in the order of `exports`.

    builds_all: they are all built. project: the resolved one, without compose's escapes. start: of
    compose's own options; said: those to add to them; dropped: the words of those that go. stdin:
    what compose reads its file from. warned: what it says of the project as it was written.
    """

    argv: tuple[str, ...]
    start: int
    project: Project
    services: tuple[tuple[str, tuple[str, ...]], ...]
    imports: tuple[str, ...]
    said: tuple[str, ...]
    dropped: frozenset[int]
    builds_all: bool
    stdin: bytes | None
    warned: bytes = b""
    contexts: tuple[Context, ...] = ()

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
            return Rewritten(self.argv, self.stdin)
        rest = iter(exports)
        built = {name: [next(rest) for _ in texts] for name, texts in self.services}
        services = {}
        for name, service in self.project["services"].items():
            build = _build_of(service)
            if build.get("cache_to"):
                # No client's own reset, also where a service was wrongly thought not to be built.
                others = [drop_reset(text) for text in entries_of(build["cache_to"])]
                build = {**build, "cache_to": built.get(name, others)}
            services[name] = {**service, "build": build} if build else service
        words = self.argv
        kept = [words[n] for n in range(self.start, len(words)) if n not in self.dropped]
        document = json.dumps(_escape({**self.project, "services": services})).encode()
        argv = (*words[: self.start], *self.said, "--file", FILE_PLACEHOLDER, *kept)
        return Rewritten(argv, None, document, self.warned)


def compose_job(
    found: Recognized,
    environ: Mapping[str, str],
    read_stdin: Callable[[], bytes | None],
    cancel: Event | None = None,
) -> Job:
    """The caches of what a compose command may build.

    Compose fetches a remote project. Raises NotUnderstood, Cancelled, Refused where compose says
    nothing.
    """
    words, start = found.argv, found.at
    line = read_line(words, start, flagtables.COMPOSE, stops_at_argument=True)
    verb = words[line.end]
    below = _read_verb(words, line.end + 1, _TABLES[verb], is_run=verb == "run")
    if is_flag_set((*line.options, *below.options), _BUILDS_NOTHING):
        return DirectJob(words)
    files = _given(line.options, "f", "file") or _listed(environ)
    stdin = read_stdin() if "-" in files else None
    before = words[: line.end]
    printed = ask((*before, "config", "--services"), environ, stdin, cancel).printed
    active = printed.decode(errors="replace").split()
    named = [words[n] for n in below.positionals][: 1 if verb == "run" else None]
    # With all services: up may remove containers of one that is not in the project.
    whole = (*before, "--profile", "*")
    suffices = verb == "build" and set(named) <= set(active)
    clients = (whole, before) if suffices else (whole,)
    project, warned = _resolve(clients, lambda asked: ask(asked, environ, stdin, cancel))
    built = _built(project, named or active, deep=_goes_deep(verb, below.options))
    builds = [(name, _build_of(project["services"][name])) for name in built]
    return ComposeJob(
        words,
        start,
        project,
        tuple((name, entries_of(build.get("cache_to"))) for name, build in builds),
        tuple(text for _, build in builds for text in entries_of(build.get("cache_from"))),
        _say(project, active, line.options, _directory(line.options, files)),
        frozenset(n for o in line.options if o.name in _REPLACED for n in range(o.first, o.at + 1)),
        verb == "build",
        stdin,
        warned,
        tuple(
            context
            for _, build in builds
            for context in contexts_of_definition(build, "additional_contexts")
        ),
    )


def _read_verb(words: Sequence[str], start: int, table: FlagTable, *, is_run: bool) -> ParsedArgs:
    """The options of build, up or run; behind the service of run comes the container's command."""
    line = read_line(words, start, table, stops_at_argument=is_run)
    return line._replace(positionals=tuple(range(line.end, len(words)))) if is_run else line


def _goes_deep(verb: str, options: Sequence[Option]) -> bool:
    """Whether what the services depend on may be built too."""
    if verb == "build":
        return is_flag_set(options, ("with-dependencies",))
    return not is_flag_set(options, ("no-deps",))


def _given(options: Sequence[Option], *names: str) -> list[str]:
    return [o.value or "" for o in options if o.name in names]


def _resolve(
    clients: Sequence[tuple[str, ...]], answer: Callable[[Sequence[str]], Said]
) -> tuple[Project, bytes]:
    """The project, as far as compose fills it in, and what it warned of.

    clients: with their options, the best first. answer: of a command, as ask has it.
    Raises Refused, NotUnderstood: compose may take the command, but does not print what it means.
    """
    refusal = None
    for client, way in product(clients, _WAYS):
        asked = (*client, "config", "--format", "json", *way)
        try:
            printed, warned = answer(asked)
        except ClientFailed as error:
            if error.code > 128:  # a signal ended it: to ask for less is no help
                raise
            if b"unknown flag" not in error.said:
                refusal = error
            continue
        if _AS_WRITTEN not in way:
            # All that is printed was escaped, keys too, which compose does not read so.
            return read_answer(asked, printed.replace(b"$$", b"$")), warned
        if b"$" not in printed:
            return read_answer(asked, printed), warned
    raise refusal or NotUnderstood(
        "compose does not print the whole project",
        hints=("give it what is missing: an env file may be empty",),
    )


def _escape(value: Any) -> Any:
    """The same for compose to read: it fills in variables in texts, not in keys."""
    if isinstance(value, dict):
        return {key: _escape(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_escape(below) for below in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _build_of(service: Mapping[str, Any]) -> dict[str, Any]:
    """What a service says of its build; nothing where it has none."""
    build = service.get("build")
    return build if isinstance(build, dict) else {}


def _built(project: Project, wanted: Sequence[str], *, deep: bool) -> tuple[str, ...]:
    """Of these services, and what they are built from, those that are built.

    deep: with all that they depend on.
    """
    services = project.get("services") or {}
    todo = list(wanted)
    done: dict[str, None] = {}
    while todo:
        name = todo.pop(0)
        if name in done or name not in services:
            continue
        done[name] = None
        contexts = _build_of(services[name]).get("additional_contexts") or {}
        todo += [text.removeprefix("service:") for text in map(str, contexts.values())
                 if text.startswith("service:")]  # fmt: skip
        if deep:
            todo += services[name].get("depends_on") or ()
    return tuple(name for name in done if _build_of(services[name]))


def _say(
    project: Project, active: Sequence[str], options: Sequence[Option], directory: str
) -> tuple[str, ...]:
    """What the resolved project does not hold: its directory, and what the environment decided.

    Which .env files there are depends on where the project's file is, and on compose's version.
    """
    said = ["--project-directory", directory]
    if "name" in project and not _given(options, "p", "project-name"):
        said += ["--project-name", str(project["name"])]
    given = _given(options, "profile")
    if "*" not in given:
        for profile in _profiles(project, active):
            said += [] if profile in given else ["--profile", profile]
    return tuple(said)


def _profiles(project: Project, active: Sequence[str]) -> Iterable[str]:
    """Profiles that make these services active, and no others."""
    mine: dict[str, None] = {}
    others: set[str] = set()
    for name, service in (project.get("services") or {}).items():
        wanted = service.get("profiles") or ()
        if name in active:
            mine |= dict.fromkeys(wanted)
        else:
            others |= set(wanted)
    return [profile for profile in mine if profile not in others]


def _listed(environ: Mapping[str, str]) -> list[str]:
    """The project's files, as the environment names them."""
    separator = environ.get("COMPOSE_PATH_SEPARATOR", os.pathsep)
    return [name for name in environ.get("COMPOSE_FILE", "").split(separator) if name]


def _directory(options: Sequence[Option], files: Sequence[str]) -> str:
    """The project's directory: as named, the first file's, or where compose finds one."""
    if named := next(reversed(_given(options, "project-directory")), ""):
        return named
    if files:
        is_elsewhere = files[0] == "-" or is_remote(files[0])
        return os.curdir if is_elsewhere else os.path.dirname(files[0]) or os.curdir
    here = os.getcwd()
    while not any(os.path.exists(os.path.join(here, name)) for name in _FILES):
        if here == os.path.dirname(here):
            return os.curdir
        here = os.path.dirname(here)
    return here
