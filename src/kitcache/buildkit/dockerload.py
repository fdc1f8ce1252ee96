"""An image archive on its way into a docker engine, through docker's own client.

For a buildkitd, which has no images: what it exports is piped into `docker load`, as buildx does.
"""

from types import TracebackType
from typing import BinaryIO, Self, cast

from kitcache.errors import KitcacheError, NoDaemon

_COMMAND = ("docker", "load", "--quiet")
_ASK_STORE = ("docker", "info", "--format", "{{json .DriverStatus}}")
_CONTAINERD = "io.containerd.snapshotter.v1"
_ANSWER_TIMEOUT_S = 10.0


class DockerLoad:
    """A `docker load` that waits for an archive. A context manager that ends it, however it went.

    Raises NoDaemon where there is no docker command.
    """

    def __init__(self) -> None:
        import subprocess  # noqa: PLC0415 - few builds load an image, and it costs time

        try:
            self._child = subprocess.Popen(  # noqa: S603 - the docker that the user has
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is ours to pass on, by closing the pipe
            )
        except OSError as error:
            raise NoDaemon(
                "docker load",
                f"the image cannot be loaded: docker does not run: {error.strerror}",
                hints=("use --output type=docker,dest=FILE, or --push",),
            ) from None

    @property
    def stdin(self) -> BinaryIO:
        """Where the archive goes."""
        return cast("BinaryIO", self._child.stdin)

    def finish(self) -> None:
        """The archive is whole: wait until it is loaded. Raises KitcacheError."""
        _, said = self._child.communicate()
        if self._child.returncode:
            lines = said.decode("utf-8", "replace").strip().splitlines()
            raise KitcacheError(
                "docker load",
                f"the image was built, and docker did not load it: {''.join(lines[-1:])}",
                effect="caches were not published",
                hints=("use --output type=docker,dest=FILE, or --push",),
            )

    def has_containerd_store(self) -> bool:
        """Return True if that engine says that it has the containerd image store."""
        import subprocess  # noqa: PLC0415 - few builds load an image, and it costs time

        try:
            answer = subprocess.run(  # noqa: S603 - the docker that the user has
                _ASK_STORE,
                check=False,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=_ANSWER_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return _CONTAINERD in answer.stdout.decode("utf-8", "replace")

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
