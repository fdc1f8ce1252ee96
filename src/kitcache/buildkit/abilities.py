"""What the daemon of a build can do, asked before anything is built."""

import re
from functools import cached_property

from kitcache.buildkit.daemon.connect import DaemonConnection
from kitcache.buildkit.daemoninfo import Worker, read_info, read_workers
from kitcache.buildkit.exporters import Exporter
from kitcache.buildkit.request import needs_image_store
from kitcache.buildkit.session.outputs import MIRRORS_SINCE
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.errors import NoDaemon
from kitcache.options.build import BuildRequest

_GATEWAY = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"


class Abilities:
    """A daemon's, each asked once."""

    def __init__(self, connection: DaemonConnection) -> None:
        self._connection = connection

    def check(self, request: BuildRequest, exporters: tuple[Exporter, ...]) -> None:
        """Raises NoDaemon for a daemon that lacks what the request needs."""
        needs = needs_image_store(request) if self._connection.is_engine else ()
        if needs and not self._has_containerd_store:
            raise self._unsupported(
                f"this docker engine cannot do {needs[0]}: its containerd image store is off",
                'put "features": {"containerd-snapshotter": true} into daemon.json, and'
                " restart docker",
                "use a builder of its own: docker buildx create --driver docker-container"
                " --name kit --bootstrap, then --builder kit",
            )
        if any(exporter.receives == "mirror" for exporter in exporters):
            self._check_mirrors()

    def has_containerd_images(self, exporters: tuple[Exporter, ...]) -> bool:
        """Return True if the image comes into the containerd image store of this engine."""
        is_in_engine = any(exporter.kind == "moby" for exporter in exporters)
        return is_in_engine and self._has_containerd_store

    def host_gateway(self, request: BuildRequest) -> str:
        """What --add-host NAME:host-gateway means there; "" where the daemon does not tell."""
        if not any(host.endswith("host-gateway") for host in request.add_hosts):
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
        """Raises NoDaemon for a BuildKit that says it is too old for mode=delete.

        What says nothing is found out when it sends the output: session/outputs.py.
        """
        try:
            version = read_info(self._connection.channel).version
        except RpcError as error:
            raise self._connection.unanswered(error) from None
        found = re.match(r"v?(\d+)\.(\d+)", version)
        if found and (0, 0) < (int(found[1]), int(found[2])) < MIRRORS_SINCE:
            since = ".".join(map(str, MIRRORS_SINCE))
            raise self._unsupported(
                f"its BuildKit is {version}, and mode=delete requires {since}",
                "leave out mode=delete, and empty the directory first",
            )

    def _unsupported(self, problem: str, *hints: str) -> NoDaemon:
        url = self._connection.address.url
        return NoDaemon(url, problem, kind="unsupported", hints=hints)
