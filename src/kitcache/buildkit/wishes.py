"""Wishes: callbacks, time limit and cancelling of a build."""

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


def _nothing(_news: object) -> None:
    """Ignore what is reported."""


class BuildOptions(NamedTuple):
    """What a build needs besides its request: callbacks, a time limit, an event that cancels it.

    on_update: news of its steps. on_notice: a sentence about what seems wrong. on_progress: waits
    for locks, and resets. credentials: the login for a registry's host. stdin, stdout: what "-"
    stands for. proxies: build arguments that the request's own go before. prune_policy: which tags
    go from every local cache that is exported to, with a reset. timeout_s: after so
    many seconds the build is cancelled.
    """

    on_update: OnUpdate = _nothing
    on_notice: Callable[[str], object] = _nothing
    on_progress: OnProgress | None = None
    cancel: Event | None = None
    credentials: Callable[[str], Credentials | None] = _no_login
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None
    proxy_args: Pairs = ()
    lock_timeout_s: float = LOCK_TIMEOUT_S
    prune_policy: PrunePolicy | None = None
    timeout_s: float | None = None
