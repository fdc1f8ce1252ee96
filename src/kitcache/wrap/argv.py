"""Which client a command is, and what it would do: nothing is guessed.

Understood are docker build (and its other names), buildx build and bake, docker compose and
buildctl build; each becomes a Job.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from kitcache.errors import UsageError
from kitcache.masking import hide_password
from kitcache.wrap import flagtables
from kitcache.wrap.contexts import Context, contexts_of_build, contexts_of_buildctl
from kitcache.wrap.flags import FlagTable, NotUnderstood, Option, is_flag_set, read_line

UNDERSTOOD = (
    "docker build · docker buildx build|b|bake · docker image build · docker builder build",
    "docker compose build|up|run|create · docker-compose …",
    "buildx build|bake · docker-buildx … · buildctl build",
    "with the client's own options before and behind these words",
)
_PLACE = "put kitcache exec -- right before the client's name, inside of scripts and make"
_BUILDS_NOTHING = ("help", "h", "check", "call", "print")
_TO, _FROM = "cache-to", "cache-from"
_EXPORT, _IMPORT = "export-cache", "import-cache"


class Rewritten(NamedTuple):
    """A command to run in place of the user's. stdin: its input, None: what we were given.

    file: a document that the command reads from the path in argv that is PLACE_OF_FILE. warned:
    what the user's command would have written to stderr, and this one does not.
    """

    argv: tuple[str, ...]
    stdin: bytes | None = None
    file: bytes | None = None
    warned: bytes = b""


FILE_PLACEHOLDER = "{kitcache-exec-file}"
"""The word of Rewritten.argv that stands for the path of its file."""


class ClientFailed(Exception):
    """The client does not say what the command means. code, said: how it ended, its stderr."""

    def __init__(self, code: int, said: bytes) -> None:
        super().__init__(code)
        self.code = code
        self.said = said

    @property
    def reason(self) -> str:
        """Why nothing is known of the command's caches, as a clause."""
        *_, last = ["no reason", *self.said.decode(errors="replace").splitlines()]
        return f"the client did not say what it exports ({hide_password(last.strip())})"


class Job(Protocol):
    """What a build command does with caches: exports and imports as the client reads them."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The user's words."""

    @property
    def exports(self) -> tuple[str, ...]:
        """Each value of --cache-to."""

    @property
    def imports(self) -> tuple[str, ...]:
        """Each value of --cache-from."""

    @property
    def contexts(self) -> tuple[Context, ...]:
        """The local directories that its builds send."""

    @property
    def solves(self) -> tuple[int, ...]:
        """Of each export, which of the command's builds it belongs to."""

    @property
    def builds_all(self) -> bool:
        """Whether its success means that every export was made."""

    def rewrite(self, exports: Sequence[str]) -> Rewritten:
        """The command with other exports in place of these, as many and in the same order."""


class DirectJob(NamedTuple):
    """A command that says all in its own words. to: the options that are its exports.

    stdin: its input where we have read that, else None.
    """

    argv: tuple[str, ...]
    to: tuple[Option, ...] = ()
    imports: tuple[str, ...] = ()
    stdin: bytes | None = None
    contexts: tuple[Context, ...] = ()

    @property
    def exports(self) -> tuple[str, ...]:
        """Each value of --cache-to."""
        return tuple(option.value or "" for option in self.to)

    @property
    def solves(self) -> tuple[int, ...]:
        """All are of one build."""
        return (0,) * len(self.to)

    @property
    def builds_all(self) -> bool:
        """It is one build."""
        return True

    def rewrite(self, exports: Sequence[str]) -> Rewritten:
        """The command with other exports in place of these."""
        words = list(self.argv)
        for option, text in zip(self.to, exports, strict=True):
            words[option.at] = option.prefix + text
        return Rewritten(tuple(words), self.stdin)


class Recognized(NamedTuple):
    """A command that is understood. at: of the word that names what it does, such as build."""

    kind: str
    argv: tuple[str, ...]
    at: int


def recognize(argv: Sequence[str]) -> Recognized:
    """What a command is: kind is build, bake, compose or buildctl.

    Raises NotUnderstood, which names what is understood, UsageError where there is no command.
    """
    words = tuple(argv)
    if not words:
        raise UsageError("there is no command", hints=(_PLACE,))
    program = os.path.basename(words[0])
    if program in ("nerdctl", "podman", "buildah"):
        step = f"hold the lock with: flock --shared DIR/kitcache.lock {program} …"
        raise _not_understood(f"{program} is not understood", words, step)
    readers = {
        "docker": _docker,
        "buildx": _buildx,
        "docker-buildx": _buildx,
        "docker-compose": _compose,
        "buildctl": _buildctl,
    }
    if program not in readers:
        raise _not_understood(f"{program!r} is no build client that is known", words)
    return readers[program](words, 1)


def _docker(words: tuple[str, ...], start: int) -> Recognized:
    at = read_line(words, start, flagtables.DOCKER, stops_at_argument=True).end
    match words[at : at + 1]:
        case ("build",):
            return Recognized("build", words, at)
        case ("image" | "builder",):
            below = read_line(words, at + 1, flagtables.DOCKER, stops_at_argument=True).end
            if words[below : below + 1] == ("build",):
                return Recognized("build", words, below)
        case ("buildx",):
            return _buildx(words, at + 1)
        case ("compose",):
            return _compose(words, at + 1)
    raise _not_understood("this docker command does not build", words)


def _buildx(words: tuple[str, ...], start: int) -> Recognized:
    at = read_line(words, start, flagtables.BUILDX, stops_at_argument=True).end
    match words[at : at + 1]:
        case ("build" | "b",):
            return Recognized("build", words, at)
        case ("bake" | "f",):
            return Recognized("bake", words, at)
    raise _not_understood("this buildx command does not build", words)


def _compose(words: tuple[str, ...], start: int) -> Recognized:
    at = read_line(words, start, flagtables.COMPOSE, stops_at_argument=True).end
    if words[at : at + 1] and words[at] in ("build", "up", "run", "create"):
        return Recognized("compose", words, start)
    raise _not_understood("this compose command does not build", words)


def _buildctl(words: tuple[str, ...], start: int) -> Recognized:
    at = read_line(words, start, flagtables.BUILDCTL, stops_at_argument=True).end
    if words[at : at + 1] and words[at] in ("build", "b"):
        return Recognized("buildctl", words, at)
    raise _not_understood("this buildctl command does not build", words)


def _not_understood(problem: str, words: Sequence[str], step: str = _PLACE) -> NotUnderstood:
    more = f" ({' '.join(words[:4])}{' …' if len(words) > 4 else ''})"
    error = NotUnderstood(f"{problem}{more}", hints=(step,))
    error.details = tuple(
        f"{'understood:' if not n else '           '} {line}" for n, line in enumerate(UNDERSTOOD)
    )
    return error


def direct_job(found: Recognized) -> DirectJob:
    """The caches of a build or buildctl command. Raises NotUnderstood."""
    table, to, source = _names(found.kind)
    line = read_line(found.argv, found.at + 1, table, watched=(to, source))
    given = [option for option in line.options if option.value is not None]
    is_buildctl = found.kind == "buildctl"
    return DirectJob(
        found.argv,
        tuple(option for option in given if option.name == to),
        tuple(option.value or "" for option in given if option.name == source),
        contexts=contexts_of_buildctl(line) if is_buildctl else contexts_of_build(found.argv, line),
    )


def builds_nothing(found: Recognized) -> bool:
    """Whether a build or buildctl command only tells something, as with --help."""
    table, _, _ = _names(found.kind)
    return is_flag_set(read_line(found.argv, found.at + 1, table).options, _BUILDS_NOTHING)


def _names(kind: str) -> tuple[FlagTable, str, str]:
    if kind == "buildctl":
        return flagtables.BUILDCTL_BUILD, _EXPORT, _IMPORT
    return flagtables.BUILD, _TO, _FROM
