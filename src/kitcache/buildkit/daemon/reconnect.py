"""One daemon over time: a new connection where the last one was lost, none after a fork."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.daemon.connect import DaemonConnection, connect
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
        self._counting = threading.Lock()
        self._users: Counter[DaemonConnection] = Counter()

    @property
    def last(self) -> DaemonConnection:
        """The newest connection, alive or not."""
        return self._connections[-1]

    @contextmanager
    def connection(self) -> Iterator[DaemonConnection]:
        """A connection that takes calls, for as long as the block runs. Raises NoDaemon."""
        made = self._take()
        try:
            yield made
        finally:
            with self._counting:
                self._users[made] -= 1

    def _take(self) -> DaemonConnection:
        self.check()
        with self._connecting:
            if not self.last.channel.is_alive and not self._is_closed:
                self._replace()
            if self._is_closed:
                self.last.close()
            self.check()
            with self._counting:
                self._users[self.last] += 1
            return self.last

    def _replace(self) -> None:
        """Connect anew. What still runs on a daemon that is going away keeps its connection."""
        made = connect(self._address, timeout_s=self._timeout_s)
        with self._counting:
            self._users = +self._users
            unused = [one for one in self._connections if one not in self._users]
            self._connections = [*self._users, made]
        for one in unused:
            one.close()

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
            hints=("make a client in the child",),
        )
