"""Connects to one daemon again after a lost connection, and refuses after a fork."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.daemon.connect import DaemonConnection, connect
from kitcache.errors import NoDaemon


class Reconnector:
    """The connections to one daemon. Raises NoDaemon if the first one fails.

    They belong to the process that made them. In a child after fork, close sends nothing, and every
    other call raises NoDaemon.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._pid = os.getpid()
        self._connecting = threading.Lock()
        self._is_closed = False
        self._connections = [connect(address, timeout_s=timeout_s)]
        self._counting = threading.Lock()
        self._users: Counter[DaemonConnection] = Counter()

    @property
    def last(self) -> DaemonConnection:
        """The newest connection, alive or not."""
        return self._connections[-1]

    @contextmanager
    def connection(self) -> Iterator[DaemonConnection]:
        """Yield a connection that accepts calls while the block runs. Raises NoDaemon."""
        self.check()
        with self._connecting:
            if not self.last.channel.is_alive and not self._is_closed:
                self._replace()
            if self._is_closed:
                self.last.close()
            self.check()
            connection = self.last
            with self._counting:
                self._users[connection] += 1
        try:
            yield connection
        finally:
            with self._counting:
                self._users[connection] -= 1

    def _replace(self) -> None:
        """Connect again. Calls that still run on a daemon that goes away keep their connection."""
        connection = connect(self._address, timeout_s=self._timeout_s)
        with self._counting:
            self._users = +self._users
            unused = [other for other in self._connections if other not in self._users]
            self._connections = [*self._users, connection]
        for other in unused:
            other.close()

    def check(self) -> None:
        """Raise NoDaemon after `close` and in a child after fork."""
        check_process(self._pid, self._address)
        if self._is_closed:
            raise NoDaemon(self._address.url, "this client is closed", kind="closed")

    def close(self) -> None:
        """Close all connections. Idempotent; in a child after fork they are not changed."""
        self._is_closed = True
        if os.getpid() == self._pid:
            for connection in self._connections:
                connection.close()


def check_process(pid: int, address: Address) -> None:
    """Raise NoDaemon if this process is not the one that made the client."""
    if os.getpid() != pid:
        raise NoDaemon(
            address.url,
            f"this client belongs to process {pid}, and this process is its child after fork",
            kind="forked",
            hints=("make a client in the child",),
        )
