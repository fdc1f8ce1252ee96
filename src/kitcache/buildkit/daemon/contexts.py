"""Docker contexts: named docker engines in files below docker's configuration directory.

Sources: docker/cli, cli/context/store and cli/command (the current context).
"""

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from kitcache.buildkit.daemon.config import CONFIG_FILE, get_object, get_text, read_object
from kitcache.buildkit.daemon.tlsconfig import TlsConfig, check_key_pair, find_certificates
from kitcache.errors import NoDaemon, UsageError

DEFAULT = "default"


class Engine(NamedTuple):
    """The address of a docker engine in the form of DOCKER_HOST, and its certificates."""

    host: str
    tls: TlsConfig | None = None


def current_context(environ: Mapping[str, str], directory: str) -> str:
    """Return the name of the current context; "default" is DOCKER_HOST, or docker's own socket.

    Raises NoDaemon if config.json cannot be parsed: a guess could build on the wrong daemon.
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
            f"{error}, so the current docker context is unknown",
            hints=("repair that file", "name a daemon"),
        ) from error
    return get_text(config or {}, "currentContext") or DEFAULT


def has_context(directory: str, name: str) -> bool:
    """Return True if a context of that name exists."""
    return os.path.isfile(_meta_path(directory, name))


def read_context(directory: str, name: str) -> Engine:
    """Return the engine of a context. Raises NoDaemon if it is missing or cannot be parsed."""
    try:
        meta = read_object(_meta_path(directory, name))
    except ValueError as error:
        raise _useless(name, f"its meta.json {error}") from error
    if meta is None:
        raise _useless(name, "it does not exist")
    endpoint = get_object(get_object(meta, "Endpoints"), "docker")
    host = get_text(endpoint, "Host")
    if not host:
        raise _useless(name, "it has no docker endpoint")
    verify = endpoint.get("SkipTLSVerify") is not True
    files = find_certificates(os.path.join(directory, "contexts", "tls", _hash(name), "docker"))
    if files == TlsConfig() and verify:
        return Engine(host)
    try:
        return Engine(host, check_key_pair(files._replace(verify=verify)))
    except UsageError as error:
        raise _useless(name, f"it has {error.problem}") from error


def default_engine(environ: Mapping[str, str], directory: str) -> Engine | None:
    """Return the engine of DOCKER_HOST and docker's TLS variables; None without DOCKER_HOST."""
    host = environ.get("DOCKER_HOST")
    if not host:
        return None
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not (verify or environ.get("DOCKER_TLS")):
        return Engine(host)
    files = find_certificates(environ.get("DOCKER_CERT_PATH") or directory)
    return Engine(host, check_key_pair(files._replace(verify=verify)))


def _meta_path(directory: str, name: str) -> str:
    return os.path.join(directory, "contexts", "meta", _hash(name), "meta.json")


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def _useless(name: str, problem: str) -> NoDaemon:
    return NoDaemon(
        f"docker context {name!r}",
        problem,
        hints=("see `docker context ls`", "name a daemon"),
    )
