"""What docker says to its plugin `docker-kitcache`, and how it is answered.

docker calls the launcher with one word for metadata, with `kitcache docker-cli-plugin-hooks JSON`,
with its own global options and then `kitcache ARGS…`, with `help kitcache ARGS…`, or with
`__complete kitcache ARGS…`.
Sources: docker/cli, cli-plugins/metadata, cli-plugins/manager, cli-plugins/socket, cli/flags.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kitcache import __version__
from kitcache.cli.terminal import print_stdout
from kitcache.errors import UsageError

if TYPE_CHECKING:
    from socket import socket

NAME = "kitcache"
PROGRAM = "docker kitcache"
METADATA_CALL = "docker-cli-plugin-metadata"
HOOKS_CALL = "docker-cli-plugin-hooks"
_COMPLETE_CALLS = ("__complete", "__completeNoDesc")

# cobra's directives: what a shell does beyond the words it was given.
_DIRECTIVES = {"words": ":4", "files": ":0", "dirs": ":16", "command": ":0"}

# Programs that we run must not take themselves for this plugin.
_SOCKET = "DOCKER_CLI_PLUGIN_SOCKET"
_OF_THE_CALL = (_SOCKET, "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND")

_SHORT = {"c": "context", "D": "debug", "H": "host", "l": "log-level", "v": "version", "h": "help"}
_SWITCHES = frozenset(("debug", "tls", "tlsverify", "version", "help"))
_FILES = frozenset(("tlscacert", "tlscert", "tlskey"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))

Changes = Mapping[str, str | None]


class PluginInvocation(NamedTuple):
    """kitcache's own words, and what docker's options mean to the environment (None: unset)."""

    words: tuple[str, ...]
    changes: Changes


def run(words: Sequence[str]) -> int:
    """Answer one call of docker's; the exit code."""
    if words and words[0] == METADATA_CALL:
        print_stdout(_metadata())
        return 0
    if HOOKS_CALL in words[:2]:
        return 0  # nothing to add to what other commands print
    if words and words[0] in _COMPLETE_CALLS:
        print_stdout("\n".join(_completions(words[1:])))
        return 0
    return _run_command(words)


def read_call(words: Sequence[str], environ: Mapping[str, str]) -> PluginInvocation:
    """What a call means: docker's options, which come first, then kitcache's words.

    Raises UsageError for an option that kitcache cannot follow.
    """
    options, rest = _split(words)
    if rest[:1] == ("help",):
        rest = (*rest[1:], "--help")
    if rest[:1] == (NAME,):
        rest = rest[1:]
    for switch in ("help", "version"):
        if _is_on(options.get(switch, "false")):
            rest = (f"--{switch}",)
    return PluginInvocation(rest, _changes(options, environ))


def _metadata() -> str:
    # Written out: to import json would take longer than all the rest of the answer.
    return (
        f'{{"SchemaVersion": "0.1.0", "Vendor": "kitcache", "Version": "{__version__}",'
        ' "ShortDescription": "Build with BuildKit, and keep its local caches small"}'
    )


def _run_command(words: Sequence[str]) -> int:
    from kitcache.cli.console import Console  # noqa: PLC0415 - the metadata take none of it
    from kitcache.cli.main import run_words  # noqa: PLC0415 - which imports this module, at a call

    try:
        call = read_call(words, os.environ)
    except UsageError as error:
        Console(wants_json="--json" in words, is_quiet=False).print_error(error)
        return error.exit_code
    for name, value in call.changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    follow_docker(os.environ.pop(_SOCKET, ""))
    for name in _OF_THE_CALL:
        os.environ.pop(name, None)
    return run_words(call.words, PROGRAM)


def follow_docker(address: str) -> None:
    """Be interrupted when the docker that called us is: it says so by hanging up.

    A docker that was sent a signal passes it on in no other way. A terminal's Ctrl-C reaches both.
    """
    if not address:
        return
    from socket import AF_UNIX, socket  # noqa: PLC0415 - the metadata need none
    from threading import Thread  # noqa: PLC0415

    line = socket(AF_UNIX)
    try:
        line.connect(f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError:
        line.close()
        return
    # A signal to the process is the main thread's to take: a new thread has its starter's mask.
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    Thread(target=_wait_for_the_end, args=(line,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for_the_end(line: "socket") -> None:
    try:
        while line.recv(1):
            pass
    except OSError:
        return
    # Where the terminal has interrupted us already, a second one would be "at once".
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGINT)


def _split(words: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The options of docker by their long name, a switch as true or false; and what follows."""
    options: dict[str, str] = {}
    left = list(words)
    while left and left[0].startswith("-") and left[0] != "--":
        word = left.pop(0)
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            _take(options, name, value if sign else None, left)
        else:
            _take_short(options, word[1:], left)
    return options, tuple(left)


def _take_short(options: dict[str, str], letters: str, left: list[str]) -> None:
    """-D, -Hvalue, -H=value, -H value, and several in one word: -DH value."""
    while letters:
        name, letters = _SHORT.get(letters[0], letters[0]), letters[1:]
        if name in _SWITCHES and not letters.startswith("="):
            options[name] = "true"
            continue
        _take(options, name, letters.removeprefix("=") if letters else None, left)
        return


def _take(options: dict[str, str], name: str, value: str | None, left: list[str]) -> None:
    if value is None:
        is_last = name in _SWITCHES or not left
        value = "true" if is_last else left.pop(0)
    options[name] = value


def _changes(options: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str | None]:
    """Environment variables that say what docker's options say."""
    files = sorted(_FILES & options.keys())
    if files:
        raise UsageError(
            f"docker's option --{files[0]} does not reach kitcache",
            hints=("name the certificates' directory in DOCKER_CERT_PATH", "use a context"),
        )
    changes: dict[str, str | None] = {}
    if "config" in options:
        changes["DOCKER_CONFIG"] = os.path.abspath(options["config"])
    if "host" in options:
        changes |= {"DOCKER_HOST": options["host"], "DOCKER_CONTEXT": None, "BUILDKIT_HOST": None}
    elif "context" in options:
        changes |= {"DOCKER_CONTEXT": options["context"], "BUILDKIT_HOST": None}
        if options["context"] != "default":  # which is what DOCKER_HOST says
            changes["DOCKER_HOST"] = None
    for switch, name in (("tls", "DOCKER_TLS"), ("tlsverify", "DOCKER_TLS_VERIFY")):
        if switch in options:
            changes[name] = "1" if _is_on(options[switch]) else None
    return {n: v for n, v in changes.items() if v != environ.get(n)}


def _is_on(value: str) -> bool:
    return value not in _FALSE


def _completions(words: Sequence[str]) -> list[str]:
    """What may stand in the last word's place, a line each, and a directive of cobra's."""
    from kitcache.cli.complete import complete  # noqa: PLC0415

    _, rest = _split(words)
    found = complete(rest[1:])
    lines = (f"{found.prefix}{each.word}\t{each.meaning}" for each in found.candidates)
    return [line.rstrip("\t") for line in lines] + [_DIRECTIVES[found.kind]]
