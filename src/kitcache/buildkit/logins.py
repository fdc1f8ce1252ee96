"""The logins of one build: who asked for one, who got one, what the caller's function raised."""

from collections.abc import Callable

from kitcache.buildkit.log import LOG
from kitcache.buildkit.session.registry import Credentials
from kitcache.errors import Cancelled


class Logins:
    """A caller's function for logins, watched.

    Attributes:
        asked: the hosts for which the daemon has asked for a login.
        given: the hosts whose login was sent to the daemon.
        failure: the first exception of the caller's function, or None.

    """

    def __init__(
        self,
        credentials: Callable[[str], Credentials | None],
        notice: Callable[[str], None],
        ref: str,
    ) -> None:
        self.asked: set[str] = set()
        self.given: set[str] = set()
        self.failure: Exception | None = None
        self._credentials = credentials
        self._notice = notice
        self._ref = ref

    def find(self, host: str) -> Credentials | None:
        """Return the caller's login, and remember what the caller's function raises."""
        self.asked.add(host)
        try:
            login: object = self._credentials(host)
            if login is None:
                LOG.debug("build %s: login for %s: none", self._ref, host)
                return None
            if isinstance(login, Credentials):
                self.given.add(host)
                LOG.debug("build %s: login for %s: sent", self._ref, host)
                return login
            kind = type(login).__name__
            raise TypeError(f"credentials returned a value of type {kind}, not Credentials")
        except Cancelled:
            raise
        except Exception as error:
            self.failure = self.failure or error
            self._notice(f"no login for {host}: credentials raised {type(error).__name__}")
            raise
