"""One daemon over time: a new connection where the last one was lost, none after a fork."""

import os
import threading

from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.daemon.connect import Connection, connect
from kitcache.errors import NoDaemon


class Reconnector:
    """The connections to one daemon. Raises NoDaemon where the first one cannot be made.

    They belong to the process that made them. A child after fork may close this object, which
    sends nothing; everything else raises NoDaemon there.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._pid = os.getpid()
        self._connecting = threading.Lock()
        self._is_closed = False
        self._connections = [connect(address, timeout_s=timeout_s)]

    @property
    def last(self) -> Connection:
        """The newest connection, alive or not."""
        return self._connections[-1]

    def connection(self) -> Connection:
        """A connection that takes calls: the newest, or a new one. Raises NoDaemon."""
        self.check()
        with self._connecting:
            if not self.last.channel.is_alive and not self._is_closed:
                made = connect(self._address, timeout_s=self._timeout_s)
                # Builds may still run on one whose daemon is going away.
                running = [one for one in self._connections if one.channel.failure is None]
                self._connections = [*running, made]
            if self._is_closed:
                self.last.close()
            self.check()
            return self.last

    def check(self) -> None:
        """Raises NoDaemon after `close`, and in a child after fork."""
        check_process(self._pid, self._address)
        if self._is_closed:
            raise NoDaemon(self._address.url, "this client is closed", kind="closed")

    def close(self) -> None:
        """End all connections. Idempotent, and in a child after fork without effect on them."""
        self._is_closed = True
        if os.getpid() == self._pid:
            for connection in self._connections:
                connection.close()


def check_process(pid: int, address: Address) -> None:
    """Raises NoDaemon where this is not the process that made the client, but its child."""
    if os.getpid() != pid:
        raise NoDaemon(
            address.url,
            f"this client belongs to process {pid}, and this is its child after fork",
            kind="forked",
            next_steps=("make a client in the child",),
        )
