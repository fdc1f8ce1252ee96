"""The logger "kitcache": what is sent where, at DEBUG, and never a secret."""

import logging
from collections.abc import Mapping

from kitcache.buildkit.wire.rpc import Handler, Stream

LOG = logging.getLogger("kitcache")


def quiet_hpack() -> None:
    """Keep hpack from a line for every header of every call, unless the caller asked for it."""
    logger = logging.getLogger("hpack")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)


def log_calls(handlers: Mapping[str, Handler], ref: str) -> dict[str, Handler]:
    """Return the handlers, each of whose calls is logged by its name."""
    return {name: _logged(name, handler, ref) for name, handler in handlers.items()}


def _logged(name: str, handler: Handler, ref: str) -> Handler:
    def handle(stream: Stream) -> None:
        LOG.debug("build %s: the daemon calls %s", ref, name)
        handler(stream)

    return handle


quiet_hpack()
