"""Builders of buildx: the files that it keeps below docker's configuration directory.

Sources: docker/buildx, store/store.go (files), store/storeutil (the selected builder).
"""

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from kitcache.buildkit.daemon.config import MAX_CONFIG_BYTES, get_object, get_text, read_object
from kitcache.errors import NoDaemon
from kitcache.store.userfiles import read_regular

# buildx writes its files in lower case; names may have any case.
_NAME = re.compile(r"[a-z][a-z0-9._-]*")


class Node(NamedTuple):
    """One daemon of a builder; its endpoint is a docker context or URL, for `remote` an address."""

    name: str
    endpoint: str
    options: tuple[tuple[str, str], ...]


class Builder(NamedTuple):
    """A named builder; its driver is docker, docker-container, remote, kubernetes or newer."""

    name: str
    driver: str
    nodes: tuple[Node, ...]


def builders_directory(environ: Mapping[str, str], config_directory: str) -> str:
    """Return BUILDX_CONFIG, or `buildx` in docker's configuration directory."""
    return environ.get("BUILDX_CONFIG") or os.path.join(config_directory, "buildx")


def read_builder(directory: str, name: str) -> Builder | None:
    """Return a builder by its name in any case, None if it does not exist.

    Raises NoDaemon if its file cannot be parsed.
    """
    if not _NAME.fullmatch(name.lower()):
        return None
    path = os.path.join(directory, "instances", name.lower())
    try:
        builder = read_object(path)
    except ValueError as error:
        raise NoDaemon(
            path,
            f"{error}, so the builder {name!r} is unknown",
            hints=(f"docker buildx rm {name}", "name a daemon"),
        ) from error
    if builder is None:
        return None
    listed = builder.get("Nodes")
    nodes = (
        tuple(_node(node) for node in listed if isinstance(node, dict))
        if isinstance(listed, list)
        else ()
    )
    return Builder(get_text(builder, "Name") or name, get_text(builder, "Driver"), nodes)


def current_builder(directory: str, endpoint: str) -> str | None:
    """Return the name of the builder that `docker buildx use` selected for a docker endpoint.

    None if no builder was selected or it no longer exists: buildx then uses the docker context.

    Args:
        endpoint: The current docker context, DOCKER_HOST, or docker's socket as a URL.
    """
    try:
        current = read_object(os.path.join(directory, "current")) or {}
    except ValueError:
        current = {}
    name = get_text(current, "Name")
    exists = bool(name) and read_builder(directory, name) is not None
    if exists and current.get("Global") is True:
        return name
    if name and get_text(current, "Key") == endpoint:
        return name if exists else None
    key = hashlib.sha256(endpoint.encode("utf-8", "surrogateescape")).hexdigest()[:20]
    try:
        data = read_regular(os.path.join(directory, "defaults", key), MAX_CONFIG_BYTES)
        name = data.decode()[:200].strip()
    except (OSError, ValueError):
        return None
    return name if name and read_builder(directory, name) else None


def _node(node: Mapping[str, Any]) -> Node:
    options = get_object(node, "DriverOpts")
    pairs = tuple((key, value) for key, value in options.items() if isinstance(value, str))
    return Node(get_text(node, "Name"), get_text(node, "Endpoint"), pairs)
