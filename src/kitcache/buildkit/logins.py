"""The logins of one build: who got one, and what the caller's function raised."""

from collections.abc import Callable

from kitcache.buildkit.log import LOG
from kitcache.buildkit.session.registry import Credentials
from kitcache.errors import Cancelled


class Logins:
    """A caller's function for logins, watched.

    Attributes:
        given: the hosts whose login was sent to the daemon.
        failure: the first exception of the caller's function, or None.

    """

    def __init__(
        self,
        credentials: Callable[[str], Credentials | None],
        notice: Callable[[str], None],
        ref: str,
    ) -> None:
        self.given: set[str] = set()
        self.failure: Exception | None = None
        self._credentials = credentials
        self._notice = notice
        self._ref = ref

    def find(self, host: str) -> Credentials | None:
        """Return the caller's login, and remember what the caller's function raises."""
        try:
            login: object = self._credentials(host)
            if login is None or isinstance(login, Credentials):
                answer = "none" if login is None else "sent"
                LOG.debug("build %s: login for %s: %s", self._ref, host, answer)
                return login
            kind = type(login).__name__
            raise TypeError(f"credentials returned a value of type {kind}, not Credentials")
        except Cancelled:
            raise
        except Exception as error:
            self.failure = self.failure or error
            self._notice(f"no login for {host}: credentials raised {type(error).__name__}")
            raise
