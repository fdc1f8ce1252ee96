"""BuildRequest as the fields of a Solve: frontend attributes, entitlements, caches.

Pure, but for read_proxies. Sources: buildx build/opt.go and build/utils.go, BuildKit
frontend/dockerui/config.go and attr.go, docker cli cli/config/configfile (proxies).
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from kitcache.buildkit.daemon.config import CONFIG_FILE, read_object
from kitcache.buildkit.exporters import make_exporters
from kitcache.buildkit.inputs import Inputs
from kitcache.errors import UsageError
from kitcache.options.attributes import Pairs, is_true, quote_go, suggest
from kitcache.options.build import BuildRequest
from kitcache.options.caches import CacheExport, CacheImport

CacheEntry = tuple[str, Mapping[str, str]]
"""The type and the attributes of a cache, as the daemon is to see them."""

NETWORKS = ("default", "host", "none", "sandbox")
_LOCAL_DELETE = "buildx.local.delete"
"""Not the daemon's: that a local output with mode=delete may go anywhere."""
ENTITLEMENTS = ("network.host", "security.insecure", "device", _LOCAL_DELETE)
_HOST_GATEWAY = "host-gateway"
_PLATFORM = re.compile(r"[\w.-]+(\([\w.-]+\))?(/[\w.-]+){0,2}", re.ASCII)
_PROXIES = ("httpProxy", "httpsProxy", "noProxy", "ftpProxy", "allProxy")


def frontend_attrs(
    request: BuildRequest,
    inputs: Inputs,
    *,
    is_engine: bool,
    cache_imports: Iterable[CacheEntry] = (),
    host_gateway: str = "",
    proxies: Pairs = (),
) -> dict[str, str]:
    """The attributes for dockerfile.v0. Raises UsageError.

    is_engine: dockerd prefers the images that it has. cache_imports: the digest in each local one;
    a cache that is not named here is not read. host_gateway: the IP address behind the word
    host-gateway of --add-host. proxies: build arguments that the request's own go before.
    """
    attrs = dict(inputs.attrs)
    attrs |= {f"build-arg:{key}": value for key, value in (*proxies, *request.build_args)}
    attrs |= {f"label:{key}": value for key, value in request.labels}
    attrs |= {f"attest:{kind}": value for kind, value in request.attests}
    attrs |= _choices(request, is_engine)
    if hosts := _hosts(request.add_hosts, host_gateway):
        attrs["add-hosts"] = hosts
    if entries := [{"Type": kind, "Attrs": dict(given)} for kind, given in cache_imports]:
        attrs["cache-imports"] = json.dumps(entries, separators=(",", ":"))
    return attrs


def _choices(request: BuildRequest, is_engine: bool) -> dict[str, str]:
    """The attributes that are there only where something was chosen."""
    mode = "pull" if request.pull else "local" if is_engine else ""
    network = "" if request.network == "default" else request.network
    is_multi = is_true(dict(request.build_args).get("BUILDKIT_MULTI_PLATFORM", ""))
    attrs = {
        "target": request.target,
        "platform": ",".join(request.platforms),
        "multi-platform": "true" if is_multi else "",
        "no-cache": ",".join(request.no_cache_filter),
        "image-resolve-mode": mode,
        "force-network-mode": network,
        "shm-size": str(request.shm_size) if request.shm_size else "",
        "ulimit": ",".join(request.ulimits),
    }
    chosen = {key: value for key, value in attrs.items() if value}
    return chosen | {"no-cache": ""} if request.no_cache else chosen


def _hosts(hosts: Iterable[str], gateway: str) -> str:
    """The name=IP list of --add-host; the user's form is NAME:IP or NAME=IP."""
    found = []
    for host in hosts:
        name, is_split, address = host.partition("=")
        if not is_split:
            name, _, address = host.partition(":")
        address = _inside_brackets(address)
        if address == _HOST_GATEWAY:
            if not gateway:
                raise UsageError(
                    f"{host}: unable to derive the IP value for host-gateway",
                    hints=(f"write the address: --add-host {name}:172.17.0.1",),
                )
            address = gateway
        if not name or not _is_ip(address):
            raise UsageError(f"invalid host {host}", hints=("write --add-host NAME:IP",))
        found.append(f"{name}={address}")
    return ",".join(found)


def _inside_brackets(address: str) -> str:
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def entitlements(request: BuildRequest) -> tuple[str, ...]:
    """What the daemon is asked to allow; the host's network needs it too. Raises UsageError."""
    for word in request.allow:
        key, equals, _ = word.partition("=")
        if key == _LOCAL_DELETE and equals:
            raise UsageError(f"{key} does not accept a value", hints=(f"--allow {key}",))
        if key not in ENTITLEMENTS or (equals and key != "device"):
            meant = suggest(word, ENTITLEMENTS)
            raise UsageError(
                f"unknown entitlement {word}",
                hints=(f"did you mean {meant}?" if meant else f"use {ENTITLEMENTS[0]}",),
            )
    wanted = (*request.allow, "network.host") if request.network == "host" else request.allow
    return tuple(word for word in dict.fromkeys(wanted) if word != _LOCAL_DELETE)


def may_delete_anywhere(request: BuildRequest) -> bool:
    """Return True if local outputs with mode=delete may go to any directory."""
    return _LOCAL_DELETE in request.allow


def cache_exports(request: BuildRequest) -> tuple[CacheExport, ...]:
    """The exports to make: without GitHub's outside of GitHub, with the inline one by build-arg.

    Raises UsageError for one that comes twice, local ones apart: they may share a directory.
    """
    exports = [export for export in request.cache_to if export.is_active]
    if is_true(dict(request.build_args).get("BUILDKIT_INLINE_CACHE", "")):
        exports.append(CacheExport("inline"))
    seen: set[object] = set()
    for export in exports:
        attrs = dict(export.attrs)
        of_registry = export.kind == "registry"
        key = (export.kind, attrs.get("ref") if of_registry else frozenset(attrs.items()))
        if key in seen and export.kind != "local":
            raise UsageError(f"duplicate cache exports [{export.kind}]")
        seen.add(key)
    return tuple(exports)


def cache_imports(request: BuildRequest) -> tuple[CacheImport, ...]:
    """The imports to make: without GitHub's outside of GitHub."""
    return tuple(entry for entry in request.cache_from if entry.is_active)


def needs_image_store(request: BuildRequest) -> tuple[str, ...]:
    """What dockerd can do with its containerd image store alone, as the user would name it."""
    needs = [
        f"cache export type={export.kind}"
        for export in cache_exports(request)
        if export.kind != "inline"
    ]
    for exporter in make_exporters(request, is_engine=True):
        if is_true(dict(exporter.attrs).get("push", "")):
            needs.append("--push")
        elif exporter.kind in ("oci", "docker", "image"):
            needs.append(f"--output type={exporter.kind}")
    if len(request.platforms) > 1:
        needs.append("several platforms")
    needs += [f"--{kind}" for kind, _ in request.attests]
    return tuple(dict.fromkeys(needs))


def check_request(request: BuildRequest) -> None:
    """Find out what no daemon could do, before one is asked. Raises UsageError."""
    if request.network not in NETWORKS:
        meant = suggest(request.network, NETWORKS)
        raise UsageError(
            f"network mode {quote_go(request.network)} not supported by buildkit",
            hints=(f"did you mean {meant}?" if meant else f"use {', '.join(NETWORKS)}",),
        )
    for platform in request.platforms:
        if not _PLATFORM.fullmatch(platform):
            raise UsageError(
                f"invalid platform {quote_go(platform)}", hints=("use linux/amd64, for one",)
            )
    _hosts(request.add_hosts, gateway="127.0.0.1")
    entitlements(request)
    cache_exports(request)
    make_exporters(request, is_engine=True)


def read_proxies(directory: str, host: str) -> Pairs:
    """Return the proxies in docker's configuration directory as build arguments, for one daemon."""
    try:
        found = read_object(os.path.join(directory, CONFIG_FILE)) or {}
    except ValueError:  # the reader of logins tells of it
        return ()
    return proxy_args(found.get("proxies"), host)


def proxy_args(proxies: object, host: str = "") -> Pairs:
    """Build arguments of the proxies in docker's config.json, in both spellings.

    proxies: the value of its key proxies, whatever it is. host: the daemon's address; it may have
    proxies of its own there.
    """
    if not isinstance(proxies, dict):
        return ()
    found = proxies.get(host, proxies.get("default"))
    if not isinstance(found, dict):
        return ()
    args = []
    for key in _PROXIES:
        value = found.get(key)
        if isinstance(value, str) and value:
            name = key.replace("Proxy", "_proxy")
            args += [(name.upper(), value), (name, value)]
    return tuple(args)
