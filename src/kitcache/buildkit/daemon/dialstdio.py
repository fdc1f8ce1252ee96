"""Programs whose stdin and stdout are the connection to a daemon: the command of an address.

Sources: moby/buildkit, client/connhelper (one directory per scheme); docker/cli, cli/connhelper.
"""

import re
from urllib.parse import SplitResult, parse_qsl, unquote

Command = tuple[str, ...]

_DIAL: Command = ("buildctl", "dial-stdio")
# A word that a program does not parse as an option, and a remote shell does not interpret.
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:%/+-]*")

# A word --KEY becomes --KEY=VALUE if the address has the parameter KEY, and is left out if not.
_CONTAINERS = {
    "docker-container": "docker --context exec -i NAME",
    "podman-container": "podman exec -i NAME",
    "nerdctl-container": "nerdctl --namespace exec -i NAME",
    "kube-pod": "kubectl --context --namespace exec --container -i NAME --",
}


def container_command(url: SplitResult) -> Command:
    """Return the argv for docker-container://NAME?context=C and the like, as buildctl reads them.

    Raises ValueError.
    """
    name = unquote(url.netloc)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    words = _CONTAINERS[url.scheme].split()
    if not name:
        raise ValueError("it names no container")
    if "@" in name:
        raise ValueError("a user name does not belong there")
    unknown = sorted(key for key in query if f"--{key}" not in words or not key)
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}")
    for word in (name, *query.values()):
        _check(word)
    command = []
    for word in words:
        key = word.removeprefix("--")
        if word in ("NAME", "--") or key == word:
            command.append(name if word == "NAME" else word)
        elif query.get(key):
            command.append(f"{word}={query[key]}")
    return (*command, *_DIAL)


def docker_exec(container: str, *where: str) -> Command:
    """Return the argv that reaches a buildkitd in a container.

    Args:
        where: --context=C or --host=URL.
    """
    return ("docker", *where, "exec", "-i", container, *_DIAL)


def ssh_command(url: SplitResult, *, is_engine: bool) -> Command:
    """Return the argv for ssh://[USER@]HOST[:PORT][/SOCKET]. Raises ValueError.

    Args:
        is_engine: The host has a docker engine and its client, not buildkitd and buildctl.
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
    remote = ["docker", "system", "dial-stdio"] if is_engine else [*_DIAL]
    if url.path not in {"", "/"}:
        socket = f"unix://{_check(url.path, is_path=True)}"
        remote[1:1] = ["--host" if is_engine else "--addr", socket]
    return ("ssh", *options, "--", _check(url.hostname), *remote)


def is_container(scheme: str) -> bool:
    """Return True if container_command accepts the scheme."""
    return scheme in _CONTAINERS


def _check(word: str, *, is_path: bool = False) -> str:
    if not _WORD.fullmatch(word.removeprefix("/") if is_path else word):
        raise ValueError(f"{word!r} cannot be given to a program")
    return word
