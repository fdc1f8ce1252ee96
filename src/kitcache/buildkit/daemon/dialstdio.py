"""Programs that reach a daemon with their stdin and stdout: which command an address means.

Sources: moby/buildkit, client/connhelper (a folder a scheme); docker/cli, cli/connhelper (ssh).
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote

Command = tuple[str, ...]

_DIAL: Command = ("buildctl", "dial-stdio")
# A word that a program cannot take for an option, and a shell at the far end for nothing else.
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:%/+-]*")


class Spec(NamedTuple):
    """What an address says beyond its scheme."""

    name: str
    query: dict[str, str]


def container_command(url: SplitResult) -> Command:
    """The argv for docker-container://NAME?context=C and its kin. Raises ValueError.

    Source of the words: buildctl's, so that its addresses mean the same here.
    """
    name = unquote(url.netloc)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    make, known = _MAKERS[url.scheme]
    if not name:
        raise ValueError("it names no container")
    if "@" in name:
        raise ValueError("a user name does not belong there")
    unknown = sorted(set(query) - known)
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}")
    for word in (name, *query.values()):
        _check(word)
    return make(Spec(name, query))


def docker_exec(container: str, *where: str) -> Command:
    """The argv that reaches a buildkitd in a container. where: --context=C or --host=URL."""
    return ("docker", *where, "exec", "-i", container, *_DIAL)


def ssh_command(url: SplitResult, *, is_engine: bool) -> Command:
    """The argv for ssh://[USER@]HOST[:PORT][/SOCKET]. Raises ValueError.

    is_engine: a docker engine at the far end, with docker's client beside it; else a buildkitd,
    with buildctl.
    """
    if not url.hostname:
        raise ValueError("it names no host")
    if url.password is not None:
        raise ValueError("a password does not belong there")
    options: list[str] = ["-T"]
    if url.username:
        options += ["-l", _check(url.username)]
    if url.port is not None:
        options += ["-p", str(url.port)]
    socket = (f"unix://{_check(url.path, is_path=True)}",) if url.path not in {"", "/"} else ()
    if is_engine:
        host = ("--host", *socket) if socket else ()
        remote: Command = ("docker", *host, "system", "dial-stdio")
    else:
        addr = ("--addr", *socket) if socket else ()
        remote = ("buildctl", *addr, "dial-stdio")
    return ("ssh", *options, "--", _check(url.hostname), *remote)


def is_container(scheme: str) -> bool:
    """Whether container_command knows the scheme."""
    return scheme in _MAKERS


def _check(word: str, *, is_path: bool = False) -> str:
    if not _WORD.fullmatch(word.removeprefix("/") if is_path else word):
        raise ValueError(f"{word!r} cannot be given to a program")
    return word


def _flags(query: Mapping[str, str], *names: str) -> Command:
    return tuple(f"--{name}={query[name]}" for name in names if query.get(name))


def _docker(spec: Spec) -> Command:
    return docker_exec(spec.name, *_flags(spec.query, "context"))


def _podman(spec: Spec) -> Command:
    return ("podman", "exec", "-i", spec.name, *_DIAL)


def _nerdctl(spec: Spec) -> Command:
    return ("nerdctl", *_flags(spec.query, "namespace"), "exec", "-i", spec.name, *_DIAL)


def _kubectl(spec: Spec) -> Command:
    where = _flags(spec.query, "context", "namespace")
    container = _flags(spec.query, "container")
    return ("kubectl", *where, "exec", *container, "-i", spec.name, "--", *_DIAL)


_MAKERS: Mapping[str, tuple[Callable[[Spec], Command], frozenset[str]]] = {
    "docker-container": (_docker, frozenset({"context"})),
    "podman-container": (_podman, frozenset()),
    "nerdctl-container": (_nerdctl, frozenset({"namespace"})),
    "kube-pod": (_kubectl, frozenset({"context", "namespace", "container"})),
}
