"""The logins of one build: who asked, who got one."""

import pytest

from kitcache.buildkit.logins import Logins
from kitcache.buildkit.session.registry import Credentials


def test_hosts_that_ask_and_hosts_that_get_a_login_are_remembered() -> None:
    logins = Logins({"reg": Credentials("me", "x")}.get, print, "ref")
    for host in ("reg", "other"):
        logins.find(host)
    assert logins.asked == {"reg", "other"}
    assert logins.sent == {"reg"}


def test_a_host_whose_login_fails_has_asked() -> None:
    notices: list[str] = []

    def fail(host: str) -> Credentials | None:
        raise LookupError(host)

    logins = Logins(fail, notices.append, "ref")
    with pytest.raises(LookupError):
        logins.find("reg")
    assert (logins.asked, logins.sent) == ({"reg"}, set())
    assert isinstance(logins.failure, LookupError)
    assert notices == ["no login for reg: credentials raised LookupError"]
