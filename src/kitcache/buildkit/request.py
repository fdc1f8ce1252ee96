"""BuildRequest as the fields of a Solve: frontend attributes, entitlements, caches.

Only read_proxies does I/O. Sources: buildx build/opt.go and build/utils.go, BuildKit
frontend/dockerui/config.go and attr.go, docker cli cli/config/configfile (proxies).
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from kitcache.buildkit.daemon.config import CONFIG_FILE, read_object
from kitcache.buildkit.exporters import Exporter, make_exporters
from kitcache.buildkit.inputs import Inputs
from kitcache.errors import UsageError
from kitcache.options.attributes import Pairs, hints_for, is_true, quote_go
from kitcache.options.build import BuildRequest
from kitcache.options.caches import (
    CacheExport,
    CacheImport,
    complete_cache,
    left_out_warning,
)

CacheEntry = tuple[str, Mapping[str, str]]
"""The type and the attributes of a cache, as the daemon gets them."""

NETWORKS = ("default", "host", "none", "sandbox")
LOCAL_DELETE = "buildx.local.delete"
"""The client's entitlement for local outputs with mode=delete outside the current directory."""
ENTITLEMENTS = ("network.host", "security.insecure", "device", LOCAL_DELETE)
HOST_GATEWAY = "host-gateway"
_PLATFORM = re.compile(r"[\w.-]+(\([\w.-]+\))?(/[\w.-]+){0,2}", re.ASCII)
_PROXIES = ("httpProxy", "httpsProxy", "noProxy", "ftpProxy", "allProxy")


class CheckedRequest(NamedTuple):
    """A checked request, with the values that the check parsed.

    Attributes:
        request: With credentials of caches, without caches that lack them, and with the inline
            export that a build argument selects.
        hosts: add_hosts as names and IP addresses, or HOST_GATEWAY in place of an address.
        engine_exporters: The exporters on dockerd.
    """

    request: BuildRequest
    hosts: Pairs
    engine_exporters: tuple[Exporter, ...]

    def exporters(self, *, is_engine: bool) -> tuple[Exporter, ...]:
        """Return the exporters on dockerd or on a buildkitd. Raise UsageError."""
        return self.engine_exporters if is_engine else make_exporters(self.request, is_engine=False)

    @property
    def entitlements(self) -> tuple[str, ...]:
        """The permissions that the daemon is asked for; network=host implies one."""
        words = self.request.allow
        if self.request.network == "host":
            words = (*words, "network.host")
        return tuple(word for word in dict.fromkeys(words) if word != LOCAL_DELETE)

    @property
    def image_store_need(self) -> str:
        """The first feature that dockerd only has with its containerd image store, or ""."""
        request = self.request
        for export in request.cache_to:
            if export.kind != "inline":
                return f"cache export type={export.kind}"
        for exporter in self.engine_exporters:
            if is_true(dict(exporter.attrs).get("push", "")):
                return "a push to a registry"
            if exporter.kind in ("oci", "docker", "image"):
                return f"output type={exporter.kind}"
        if len(request.platforms) > 1:
            return "several platforms"
        return next((f"attestation type={kind}" for kind, _ in request.attests), "")


def check_request(
    request: BuildRequest, environ: Mapping[str, str] | None = None
) -> CheckedRequest:
    """Check and complete a request whose values are checked. Raise UsageError.

    GitHub's caches without credentials are left out with a warning, as in buildx.

    Args:
        environ: The variables for credentials of GitHub's and Amazon's caches.
    """
    request = _complete_caches(request, environ)
    if request.network not in NETWORKS:
        raise UsageError(
            f"network mode {quote_go(request.network)} not supported by buildkit",
            hints=hints_for(request.network, NETWORKS),
        )
    for platform in request.platforms:
        if not _PLATFORM.fullmatch(platform):
            raise UsageError(
                f"invalid platform {quote_go(platform)}", hints=("use linux/amd64, for example",)
            )
    hosts = tuple(map(_parse_host, request.add_hosts))
    for word in request.allow:
        key, equals, _ = word.partition("=")
        if key == LOCAL_DELETE and equals:
            raise UsageError(f"{key} does not accept a value", hints=(f"write {key} alone",))
        if key not in ENTITLEMENTS or (equals and key != "device"):
            raise UsageError(f"unknown entitlement {word}", hints=hints_for(word, ENTITLEMENTS))
    _check_duplicates(request.cache_to)
    return CheckedRequest(request, hosts, make_exporters(request, is_engine=True))


def _complete_caches(request: BuildRequest, environ: Mapping[str, str] | None) -> BuildRequest:
    exports = [complete_cache(entry, environ or {}) for entry in request.cache_to]
    imports = [complete_cache(entry, environ or {}) for entry in request.cache_from]
    entries: list[CacheExport | CacheImport] = [*exports, *imports]
    warnings = [
        left_out_warning(entry, has_environ=environ is not None)
        for entry in entries
        if not entry.is_active
    ]
    exports = [entry for entry in exports if entry.is_active]
    inline = CacheExport("inline")
    is_inline = is_true(dict(request.build_args).get("BUILDKIT_INLINE_CACHE", ""))
    if is_inline and inline not in exports:
        exports.append(inline)
    return request._replace(
        cache_to=tuple(exports),
        cache_from=tuple(entry for entry in imports if entry.is_active),
        warnings=(*request.warnings, *warnings),
    )


def _parse_host(text: str) -> tuple[str, str]:
    """Return name and address of NAME:IP or NAME=IP."""
    name, equals, address = text.partition("=")
    if not equals:
        name, _, address = text.partition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        is_valid = address == HOST_GATEWAY or ("%" not in address and bool(ip_address(address)))
    except ValueError:
        is_valid = False
    if not name or not is_valid:
        raise UsageError(f"invalid host {text}", hints=("write NAME:IP",))
    return name, address


def _check_duplicates(exports: Iterable[CacheExport]) -> None:
    """Raise UsageError for a repeated export. Local exports may share a directory."""
    seen: set[object] = set()
    for export in exports:
        attrs = dict(export.attrs)
        target = attrs.get("ref") if export.kind == "registry" else frozenset(attrs.items())
        if (export.kind, target) in seen and export.kind != "local":
            raise UsageError(f"duplicate cache exports [{export.kind}]")
        seen.add((export.kind, target))


def frontend_attrs(
    checked: CheckedRequest,
    inputs: Inputs,
    *,
    is_engine: bool,
    cache_imports: Iterable[CacheEntry] = (),
    host_gateway: str = "",
    proxies: Pairs = (),
) -> dict[str, str]:
    """Return the attributes for dockerfile.v0. Raise UsageError if the gateway is unknown.

    Args:
        is_engine: True for dockerd, which prefers the images that it has.
        cache_imports: Each local import with a digest; the daemon reads no other cache.
        host_gateway: The IP address that replaces HOST_GATEWAY, "" if unknown.
        proxies: Build arguments that the request's own override.
    """
    request = checked.request
    attrs = dict(inputs.attrs)
    attrs |= {f"build-arg:{key}": value for key, value in (*proxies, *request.build_args)}
    attrs |= {f"label:{key}": value for key, value in request.labels}
    attrs |= {f"attest:{kind}": value for kind, value in request.attests}
    is_multi = is_true(dict(request.build_args).get("BUILDKIT_MULTI_PLATFORM", ""))
    options = {
        "target": request.target,
        "platform": ",".join(request.platforms),
        "multi-platform": "true" if is_multi else "",
        "no-cache": ",".join(request.no_cache_filter),
        "image-resolve-mode": "pull" if request.pull else "local" if is_engine else "",
        "force-network-mode": "" if request.network == "default" else request.network,
        "shm-size": str(request.shm_size) if request.shm_size else "",
        "ulimit": ",".join(request.ulimits),
        "add-hosts": ",".join(_hosts_attr(checked.hosts, host_gateway)),
    }
    attrs |= {key: value for key, value in options.items() if value}
    if request.no_cache:
        attrs["no-cache"] = ""
    if entries := [{"Type": kind, "Attrs": dict(values)} for kind, values in cache_imports]:
        attrs["cache-imports"] = json.dumps(entries, separators=(",", ":"))
    return attrs


def _hosts_attr(hosts: Pairs, gateway: str) -> Iterable[str]:
    for name, address in hosts:
        if address == HOST_GATEWAY and not gateway:
            raise UsageError(
                f"{name}:{address}: unable to derive the IP value for host-gateway",
                hints=(f"write the address: {name}:172.17.0.1",),
            )
        yield f"{name}={gateway if address == HOST_GATEWAY else address}"


def read_proxies(directory: str, host: str) -> Pairs:
    """Return the proxies in docker's config.json as build arguments, in upper and lower case.

    Args:
        directory: Docker's configuration directory.
        host: The daemon's address, which may have its own proxies there.
    """
    try:
        config = read_object(os.path.join(directory, CONFIG_FILE)) or {}
    except ValueError:  # DockerConfig reports it when the daemon asks for a login
        return ()
    proxies = config.get("proxies")
    values = proxies.get(host, proxies.get("default")) if isinstance(proxies, dict) else None
    if not isinstance(values, dict):
        return ()
    args = []
    for key in _PROXIES:
        value = values.get(key)
        if isinstance(value, str) and value:
            name = key.replace("Proxy", "_proxy")
            args += [(name.upper(), value), (name, value)]
    return tuple(args)
