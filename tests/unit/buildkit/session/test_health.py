"""The daemon drops a session that does not say that it is well."""

from kitcache.buildkit.session.health import CHECK, health_handlers
from tests.unit.buildkit.calls import served


def test_all_is_well_whatever_service_is_asked_for() -> None:
    with served(health_handlers()) as channel:
        for request in (b"", b"\x0a\x03abc"):
            assert channel.unary(CHECK, request, timeout_s=20) == b"\x08\x01"
