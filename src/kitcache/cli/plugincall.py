"""The calling convention of docker's plugins, as `docker-kitcache` implements it.

docker calls the launcher with one word for metadata, or with `kitcache docker-cli-plugin-hooks
JSON`. For a command it passes its own global options, then `kitcache ARGS…`. For help and
completion it passes `help kitcache ARGS…` and `__complete kitcache ARGS…`.

Source: docker/cli, cli-plugins/metadata, cli-plugins/manager, cli-plugins/socket, cli/flags.
"""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kitcache import __version__
from kitcache.cli.terminal import print_stdout
from kitcache.errors import UsageError

if TYPE_CHECKING:
    from socket import socket

PROGRAM = "docker kitcache"
METADATA_CALL = "docker-cli-plugin-metadata"
HOOKS_CALL = "docker-cli-plugin-hooks"
_COMPLETE_CALLS = ("__complete", "__completeNoDesc")
# Importing json would take longer than the rest of the answer.
_METADATA = (
    f'{{"SchemaVersion": "0.1.0", "Vendor": "kitcache", "Version": "{__version__}",'
    ' "ShortDescription": "Build with BuildKit, and keep its local caches small"}'
)
# Directives of cobra for the shell, by the kind of the completion.
_DIRECTIVES = {"words": ":4", "files": ":0", "dirs": ":16", "command": ":0"}
_SOCKET = "DOCKER_CLI_PLUGIN_SOCKET"
_ORIGINAL_COMMAND = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"
_LETTERS = {
    "c": "context",
    "D": "debug",
    "H": "host",
    "l": "log-level",
    "v": "version",
    "h": "help",
}
_SWITCHES = ("debug", "tls", "tlsverify", "version", "help")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")

Changes = Mapping[str, str | None]


class PluginInvocation(NamedTuple):
    """The words of a kitcache command, and docker's options as environment variables.

    Attributes:
        changes: New values; None removes the variable.
    """

    words: tuple[str, ...]
    changes: Changes


def answer(words: Sequence[str]) -> tuple[str, ...] | None:
    """Answer docker, or return the words of the kitcache command that docker calls.

    For a command, docker's options are put into the environment, which child processes inherit.

    Raises:
        UsageError: An option of docker does not reach kitcache.
    """
    if words[:1] == [METADATA_CALL]:
        print_stdout(_METADATA)
        return None
    if HOOKS_CALL in words[:2]:
        return None  # kitcache adds nothing to the output of other commands
    if words and words[0] in _COMPLETE_CALLS:
        print_stdout("\n".join(_complete(words[1:])))
        return None
    call = read_call(words, os.environ)
    # Remove both variables, so that the programs that kitcache runs do not act as plugins.
    follow_docker(os.environ.pop(_SOCKET, ""))
    for name, value in {**call.changes, _ORIGINAL_COMMAND: None}.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return call.words


def read_call(words: Sequence[str], environ: Mapping[str, str]) -> PluginInvocation:
    """Split the words of a call into docker's options, which come first, and kitcache's words.

    Raises:
        UsageError: An option of docker does not reach kitcache.
    """
    options, rest = _split(words)
    if rest[:1] == ("help",):
        rest = (*rest[1:], "--help")
    if rest[:1] == ("kitcache",):
        rest = rest[1:]
    for name in ("help", "version"):
        if options.get(name, "0") not in _FALSE:
            rest = (f"--{name}",)
    return PluginInvocation(rest, _changes(options, environ))


def follow_docker(address: str) -> None:
    """Interrupt this process when docker closes the socket at `address`. "" means no socket.

    If docker receives a signal, it closes the socket and does nothing else to stop the plugin. A
    terminal's Ctrl-C reaches both processes.
    """
    if not address:
        return
    from socket import AF_UNIX, socket  # noqa: PLC0415 - the metadata need neither
    from threading import Thread  # noqa: PLC0415

    connection = socket(AF_UNIX)
    try:
        connection.connect(f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError:
        connection.close()
        return
    # The main thread handles signals: a new thread inherits a mask that blocks all of them.
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    Thread(target=_interrupt_after, args=(connection,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _interrupt_after(connection: "socket") -> None:
    try:
        while connection.recv(1):
            pass
    except OSError:
        return
    # If Ctrl-C has cancelled the command already, a second SIGINT would end the process at once.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGINT)


def _split(words: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return docker's options by their long names, switches as booleans, and the other words."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "--":
        word = rest.pop(0)
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
        else:  # -D, -Hvalue, -H=value, -H value, -DH value
            name, value = _LETTERS.get(word[1:2], word[1:2]), word[2:]
            if name in _SWITCHES and value and not value.startswith("="):
                rest.insert(0, f"-{value}")
                value = ""
            sign, value = value, value.removeprefix("=")
        if not sign:
            value = "true" if name in _SWITCHES or not rest else rest.pop(0)
        options[name] = value
    return options, tuple(rest)


def _changes(options: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return the changes of environment variables that replace docker's options."""
    for name in ("tlscacert", "tlscert", "tlskey"):
        if name in options:
            raise UsageError(
                f"docker's option --{name} does not reach kitcache",
                hints=("name the certificates' directory in DOCKER_CERT_PATH", "use a context"),
            )
    changes: dict[str, str | None] = {}
    if "config" in options:
        changes["DOCKER_CONFIG"] = os.path.abspath(options["config"])
    if "host" in options:
        changes |= {"DOCKER_HOST": options["host"], "DOCKER_CONTEXT": None, "BUILDKIT_HOST": None}
    elif "context" in options:
        changes |= {"DOCKER_CONTEXT": options["context"], "BUILDKIT_HOST": None}
        if options["context"] != "default":  # the default context is DOCKER_HOST
            changes["DOCKER_HOST"] = None
    for name, variable in (("tls", "DOCKER_TLS"), ("tlsverify", "DOCKER_TLS_VERIFY")):
        if name in options:
            changes[variable] = None if options[name] in _FALSE else "1"
    return {name: value for name, value in changes.items() if value != environ.get(name)}


def _complete(words: Sequence[str]) -> Iterator[str]:
    """Yield a line for each candidate for the last word, then a directive of cobra."""
    from kitcache.cli.complete import complete  # noqa: PLC0415 - seldom needed

    _, rest = _split(words)
    completion = complete(rest[1:])
    for word, meaning in completion.candidates:
        yield f"{completion.prefix}{word}\t{meaning}".rstrip("\t")
    yield _DIRECTIVES[completion.kind]
