"""BuildOptions: callbacks, time limit and cancelling of a build."""

from collections.abc import Callable
from threading import Event
from typing import BinaryIO, NamedTuple

from kitcache.buildkit.session.registry import Credentials
from kitcache.buildkit.status import OnUpdate
from kitcache.gc.control import OnProgress
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.options.attributes import Pairs
from kitcache.options.prunepolicy import PrunePolicy


def _no_login(_host: str) -> Credentials | None:
    return None


def _ignore(_value: object) -> None:
    pass


class BuildOptions(NamedTuple):
    """The options of a build that are not in its request.

    Attributes:
        on_update: Called with each BuildUpdate.
        on_notice: Called with a sentence for each probable mistake.
        on_progress: Called while waiting for locks, and during resets.
        cancel: Set it to cancel the build.
        credentials: Returns the login for a registry's host.
        stdin: The stream that "-" reads.
        stdout: The stream that dest "-" writes to.
        proxy_args: Build arguments that the request's own override.
        prune_policy: Selects the tags to remove from every local cache that is exported to;
            implies a reset.
        timeout_s: After this many seconds the build is cancelled.
    """

    on_update: OnUpdate = _ignore
    on_notice: Callable[[str], object] = _ignore
    on_progress: OnProgress | None = None
    cancel: Event | None = None
    credentials: Callable[[str], Credentials | None] = _no_login
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None
    proxy_args: Pairs = ()
    lock_timeout_s: float = LOCK_TIMEOUT_S
    prune_policy: PrunePolicy | None = None
    timeout_s: float | None = None
