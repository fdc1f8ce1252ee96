"""Docker contexts: named docker engines, kept below docker's configuration directory.

Sources: docker/cli, cli/context/store and cli/command (which context is in force).
"""

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from kitcache.buildkit.daemon.config import CONFIG_FILE, get_object, get_text, read_object
from kitcache.buildkit.daemon.tlsconfig import TlsConfig, check_key_pair
from kitcache.errors import NoDaemon, UsageError

DEFAULT = "default"


class Engine(NamedTuple):
    """Where a docker engine is: a URL as DOCKER_HOST has it, and the certificates for it."""

    host: str
    tls: TlsConfig | None = None


def current_context(environ: Mapping[str, str], directory: str) -> str:
    """The name of the context in force; "default" is DOCKER_HOST, or docker's own socket.

    Raises NoDaemon where config.json cannot be understood: a guess may build in the wrong place.
    """
    if environ.get("DOCKER_HOST"):
        return DEFAULT
    if environ.get("DOCKER_CONTEXT"):
        return environ["DOCKER_CONTEXT"]
    path = os.path.join(directory, CONFIG_FILE)
    try:
        config = read_object(path)
    except ValueError as error:
        raise NoDaemon(
            path,
            f"{error}, so the docker context in force is not known",
            hints=("mend that file", "name a daemon with --addr"),
        ) from error
    return get_text(config or {}, "currentContext") or DEFAULT


def has_context(directory: str, name: str) -> bool:
    """Whether a context of that name is kept there."""
    return os.path.isfile(_meta_path(directory, name))


def read_context(directory: str, name: str) -> Engine:
    """The engine that a kept context means. Raises NoDaemon where it is missing or garbled."""
    try:
        meta = read_object(_meta_path(directory, name))
    except ValueError as error:
        raise _useless(name, f"its meta.json {error}") from error
    if meta is None:
        raise _useless(name, "there is no such context")
    endpoint = get_object(get_object(meta, "Endpoints"), "docker")
    host = get_text(endpoint, "Host")
    if not host:
        raise _useless(name, "it has no docker endpoint")
    verify = endpoint.get("SkipTLSVerify") is not True
    return Engine(host, _tls_of(directory, name, verify=verify))


def default_engine(environ: Mapping[str, str], directory: str) -> Engine | None:
    """What DOCKER_HOST and docker's TLS variables say; None without DOCKER_HOST."""
    host = environ.get("DOCKER_HOST")
    if not host:
        return None
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not (verify or environ.get("DOCKER_TLS")):
        return Engine(host)
    files = _certificates(environ.get("DOCKER_CERT_PATH") or directory)
    return Engine(host, check_key_pair(files._replace(verify=verify)))


def _tls_of(directory: str, name: str, *, verify: bool) -> TlsConfig | None:
    files = _certificates(os.path.join(directory, "contexts", "tls", _hash(name), "docker"))
    if files == TlsConfig() and verify:
        return None
    try:
        return check_key_pair(files._replace(verify=verify))
    except UsageError as error:
        raise _useless(name, f"it has {error.problem}") from error


def _certificates(directory: str) -> TlsConfig:
    """The files that are there, of the three."""
    paths = [os.path.join(directory, name) for name in ("ca.pem", "cert.pem", "key.pem")]
    ca, cert, key = (path if os.path.exists(path) else None for path in paths)
    return TlsConfig(ca, cert, key)


def _meta_path(directory: str, name: str) -> str:
    return os.path.join(directory, "contexts", "meta", _hash(name), "meta.json")


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def _useless(name: str, problem: str) -> NoDaemon:
    return NoDaemon(
        f"docker context {name!r}",
        problem,
        hints=("see `docker context ls`", "name a daemon with --addr"),
    )
