"""The address of the daemon to use.

It comes from the first of: the arguments addr and builder, BUILDKIT_HOST, BUILDX_BUILDER, the
builder that `docker buildx use` selected, DOCKER_HOST, the docker context, the sockets of docker
and buildkitd.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from kitcache.buildkit.daemon.builders import (
    Builder,
    builders_directory,
    current_builder,
    read_builder,
)
from kitcache.buildkit.daemon.config import config_directory
from kitcache.buildkit.daemon.contexts import (
    DEFAULT,
    Engine,
    current_context,
    default_engine,
    has_context,
    read_context,
)
from kitcache.buildkit.daemon.dialstdio import (
    container_command,
    docker_exec,
    is_container,
    ssh_command,
)
from kitcache.buildkit.daemon.tlsconfig import TlsConfig, check_key_pair
from kitcache.errors import NoDaemon, UsageError

DOCKER_SOCKET = "/var/run/docker.sock"
BUILDKIT_SOCKET = "/run/buildkit/buildkitd.sock"

_FORMS = (
    "unix://PATH, tcp://HOST:PORT, docker-container://NAME, ssh://HOST",
    "podman-container://NAME, nerdctl-container://NAME, kube-pod://NAME",
)


class Address(NamedTuple):
    """The address of a daemon.

    Attributes:
        url: As written.
        origin: The argument, variable or file that selected it, for messages.
        tls: Certificates of a tcp:// address, None for an unencrypted connection.
        is_engine: True for a docker engine, False for a buildkitd, None to find out.
        command: The argv of the program whose stdin and stdout are the connection; () for a socket.
        is_builder: The daemon is in the container of a builder, which is started if it is stopped.
    """

    url: str
    origin: str
    tls: TlsConfig | None = None
    is_engine: bool | None = None
    command: tuple[str, ...] = ()
    is_builder: bool = False


class Socket(NamedTuple):
    """A default socket of a daemon."""

    path: str
    origin: str
    is_engine: bool


def find_daemon(
    environ: Mapping[str, str],
    *,
    addr: str | None = None,
    builder: str | None = None,
    tls: TlsConfig | None = None,
) -> Address:
    """Return the address of the daemon to use, without a connection to it.

    Raises UsageError for an invalid address or an unknown builder. Raises NoDaemon if the named
    daemon cannot be used, or if none is named and no default socket exists.

    Args:
        environ: The environment variables.
        addr: An address; wins over everything else.
        builder: The name of a builder of buildx, or of a docker context.
        tls: Certificates for `addr` or BUILDKIT_HOST.
    """
    if addr:
        return parse_address(addr, "the argument addr", tls=tls)
    directory = config_directory(environ)
    if builder:
        return _named_builder(environ, directory, builder, "the argument builder")
    if environ.get("BUILDKIT_HOST"):
        return parse_address(environ["BUILDKIT_HOST"], "BUILDKIT_HOST", tls=tls)
    if environ.get("BUILDX_BUILDER"):
        return _named_builder(environ, directory, environ["BUILDX_BUILDER"], "BUILDX_BUILDER")
    return _unnamed(environ, directory)


def parse_address(
    url: str, origin: str, *, tls: TlsConfig | None = None, is_engine: bool | None = None
) -> Address:
    """Parse an address as users write it. Raises UsageError with the valid forms.

    Args:
        url: The address.
        origin: For messages.
        tls: For tcp:// only.
        is_engine: True for a docker engine, False for a buildkitd, None if unknown.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text can quote a password from the URL
        raise _bad_address(
            url, origin, "its host cannot be read, or its port is not a number up to 65535"
        ) from None
    try:
        command = _command(parts, is_engine=is_engine is True)
    except ValueError as error:
        raise _bad_address(url, origin, str(error)) from error
    if tls is not None and parts.scheme != "tcp":
        raise _bad_address(url, origin, "certificates are for tcp:// only")
    if command and is_engine is None:
        is_engine = False
    return Address(url, origin, check_key_pair(tls) if tls else None, is_engine, command)


def default_sockets(environ: Mapping[str, str]) -> tuple[Socket, ...]:
    """Return the default sockets of daemons, the most likely first."""
    sockets = [Socket(DOCKER_SOCKET, "docker's usual socket", True)]
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime:
        path = os.path.join(runtime, "docker.sock")
        sockets.append(Socket(path, "rootless docker's usual socket", True))
    sockets.append(Socket(BUILDKIT_SOCKET, "buildkitd's usual socket", False))
    if runtime:
        path = os.path.join(runtime, "buildkit", "buildkitd.sock")
        sockets.append(Socket(path, "rootless buildkitd's usual socket", False))
    return tuple(sockets)


def first_existing(sockets: tuple[Socket, ...]) -> Address:
    """Return the first socket that exists. Raises NoDaemon with all paths if none does."""
    for path, origin, is_engine in sockets:
        if os.path.exists(path):
            return Address(f"unix://{path}", origin, None, is_engine)
    raise NoDaemon(
        "",
        "neither docker nor buildkitd was found",
        details=tuple(f"{path} does not exist ({origin})" for path, origin, _ in sockets),
        hints=(
            "start docker or buildkitd",
            "name a daemon",
        ),
    )


def _unnamed(environ: Mapping[str, str], directory: str) -> Address:
    """Return the selected builder of the current docker engine, or else that engine."""
    context = current_context(environ, directory)
    engine = default_engine(environ, directory)
    builders = builders_directory(environ, directory)
    # buildx records its selection under the context, or else under the address of the engine.
    key = context if context != DEFAULT else engine.host if engine else f"unix://{DOCKER_SOCKET}"
    selected = current_builder(builders, key)
    if selected:
        return _named_builder(environ, directory, selected, "docker buildx use")
    if engine:
        return _engine_address(engine, "DOCKER_HOST")
    if context != DEFAULT:
        return _engine_address(read_context(directory, context), f"docker context {context!r}")
    return first_existing(default_sockets(environ))


def _command(parts: SplitResult, *, is_engine: bool) -> tuple[str, ...]:
    """Return the argv of an address, () for a socket. Raises ValueError."""
    if is_container(parts.scheme):
        return container_command(parts)
    if parts.scheme == "ssh":
        return ssh_command(parts, is_engine=is_engine)
    if parts.scheme == "unix":
        if not parts.netloc + parts.path:
            raise ValueError("it names no socket")
    elif parts.scheme == "tcp":
        if "@" in parts.netloc:
            raise ValueError("a user name does not belong there")
        if not parts.hostname or (parts.port is None and not is_engine):
            raise ValueError("it needs a host and a port")
    else:
        raise ValueError("unknown form")
    return ()


def _bad_address(url: str, origin: str, problem: str) -> UsageError:
    # A password in the URL must not be shown.
    shown = url if "@" not in url else f"{url.partition('://')[0]}://…"
    hint = (f"write unix://{url}",) if url.startswith("/") else ()
    return UsageError(
        f"not the address of a daemon: {shown!r} ({problem})", path=origin, hints=hint + _FORMS
    )


def _named_builder(environ: Mapping[str, str], directory: str, name: str, how: str) -> Address:
    """Return the daemon of a name as buildx reads it: a builder, or a docker context."""
    known = read_builder(builders_directory(environ, directory), name)
    if known:
        return _builder_address(environ, directory, known, f"builder {name!r}, from {how}")
    origin = f"docker context {name!r}, from {how}"
    if name == DEFAULT:
        return _default_address(environ, directory, origin)
    if has_context(directory, name):
        return _engine_address(read_context(directory, name), origin)
    raise UsageError(f"builder {name!r} was not found", path=how, hints=("see `docker buildx ls`",))


def _builder_address(
    environ: Mapping[str, str], directory: str, builder: Builder, origin: str
) -> Address:
    if not builder.nodes:
        raise NoDaemon(origin, "it has no nodes", hints=(f"docker buildx rm {builder.name}",))
    # buildx distributes platforms over the nodes; kitcache uses the first one for all of them.
    node = builder.nodes[0]
    if len(builder.nodes) > 1:
        origin = f"{origin}, the first of its {len(builder.nodes)} nodes"
    if builder.driver == "docker-container":
        container = f"buildx_buildkit_{node.name}"
        flag = "host" if "://" in node.endpoint else "context"
        command = docker_exec(container, *([f"--{flag}={node.endpoint}"] if node.endpoint else []))
        url = f"docker-container://{container}"
        return Address(url, origin, None, False, command, is_builder=True)
    if builder.driver == "remote":
        options = dict(node.options)
        keys = ("cacert", "cert", "key", "servername")
        ca, cert, key, server_name = (options.get(name) for name in keys)
        tls = TlsConfig(ca, cert, key, server_name) if ca or cert or key else None
        return parse_address(node.endpoint, origin, tls=tls, is_engine=False)
    if builder.driver == "docker":
        if node.endpoint == DEFAULT:
            return _default_address(environ, directory, origin)
        return _engine_address(read_context(directory, node.endpoint), origin)
    raise NoDaemon(
        origin,
        f"its driver {builder.driver!r} is not supported",
        kind="unsupported",
        details=("supported: docker, docker-container, remote",),
        hints=("name another builder", "name a daemon"),
    )


def _default_address(environ: Mapping[str, str], directory: str, origin: str) -> Address:
    engine = default_engine(environ, directory)
    if engine:
        return _engine_address(engine, origin)
    sockets = tuple(s for s in default_sockets(environ) if s.is_engine)
    return first_existing(sockets)._replace(origin=origin)


def _engine_address(engine: Engine, origin: str) -> Address:
    url = engine.host if "://" in engine.host else f"tcp://{engine.host}"
    tls = engine.tls if url.startswith("tcp://") else None
    return parse_address(url, origin, tls=tls, is_engine=True)
