"""The logins of one build: requested hosts, sent logins, and errors of the caller's function."""

from collections.abc import Callable

from kitcache.buildkit.log import LOG
from kitcache.buildkit.session.registry import Credentials
from kitcache.errors import Cancelled


class Logins:
    """A caller's function for logins, with a record of its calls.

    Attributes:
        asked: Hosts for which the daemon has requested a login.
        sent: Hosts whose login was sent to the daemon.
        failure: The first exception of the caller's function, or None.
    """

    def __init__(
        self,
        credentials: Callable[[str], Credentials | None],
        notice: Callable[[str], None],
        ref: str,
    ) -> None:
        self.asked: set[str] = set()
        self.sent: set[str] = set()
        self.failure: Exception | None = None
        self._credentials = credentials
        self._notice = notice
        self._ref = ref

    def find(self, host: str) -> Credentials | None:
        """Return the caller's login for a host. Record and raise an exception of its function."""
        self.asked.add(host)
        try:
            login: object = self._credentials(host)
            if not isinstance(login, Credentials | None):
                kind = type(login).__name__
                raise TypeError(f"credentials returned a value of type {kind}, not Credentials")
        except Cancelled:
            raise
        except Exception as error:
            self.failure = self.failure or error
            self._notice(f"no login for {host}: credentials raised {type(error).__name__}")
            raise
        LOG.debug("build %s: login for %s: %s", self._ref, host, "sent" if login else "none")
        if login is not None:
            self.sent.add(host)
        return login
