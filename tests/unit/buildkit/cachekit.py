"""Builds that export to local caches, without a daemon: shared by the tests of these rooms."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import kitcache
from kitcache.buildkit.caches import Caches
from kitcache.buildkit.caches import open_caches as open_all
from kitcache.buildkit.publish import CacheResult
from kitcache.gc.control import OnProgress, Warn
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.options.caches import CacheExport, CacheImport
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.upkeep.jobcaches import LockOptions
from tests.unit.buildkit.session.exporter import Daemon, Exported, make_cache, serving

CACHE = make_cache([b"layer one" * 50, b"layer two" * 50])
OTHER = make_cache([b"layer two" * 50, b"layer three" * 50])


def local(dest: Path, tag: str = "latest", *, reset: bool = False, **sent: str) -> CacheExport:
    return CacheExport("local", tuple(sent.items()), str(dest), tag, reset)


def open_caches(
    exports: Sequence[CacheExport],
    imports: Sequence[CacheImport],
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
    warn: Warn = lambda _: None,
    policy: PrunePolicy | None = None,
) -> AbstractContextManager[Caches]:
    """Open the caches of a build that has opened no other directory."""
    options = LockOptions(lock_timeout_s, on_progress, warn, cancel)
    return open_all(exports, imports, options, policy)


def send(caches: Caches, *exported: Exported | None) -> None:
    """Each export's blobs, in the order of the Solve's entries; None: nothing to export."""
    with serving(caches.stores) as channel:
        for (_, attrs), cache in zip(caches.export_entries, exported, strict=True):
            if cache is not None:
                Daemon(channel, "local:" + attrs["dest"]).export(cache)


def run(
    exports: Sequence[CacheExport], *exported: Exported | None, **terms: Any
) -> list[CacheResult]:
    with open_caches(exports, (), **terms) as caches:
        send(caches, *exported)
        return list(caches.publish())


def tags(root: Path) -> dict[str | None, str]:
    return {tag.ref_name: str(tag.digest) for tag in kitcache.ls(root).tags}


def blobs(root: Path) -> set[str]:
    return {f"sha256:{name}" for name in os.listdir(root / "blobs" / "sha256")}


@contextmanager
def locked(root: Path, operation: int) -> Iterator[None]:
    with (root / "kitcache.lock").open("a") as file:
        fcntl.flock(file, operation)
        yield
