"""docker compose: resolved by `compose config`; the command then builds from the resolved project.

Compose appends lists when it merges files, so the exports are replaced in the resolved project.
Its name, its directory and the profiles are kept. Relative cache paths are relative to the working
directory, as in compose.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from threading import Event
from typing import Any

from kitcache.wrap import flagtables
from kitcache.wrap.argv import (
    FILE_PLACEHOLDER,
    ClientFailed,
    Job,
    Recognized,
    Rewritten,
    unchanged_job,
)
from kitcache.wrap.cacheflags import drop_reset
from kitcache.wrap.flags import NotUnderstood, Option, is_flag_set, option_values, read_line
from kitcache.wrap.query import (
    Exports,
    Fields,
    Output,
    entries_of,
    is_remote,
    make_job,
    read_answer,
    run_query,
)

_TABLES = {
    "build": flagtables.COMPOSE_BUILD,
    "up": flagtables.COMPOSE_UP,
    "create": flagtables.COMPOSE_UP,
    "run": flagtables.COMPOSE_RUN,
}
_BUILDS_NOTHING = ("help", "h", "check", "no-build", "print", "dry-run")
_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_REPLACED = ("f", "file", "project-directory")
_FIELDS = Fields("cache_to", "cache_from", "additional_contexts")
_UNRESOLVED = "--no-interpolate"
# `config` checks all services, a build only the services it needs. So retry with fewer checks.
_CONFIG_OPTIONS = (
    (),
    ("--no-consistency",),
    ("--no-consistency", "--no-env-resolution"),
    ("--no-consistency", _UNRESOLVED),
)

Project = dict[str, Any]


def compose_job(
    command: Recognized,
    environ: Mapping[str, str],
    read_stdin: Callable[[], bytes | None],
    cancel: Event | None = None,
) -> Job:
    """Return the job of a compose command, with every service that it may build.

    Compose fetches a remote project.

    Raises:
        NotUnderstood, ClientFailed, Cancelled: As recognize and run_query.
    """
    argv, start = command.argv, command.at
    line = read_line(argv, start, flagtables.COMPOSE, stops_at_argument=True)
    verb = argv[line.end]
    is_run = verb == "run"  # The words after the service are the container's command.
    below = read_line(argv, line.end + 1, _TABLES[verb], stops_at_argument=is_run)
    if is_flag_set((*line.options, *below.options), _BUILDS_NOTHING):
        return unchanged_job(argv)
    files = option_values(line.options, "f", "file") or _environ_files(environ)
    stdin = read_stdin() if "-" in files else None

    def query(*words: str) -> Output:
        return run_query(words, environ, stdin, cancel)

    client = argv[: line.end]
    active = query(*client, "config", "--services").stdout.decode(errors="replace").split()
    named = argv[below.end : below.end + 1] if is_run else [argv[n] for n in below.positionals]
    # With all services: `up` may remove the containers of a service that is not in the project.
    clients = [(*client, "--profile", "*")]
    if verb == "build" and set(named) <= set(active):
        clients.append(client)
    project, stderr = _resolve(clients, query)
    # True if the command also builds the services that these services depend on.
    is_deep = (
        is_flag_set(below.options, ("with-dependencies",))
        if verb == "build"
        else not is_flag_set(below.options, ("no-deps",))
    )
    built = _built_services(project, named or active, is_deep=is_deep)
    added = _added_options(project, active, line.options, _directory(line.options, files))
    replaced = {n for option in line.options if option.name in _REPLACED for n in option.positions}

    def replace(exports: Exports) -> Rewritten:
        services = {
            name: _with_exports(service, exports.get(name))
            for name, service in project["services"].items()
        }
        rest = [word for n, word in enumerate(argv) if n >= start and n not in replaced]
        document = json.dumps(_escape({**project, "services": services})).encode()
        words = (*argv[:start], *added, "--file", FILE_PLACEHOLDER, *rest)
        return Rewritten(words, None, document, stderr)

    return make_job(
        argv,
        {name: _build_of(project["services"][name]) for name in built},
        _FIELDS,
        replace,
        stdin=stdin,
        builds_all=verb == "build",
    )


def _resolve(
    clients: Sequence[tuple[str, ...]], query: Callable[..., Output]
) -> tuple[Project, bytes]:
    """Return the project, resolved as far as possible, and compose's warnings.

    Args:
        clients: Compose with its own options, the preferred ones first.

    Raises:
        ClientFailed, NotUnderstood: Compose may accept the command but does not print the project.
    """
    failure = None
    for client, options in product(clients, _CONFIG_OPTIONS):
        words = (*client, "config", "--format", "json", *options)
        try:
            output = query(*words)
        except ClientFailed as error:
            if error.exit_code > 128:  # After a signal, fewer checks do not help.
                raise
            if b"unknown flag" not in error.stderr:
                failure = error
            continue
        if _UNRESOLVED not in options:
            # Compose escapes all of its output, also keys, but it does not unescape keys.
            return read_answer(words, output.stdout.replace(b"$$", b"$")), output.stderr
        if b"$" not in output.stdout:
            return read_answer(words, output.stdout), output.stderr
    raise failure or NotUnderstood(
        "compose does not print the complete project",
        hints=("provide what is missing: an env file may be empty",),
    )


def _escape(value: Any) -> Any:
    """Escape for compose, which expands variables in texts, not in keys."""
    if isinstance(value, dict):
        return {key: _escape(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_escape(below) for below in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _build_of(service: Mapping[str, Any]) -> dict[str, Any]:
    build = service.get("build")
    return build if isinstance(build, dict) else {}


def _with_exports(service: Mapping[str, Any], exports: list[str] | None) -> Mapping[str, Any]:
    """Replace the exports of a service; with None, only remove `reset` from them.

    No client supports `reset`, so it is also removed from services that are not expected to build.
    """
    build = _build_of(service)
    if not build.get("cache_to"):
        return service
    if exports is None:
        exports = [drop_reset(text) for text in entries_of(build["cache_to"])]
    return {**service, "build": {**build, "cache_to": exports}}


def _built_services(project: Project, wanted: Sequence[str], *, is_deep: bool) -> tuple[str, ...]:
    """Return which of these services, and of those they need, are built.

    Args:
        is_deep: Include the services that they depend on.
    """
    services = project.get("services") or {}
    pending = list(wanted)
    done: dict[str, None] = {}
    while pending:
        name = pending.pop(0)
        if name in done or name not in services:
            continue
        done[name] = None
        contexts = _build_of(services[name]).get("additional_contexts") or {}
        pending += [text.removeprefix("service:") for text in map(str, contexts.values())
                    if text.startswith("service:")]  # fmt: skip
        if is_deep:
            pending += services[name].get("depends_on") or ()
    return tuple(name for name in done if _build_of(services[name]))


def _added_options(
    project: Project, active: Sequence[str], options: Sequence[Option], directory: str
) -> tuple[str, ...]:
    """Return options for the project's directory, name and profiles, which are not in the file.

    The .env files that compose reads depend on the file's directory and on compose's version.
    """
    added = ["--project-directory", directory]
    if "name" in project and not option_values(options, "p", "project-name"):
        added += ["--project-name", str(project["name"])]
    profiles = option_values(options, "profile")
    if "*" not in profiles:
        for profile in _profiles(project, active):
            added += [] if profile in profiles else ["--profile", profile]
    return tuple(added)


def _profiles(project: Project, active: Sequence[str]) -> Iterable[str]:
    """Return the profiles that make these services active, and no others."""
    wanted: dict[str, None] = {}
    unwanted: set[str] = set()
    for name, service in (project.get("services") or {}).items():
        profiles = service.get("profiles") or ()
        if name in active:
            wanted |= dict.fromkeys(profiles)
        else:
            unwanted |= set(profiles)
    return [profile for profile in wanted if profile not in unwanted]


def _environ_files(environ: Mapping[str, str]) -> list[str]:
    separator = environ.get("COMPOSE_PATH_SEPARATOR", os.pathsep)
    return [name for name in environ.get("COMPOSE_FILE", "").split(separator) if name]


def _directory(options: Sequence[Option], files: Sequence[str]) -> str:
    """Return the project's directory: the option, else that of the first file or of compose's."""
    if named := next(reversed(option_values(options, "project-directory")), ""):
        return named
    if files:
        is_elsewhere = files[0] == "-" or is_remote(files[0])
        return os.curdir if is_elsewhere else os.path.dirname(files[0]) or os.curdir
    cwd = os.getcwd()
    while not any(os.path.exists(os.path.join(cwd, name)) for name in _FILES):
        if cwd == os.path.dirname(cwd):
            return os.curdir
        cwd = os.path.dirname(cwd)
    return cwd
