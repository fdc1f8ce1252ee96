"""Which daemon is meant: the address, and what chose it.

The first of: --addr, --builder, BUILDKIT_HOST, BUILDX_BUILDER (else the builder that `docker buildx
use` chose for the docker in force), DOCKER_HOST, the docker context, the sockets of docker and of
buildkitd.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from kitcache.buildkit.daemon.builders import (
    Builder,
    Node,
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
    """A daemon's address. url: as written. origin: what chose it, for the sentence that says so.

    is_engine: a docker engine (True), a buildkitd (False), or to be found out (None). command: the
    argv of the program that reaches it with stdin and stdout, where no socket does. is_builder: the
    program is in a builder's container, which is started where it is stopped.
    """

    url: str
    origin: str
    tls: TlsConfig | None = None
    is_engine: bool | None = None
    command: tuple[str, ...] = ()
    is_builder: bool = False


class Socket(NamedTuple):
    """A socket that daemons use when nothing else is said."""

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
    """The daemon that is meant; nothing is connected yet. tls: for --addr and BUILDKIT_HOST.

    Raises UsageError for an address or a builder that means nothing, NoDaemon where what is named
    cannot be used, or where nothing is named and no daemon has its socket where it usually is.
    """
    if addr:
        return parse_address(addr, "--addr", tls=tls)
    directory = config_directory(environ)
    if builder:
        return _named_builder(environ, directory, builder, "--builder")
    if environ.get("BUILDKIT_HOST"):
        return parse_address(environ["BUILDKIT_HOST"], "BUILDKIT_HOST", tls=tls)
    if environ.get("BUILDX_BUILDER"):
        return _named_builder(environ, directory, environ["BUILDX_BUILDER"], "BUILDX_BUILDER")
    return _unnamed(environ, directory)


def parse_address(
    url: str, origin: str, *, tls: TlsConfig | None = None, is_engine: bool | None = None
) -> Address:
    """An address as a person writes it. is_engine: what is known of the far end.

    Raises UsageError, which says what forms there are.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text may quote a password that was typed there
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


def usual_sockets(environ: Mapping[str, str]) -> tuple[Socket, ...]:
    """Where daemons listen when nothing else is said, the likeliest first."""
    found = [Socket(DOCKER_SOCKET, "docker's usual socket", True)]
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime:
        path = os.path.join(runtime, "docker.sock")
        found.append(Socket(path, "rootless docker's usual socket", True))
    found.append(Socket(BUILDKIT_SOCKET, "buildkitd's usual socket", False))
    if runtime:
        path = os.path.join(runtime, "buildkit", "buildkitd.sock")
        found.append(Socket(path, "rootless buildkitd's usual socket", False))
    return tuple(found)


def first_existing(sockets: tuple[Socket, ...]) -> Address:
    """The first that is there. Raises NoDaemon, naming all of them, where none is."""
    for path, origin, is_engine in sockets:
        if os.path.exists(path):
            return Address(f"unix://{path}", origin, None, is_engine)
    raise NoDaemon(
        "",
        "no docker and no buildkitd is found",
        details=tuple(f"{path} is not there ({origin})" for path, origin, _ in sockets),
        hints=(
            "start docker or buildkitd",
            "name a daemon: --addr unix://PATH, --addr tcp://HOST:PORT, or DOCKER_HOST",
        ),
    )


def _unnamed(environ: Mapping[str, str], directory: str) -> Address:
    """The builder that was chosen for the docker in force, or else that docker itself."""
    context = current_context(environ, directory)
    engine = default_engine(environ, directory)
    builders = builders_directory(environ, directory)
    chosen = current_builder(builders, _endpoint_key(context, engine))
    if chosen:
        return _named_builder(environ, directory, chosen, "docker buildx use")
    if engine:
        return _engine_address(engine, "DOCKER_HOST")
    if context != DEFAULT:
        return _engine_address(read_context(directory, context), f"docker context {context!r}")
    return first_existing(usual_sockets(environ))


def _command(parts: SplitResult, *, is_engine: bool) -> tuple[str, ...]:
    """The argv that the address means, () for a socket. Raises ValueError."""
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
        raise ValueError("its form is not known")
    return ()


def _bad_address(url: str, origin: str, problem: str) -> UsageError:
    # A password that was typed there by mistake is not to be shown.
    shown = url if "@" not in url else f"{url.partition('://')[0]}://…"
    hint = (f"write unix://{url}",) if url.startswith("/") else ()
    return UsageError(
        f"not a daemon's address: {shown!r} ({problem})", path=origin, hints=hint + _FORMS
    )


def _named_builder(environ: Mapping[str, str], directory: str, name: str, how: str) -> Address:
    """A builder as buildx understands the name: its own, or a docker context."""
    found = read_builder(builders_directory(environ, directory), name)
    if found:
        return _builder_address(environ, directory, found, f"builder {name!r}, from {how}")
    origin = f"docker context {name!r}, from {how}"
    if name == DEFAULT:
        return _default_address(environ, directory, origin)
    if has_context(directory, name):
        return _engine_address(read_context(directory, name), origin)
    raise UsageError(f"no builder {name!r} is found", path=how, hints=("see `docker buildx ls`",))


def _builder_address(
    environ: Mapping[str, str], directory: str, builder: Builder, origin: str
) -> Address:
    if not builder.nodes:
        raise NoDaemon(origin, "it has no node", hints=(f"docker buildx rm {builder.name}",))
    # buildx spreads platforms over the nodes; here the first one builds them all.
    node = builder.nodes[0]
    if len(builder.nodes) > 1:
        origin = f"{origin}, the first of its {len(builder.nodes)} nodes"
    if builder.driver == "docker-container":
        return _container_address(node, origin)
    if builder.driver == "remote":
        return _remote_address(node, origin)
    if builder.driver == "docker":
        if node.endpoint == DEFAULT:
            return _default_address(environ, directory, origin)
        return _engine_address(read_context(directory, node.endpoint), origin)
    raise NoDaemon(
        origin,
        f"its driver {builder.driver!r} is not supported",
        kind="unsupported",
        details=("supported: docker, docker-container, remote",),
        hints=("name another with --builder, such as --builder default", "use --addr"),
    )


def _container_address(node: Node, origin: str) -> Address:
    container = f"buildx_buildkit_{node.name}"
    flag = "host" if "://" in node.endpoint else "context"
    where = (f"--{flag}={node.endpoint}",) if node.endpoint else ()
    url = f"docker-container://{container}"
    command = docker_exec(container, *where)
    return Address(url, origin, None, False, command, is_builder=True)


def _remote_address(node: Node, origin: str) -> Address:
    options = dict(node.options)
    keys = ("cacert", "cert", "key", "servername")
    ca, cert, key, server_name = (options.get(name) for name in keys)
    tls = TlsConfig(ca, cert, key, server_name) if ca or cert or key else None
    return parse_address(node.endpoint, origin, tls=tls, is_engine=False)


def _default_address(environ: Mapping[str, str], directory: str, origin: str) -> Address:
    engine = default_engine(environ, directory)
    if engine:
        return _engine_address(engine, origin)
    found = first_existing(tuple(s for s in usual_sockets(environ) if s.is_engine))
    return found._replace(origin=origin)


def _engine_address(engine: Engine, origin: str) -> Address:
    url = engine.host if "://" in engine.host else f"tcp://{engine.host}"
    tls = engine.tls if url.startswith("tcp://") else None
    return parse_address(url, origin, tls=tls, is_engine=True)


def _endpoint_key(context: str, engine: Engine | None) -> str:
    """What buildx keeps its choice under."""
    if context != DEFAULT:
        return context
    return engine.host if engine else f"unix://{DOCKER_SOCKET}"
