"""Load an image archive into a docker engine with docker's own client.

A buildkitd has no image store, so its export is piped into `docker load`, as buildx does.
"""

from types import TracebackType
from typing import BinaryIO, Self, cast

from kitcache.errors import KitcacheError, NoDaemon

_COMMAND = ("docker", "load", "--quiet")
_INFO_COMMAND = ("docker", "info", "--format", "{{json .DriverStatus}}")
_CONTAINERD = "io.containerd.snapshotter.v1"
_INFO_TIMEOUT_S = 10.0


class DockerLoad:
    """A `docker load` that reads an archive. A context manager that ends the process.

    Raises NoDaemon if there is no docker command.
    """

    def __init__(self) -> None:
        import subprocess  # noqa: PLC0415 - few builds load an image, and it is slow to import

        try:
            self._child = subprocess.Popen(  # noqa: S603 - the user's own docker
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C must not reach it: closing the pipe ends it.
            )
        except OSError as error:
            raise NoDaemon(
                "docker load",
                f"the image cannot be loaded: docker cannot be started: {error.strerror}",
                hints=("use the output type=docker,dest=FILE, or push the image",),
            ) from None

    @property
    def stdin(self) -> BinaryIO:
        """The pipe for the archive."""
        return cast("BinaryIO", self._child.stdin)

    def finish(self) -> None:
        """Wait until the complete archive is loaded. Raise KitcacheError."""
        _, stderr = self._child.communicate()
        if self._child.returncode:
            lines = stderr.decode("utf-8", "replace").strip().splitlines()
            raise KitcacheError(
                "docker load",
                f"the image was built, but docker did not load it: {''.join(lines[-1:])}",
                effect="caches were not published",
                hints=("use the output type=docker,dest=FILE, or push the image",),
            )

    def has_containerd_store(self) -> bool:
        """Return True if the engine reports the containerd image store."""
        import subprocess  # noqa: PLC0415 - few builds load an image, and it is slow to import

        try:
            process = subprocess.run(  # noqa: S603 - the user's own docker
                _INFO_COMMAND,
                check=False,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=_INFO_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return _CONTAINERD in process.stdout.decode("utf-8", "replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.communicate()
