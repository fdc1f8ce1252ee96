"""Recognizes the build command of another client, and finds its cache options.

It recognizes docker build (and its aliases), buildx build and bake, docker compose, and buildctl
build. Each command becomes a Job.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kitcache.errors import UsageError
from kitcache.masking import hide_password
from kitcache.wrap import flagtables
from kitcache.wrap.contexts import Context, contexts_of_build, contexts_of_buildctl
from kitcache.wrap.flags import FlagTable, NotUnderstood, is_flag_set, option_values, read_line

UNDERSTOOD = (
    "docker build · docker buildx build|b|bake · docker image build · docker builder build",
    "docker compose build|up|run|create · docker-compose …",
    "buildx build|bake · docker-buildx … · buildctl build",
    "with the client's own options before and after these words",
)
_PLACE = "put kitcache exec -- right before the client's name, inside of scripts and make"
_BUILDS_NOTHING = ("help", "h", "check", "call", "print")


class Rewritten(NamedTuple):
    """A command to run in place of the user's.

    Attributes:
        stdin: Its input; None for the input of kitcache.
        file: A document that it reads. Its path replaces FILE_PLACEHOLDER in argv.
        stderr: The text that the user's command would have written to stderr.
    """

    argv: tuple[str, ...]
    stdin: bytes | None = None
    file: bytes | None = None
    stderr: bytes = b""


FILE_PLACEHOLDER = "{kitcache-exec-file}"
"""The word in Rewritten.argv that the path of its file replaces."""


class ClientFailed(Exception):
    """A client failed when kitcache queried the meaning of a command."""

    def __init__(self, exit_code: int, stderr: bytes) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code
        self.stderr = stderr

    @property
    def reason(self) -> str:
        """A clause that states why the command's caches are unknown."""
        *_, last = ["no reason", *self.stderr.decode(errors="replace").splitlines()]
        return f"the client did not report its exports ({hide_password(last.strip())})"


class Job(NamedTuple):
    """The caches of a build command, as its client reads them.

    Attributes:
        rewrite: Makes the command with other exports, in the same number and order.
        exports: Each value of --cache-to.
        solves: For each export, the number of its build.
        imports: Each value of --cache-from.
        contexts: The local directories that its builds send.
        builds_all: True if success of the command means that every export was made.
    """

    argv: tuple[str, ...]
    rewrite: Callable[[Sequence[str]], Rewritten]
    exports: tuple[str, ...] = ()
    solves: tuple[int, ...] = ()
    imports: tuple[str, ...] = ()
    contexts: tuple[Context, ...] = ()
    builds_all: bool = True


class Recognized(NamedTuple):
    """A recognized command.

    Attributes:
        kind: build, bake, compose or buildctl.
        at: The position of the command word, such as build; for compose, of its first option.
    """

    kind: str
    argv: tuple[str, ...]
    at: int


class _Client(NamedTuple):
    """A client's own options, its build commands by kind, and the plugins below it."""

    name: str
    table: FlagTable
    builds: Mapping[str, str]
    below: "Mapping[str, _Client]"


_BUILDX = _Client(
    "buildx", flagtables.BUILDX, {"build": "build", "b": "build", "bake": "bake", "f": "bake"}, {}
)
_COMPOSE = _Client(
    "compose", flagtables.COMPOSE, dict.fromkeys(("build", "up", "run", "create"), "compose"), {}
)
_BUILDCTL = _Client("buildctl", flagtables.BUILDCTL, {"build": "buildctl", "b": "buildctl"}, {})
_IMAGE = _Client("docker", flagtables.DOCKER, {"build": "build"}, {})
_DOCKER = _IMAGE._replace(
    below={"image": _IMAGE, "builder": _IMAGE, "buildx": _BUILDX, "compose": _COMPOSE}
)
_PROGRAMS = {
    "docker": _DOCKER,
    "buildx": _BUILDX,
    "docker-buildx": _BUILDX,
    "docker-compose": _COMPOSE,
    "buildctl": _BUILDCTL,
}


def recognize(argv: Sequence[str]) -> Recognized:
    """Recognize a build command.

    Raises:
        NotUnderstood: It is another command. The error lists the recognized ones.
        UsageError: There is no command.
    """
    words = tuple(argv)
    if not words:
        raise UsageError("no command was given", hints=(_PLACE,))
    program = os.path.basename(words[0])
    if program in ("nerdctl", "podman", "buildah"):
        hint = f"hold the lock with: flock --shared DIR/kitcache.lock {program} …"
        raise _not_understood(f"{program} is not understood", words, hint)
    if program not in _PROGRAMS:
        raise _not_understood(f"{program!r} is not a known build client", words)
    client, start = _PROGRAMS[program], 1
    while True:
        at = read_line(words, start, client.table, stops_at_argument=True).end
        word = words[at] if at < len(words) else ""
        if word in client.builds:
            kind = client.builds[word]
            return Recognized(kind, words, start if kind == "compose" else at)
        if word not in client.below:
            raise _not_understood(f"this {client.name} command does not build", words)
        client, start = client.below[word], at + 1


def _not_understood(problem: str, words: Sequence[str], hint: str = _PLACE) -> NotUnderstood:
    beginning = f" ({' '.join(words[:4])}{' …' if len(words) > 4 else ''})"
    error = NotUnderstood(f"{problem}{beginning}", hints=(hint,))
    error.details = tuple(
        f"{'understood:' if not n else '           '} {line}" for n, line in enumerate(UNDERSTOOD)
    )
    return error


def unchanged_job(argv: Sequence[str], stdin: bytes | None = None) -> Job:
    """Return the job of a command that runs unchanged. stdin: Its input if kitcache has read it."""
    return Job(tuple(argv), lambda _: Rewritten(tuple(argv), stdin))


def direct_job(command: Recognized) -> Job:
    """Return the job of a build or buildctl command. Raises NotUnderstood."""
    argv, start = command.argv, command.at + 1
    is_buildctl = command.kind == "buildctl"
    table = flagtables.BUILDCTL_BUILD if is_buildctl else flagtables.BUILD
    to, source = ("export-cache", "import-cache") if is_buildctl else ("cache-to", "cache-from")
    if is_flag_set(read_line(argv, start, table).options, _BUILDS_NOTHING):
        return unchanged_job(argv)
    line = read_line(argv, start, table, watched=(to, source))
    options = [option for option in line.options if option.value is not None]
    exports = [option for option in options if option.name == to]

    def rewrite(texts: Sequence[str]) -> Rewritten:
        words = list(argv)
        for option, text in zip(exports, texts, strict=True):
            words[option.at] = option.prefix + text
        return Rewritten(tuple(words))

    return Job(
        argv,
        rewrite,
        tuple(option.value or "" for option in exports),
        (0,) * len(exports),
        tuple(option_values(options, source)),
        contexts_of_buildctl(line) if is_buildctl else contexts_of_build(argv, line),
    )
