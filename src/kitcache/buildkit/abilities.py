"""The features of the daemon of a build, checked before anything is built."""

import re
from functools import cached_property

from kitcache.buildkit.daemon.connect import DaemonConnection
from kitcache.buildkit.daemoninfo import Worker, read_info, read_workers
from kitcache.buildkit.exporters import Exporter
from kitcache.buildkit.request import HOST_GATEWAY, CheckedRequest
from kitcache.buildkit.session.outputs import MIRRORS_SINCE
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.errors import NoDaemon

_GATEWAY = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"


class Abilities:
    """The features of one daemon. Its workers are requested at most once."""

    def __init__(self, connection: DaemonConnection) -> None:
        self._connection = connection

    def check(self, checked: CheckedRequest, exporters: tuple[Exporter, ...]) -> None:
        """Raise NoDaemon if the daemon lacks a feature that the request needs."""
        need = checked.image_store_need if self._connection.is_engine else ""
        if need and not self._has_containerd_store:
            raise self._unsupported(
                f"this docker engine cannot do {need}: its containerd image store is off",
                'put "features": {"containerd-snapshotter": true} into daemon.json, and'
                " restart docker",
                "create a builder and use it: docker buildx create --driver docker-container"
                " --name kit --bootstrap",
            )
        if any(exporter.receives == "mirror" for exporter in exporters):
            self._check_mirrors()

    def has_containerd_images(self, exporters: tuple[Exporter, ...]) -> bool:
        """Return True if the image is stored in this engine's containerd image store."""
        is_in_engine = any(exporter.kind == "moby" for exporter in exporters)
        return is_in_engine and self._has_containerd_store

    def host_gateway(self, checked: CheckedRequest) -> str:
        """Return the IP address of host-gateway if a host needs it and the daemon reports it."""
        if not any(address == HOST_GATEWAY for _, address in checked.hosts):
            return ""
        labels = [worker.labels.get(_GATEWAY, "") for worker in self._workers]
        return next((label for label in labels if label and label != "<nil>"), "")

    @cached_property
    def _workers(self) -> tuple[Worker, ...]:
        try:
            return read_workers(self._connection.channel)
        except RpcError as error:
            raise self._connection.unanswered(error) from None

    @property
    def _has_containerd_store(self) -> bool:
        return any(worker.exports_local_caches for worker in self._workers)

    def _check_mirrors(self) -> None:
        """Raise NoDaemon for a BuildKit whose version is too low for mode=delete.

        If a daemon reports no version, session/outputs.py detects this when the output arrives.
        """
        try:
            version = read_info(self._connection.channel).version
        except RpcError as error:
            raise self._connection.unanswered(error) from None
        match = re.match(r"v?(\d+)\.(\d+)", version)
        if match and (0, 0) < (int(match[1]), int(match[2])) < MIRRORS_SINCE:
            since = ".".join(map(str, MIRRORS_SINCE))
            raise self._unsupported(
                f"its BuildKit is {version}, and mode=delete requires {since}",
                "leave out mode=delete, and empty the directory first",
            )

    def _unsupported(self, problem: str, *hints: str) -> NoDaemon:
        return NoDaemon(self._connection.address.url, problem, kind="unsupported", hints=hints)
