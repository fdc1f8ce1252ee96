"""The logger "kitcache": logs the names of all sent values at DEBUG, without secrets."""

import logging
from collections.abc import Iterable, Mapping

from kitcache.buildkit.proto.control_pb2 import SolveRequest
from kitcache.buildkit.wire.rpc import Handler, Stream
from kitcache.masking import hide_password
from kitcache.options.secrets import Secret

LOG = logging.getLogger("kitcache")


def quiet_hpack() -> None:
    """Disable hpack's line for every header of every call, unless the caller enabled it."""
    logger = logging.getLogger("hpack")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)


def log_calls(handlers: Mapping[str, Handler], ref: str) -> dict[str, Handler]:
    """Return the handlers; each logs the name of its call."""
    return {name: _logged(name, handler, ref) for name, handler in handlers.items()}


def log_solve(
    message: SolveRequest, url: str, sources: Mapping[str, object], secrets: Iterable[Secret]
) -> None:
    """Log names and kinds only, because values of arguments and attributes can be secrets."""
    LOG.debug(
        "build %s on %s: sources %s; secrets %s; attributes %s; exporters %s; cache to %s,"
        " from %s; entitlements %s",
        message.ref,
        hide_password(url),
        {name: at if isinstance(at, str) else "memory" for name, at in sources.items()},
        [secret.id for secret in secrets],
        sorted(message.frontend_attrs),
        [exporter.type for exporter in message.exporters],
        [entry.type for entry in message.cache.exports],
        [entry.type for entry in message.cache.imports],
        list(message.entitlements),
    )


def _logged(name: str, handler: Handler, ref: str) -> Handler:
    def handle(stream: Stream) -> None:
        LOG.debug("build %s: the daemon calls %s", ref, name)
        handler(stream)

    return handle


quiet_hpack()
