"""Builders of buildx, as it keeps them below docker's configuration directory.

Sources: docker/buildx, store/store.go (files), store/storeutil (which builder is in force).
"""

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from kitcache.buildkit.daemon.config import LIMIT_BYTES, get_object, get_text, read_object
from kitcache.errors import NoDaemon
from kitcache.store.userfiles import read_regular

# buildx writes them in lower case, whatever case the user likes.
_NAME = re.compile(r"[a-z][a-z0-9._-]*")


class Node(NamedTuple):
    """One daemon of a builder. endpoint: a docker context or URL; for `remote` the daemon's own."""

    name: str
    endpoint: str
    options: tuple[tuple[str, str], ...]


class Builder(NamedTuple):
    """A named builder. driver: docker, docker-container, remote, kubernetes or newer."""

    name: str
    driver: str
    nodes: tuple[Node, ...]


def builders_directory(environ: Mapping[str, str], config_directory: str) -> str:
    """BUILDX_CONFIG, or `buildx` in docker's configuration directory."""
    return environ.get("BUILDX_CONFIG") or os.path.join(config_directory, "buildx")


def read_builder(directory: str, name: str) -> Builder | None:
    """A builder by its name, in any case; None where there is none. Raises NoDaemon if garbled."""
    if not _NAME.fullmatch(name.lower()):
        return None
    path = os.path.join(directory, "instances", name.lower())
    try:
        found = read_object(path)
    except ValueError as error:
        raise NoDaemon(
            path,
            f"{error}, so the builder {name!r} is not known",
            hints=(f"docker buildx rm {name}", "name a daemon with --addr"),
        ) from error
    if found is None:
        return None
    listed = found.get("Nodes")
    nodes = listed if isinstance(listed, list) else []
    known = tuple(_node(node) for node in nodes if isinstance(node, dict))
    return Builder(get_text(found, "Name") or name, get_text(found, "Driver"), known)


def current_builder(directory: str, endpoint: str) -> str | None:
    """The name of the builder that `docker buildx use` has chosen for a docker endpoint.

    endpoint: the docker context in force, or DOCKER_HOST, or docker's socket as a URL. None where
    nothing was chosen, or what was chosen is gone: buildx then takes the context itself.
    """
    try:
        chosen = read_object(os.path.join(directory, "current")) or {}
    except ValueError:
        chosen = {}
    name = get_text(chosen, "Name")
    exists = bool(name) and read_builder(directory, name) is not None
    if exists and chosen.get("Global") is True:
        return name
    if name and get_text(chosen, "Key") == endpoint:
        return name if exists else None
    name = _default_for(directory, endpoint)
    return name if name and read_builder(directory, name) else None


def _default_for(directory: str, endpoint: str) -> str:
    key = hashlib.sha256(endpoint.encode("utf-8", "surrogateescape")).hexdigest()[:20]
    try:
        path = os.path.join(directory, "defaults", key)
        return read_regular(path, LIMIT_BYTES).decode()[:200].strip()
    except (OSError, ValueError):
        return ""


def _node(found: Mapping[str, Any]) -> Node:
    options = get_object(found, "DriverOpts")
    pairs = tuple((key, value) for key, value in options.items() if isinstance(value, str))
    return Node(get_text(found, "Name"), get_text(found, "Endpoint"), pairs)
