"""The private dockerd of the build rows: that of the integration tests."""

from typing import Self

from bench.clock import Missing
from tests.integration.daemon import Daemon, DaemonError, NoDaemonError


class LazyDaemon:
    """One daemon for all rows, started by the first row that needs it."""

    def __init__(self) -> None:
        self._daemon: Daemon | None = None
        self._problem = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def get(self) -> Daemon:
        """Start the daemon. Raises Missing if none can run."""
        if self._daemon is None and not self._problem:
            try:
                self._daemon = Daemon().__enter__()
                self._daemon.try_step()
            except (NoDaemonError, DaemonError) as error:
                self.stop()
                self._problem = str(error).splitlines()[0]
        if self._daemon is None:
            raise Missing(self._problem)
        return self._daemon

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None
