"""The caches of one job (a build, or a command of `kitcache exec`): open, lock, sweep afterwards.

A directory that the job names by several paths is opened and locked once. A cache in an object
store has no lock, so it is opened after the export, for the sweep.
"""

from collections.abc import Collection, Iterable
from contextlib import ExitStack
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

from kitcache.errors import (
    Busy,
    Cancelled,
    Damaged,
    KitcacheError,
    NotACache,
    Unsafe,
    UsageError,
)
from kitcache.gc.control import Control, OnProgress, Warn
from kitcache.gc.reset import refused_result, reset_after_export
from kitcache.gc.values import ResetResult
from kitcache.options.attributes import join_attributes
from kitcache.options.caches import CacheExport
from kitcache.store.create import check_writable, make_index, make_layout
from kitcache.store.directory import DirectoryStore
from kitcache.store.ioerrors import describe_unlocked
from kitcache.store.open import open_directory, open_store, real_address
from kitcache.store.protocol import CacheStore, EditableStore
from kitcache.store.values import WaitPolicy

if TYPE_CHECKING:
    from kitcache.options.objectcaches import ObjectCache
    from kitcache.options.prunepolicy import PrunePolicy
    from kitcache.store.ingest import Ingester
    from kitcache.upkeep.results import PruneResult


class LockOptions(NamedTuple):
    """How a job waits for the locks of its caches, reports and stops."""

    lock_timeout_s: float
    on_progress: OnProgress | None
    warn: Warn
    cancel: Event | None = None

    def control(self, store: CacheStore) -> Control:
        """Return the control for calls about one cache."""
        return Control(store.path, self.on_progress, self.cancel)

    def wait_policy(self, store: DirectoryStore) -> WaitPolicy:
        """Return the wait policy for a lock of one directory."""
        return self.control(store).wait_policy(self.lock_timeout_s)


class ObjectTarget(NamedTuple):
    """A cache in an object store that a job exports to, and sweeps afterwards.

    Attributes:
        cache: With the credentials of the first export, and the longest touch_refresh of all.
        names: The names that the exports write.
    """

    cache: "ObjectCache"
    names: tuple[str, ...]

    @property
    def path(self) -> str:
        """The short form of the address, without secrets."""
        return self.cache.address


class LockedCache:
    """An open cache of a job, and its shared lock.

    Attributes:
        lock_fds: The lock's fd, for a child process to inherit. Empty if the lock is not held.
        had_index: False if index.json was missing next to blobs when the job began.
        published: The tags that the job has published. A sweep removes none of them.
    """

    def __init__(self, store: DirectoryStore, real_path: str) -> None:
        self.store = store
        self.real_path = real_path
        self.lock_fds: list[int] = []
        self.had_index = True
        self.published: set[str] = set()
        self._lock = ExitStack()
        self._ingester: Ingester | None = None

    def lock(self, wait_policy: WaitPolicy) -> None:
        """Acquire the shared kitcache.lock. Raises Busy, Cancelled, Unsafe, KitcacheError."""
        held = self._lock.enter_context(self.store.lock("shared", wait_policy))
        self._lock.callback(self.store.release, held)
        self.lock_fds.append(held.fd)

    def release_lock(self) -> None:
        """Release the shared lock, even if another process has inherited its fd."""
        self.lock_fds.clear()
        self._lock.close()

    @property
    def ingester(self) -> "Ingester":
        """The ingester for blobs of this process. Raises ValueError without open_upload."""
        if self._ingester is None:
            raise ValueError("this cache was not opened for an upload")
        return self._ingester

    def prepare_upload(self, options: LockOptions, stack: ExitStack) -> None:
        """Check that the cache can be written, and open its ingester; once per cache.

        Raises:
            Damaged, KitcacheError: See LockedCaches.open_upload.
        """
        if self._ingester is not None:
            return
        from kitcache.store.ingest import Ingester  # noqa: PLC0415 - exec does not need it

        store = self.store
        make_index(store, options.wait_policy(store))
        try:
            roots = store.read_roots(options.control(store).pause)
        except Damaged as error:
            error.effect = "nothing was built, and nothing was changed"
            raise
        store.open_directories()
        check_writable(store)
        self.had_index = roots.data is not None
        self._ingester = Ingester(store)
        stack.callback(self._ingester.close)


class LockedCaches:
    """All caches of a job. Closing the stack closes them and releases their locks.

    Args:
        effect: The effect of an error of this job, such as "nothing was built".
    """

    def __init__(self, options: LockOptions, stack: ExitStack, effect: str) -> None:
        self._options = options
        self._stack = stack
        self._effect = effect
        self.all: list[LockedCache] = []

    def open_export(self, path: str) -> LockedCache:
        """Open a cache for an export; create the directory if it does not exist.

        The caller opens all exports before the first import.

        Raises:
            NotACache, Unsafe, Busy, Cancelled, KitcacheError: See make_layout and lock().
        """
        try:
            store = make_layout(path)
        except NotACache as error:
            error.effect = self._effect
            error.hints = ("name a cache, an empty directory, or a path that does not exist",)
            raise
        return self._open(store, is_export=True)

    def open_upload(self, path: str) -> LockedCache:
        """Open a cache for an export by this process, and check that it can be written.

        Raises:
            Damaged: index.json is invalid or ambiguous.
            KitcacheError: As open_export; also if the disk is full or read-only.
        """
        cache = self.open_export(path)
        cache.prepare_upload(self._options, self._stack)
        return cache

    def open_import(self, path: str) -> LockedCache:
        """Open a cache for an import; create nothing. Raises Busy, Cancelled; as open_directory."""
        return self._open(open_directory(path), is_export=False)

    def _open(self, store: DirectoryStore, *, is_export: bool) -> LockedCache:
        self._stack.enter_context(store)
        for cache in self.all:
            if cache.store.identity() == store.identity():
                return cache
        cache = LockedCache(store, real_address(store.path))
        self._stack.callback(cache.release_lock)
        try:
            cache.lock(self._options.wait_policy(store))
        except KitcacheError as error:
            if isinstance(error, (Busy, Cancelled)) or (is_export and isinstance(error, Unsafe)):
                error.effect = self._effect
                raise
            self._options.warn(describe_unlocked(store.path, error))
        self.all.append(cache)
        return cache


def sweep_after_export(
    cache: LockedCache, policy: "PrunePolicy | None", options: LockOptions
) -> "tuple[ResetResult, PruneResult | None]":
    """Release the shared lock of a cache, then reset it, or prune it if there is a policy.

    Never raises a KitcacheError: the result states what stopped the sweep.
    """
    if not cache.had_index:
        reason = "index.json was missing but blobs/ was not empty, so other tags are unknown"
        return refused_result(cache.store.path, reason), None
    cache.release_lock()
    return _sweep(cache.store, cache.published, policy, options)


def object_target(export: CacheExport) -> ObjectTarget:
    """Return the cache in an object store that an export names.

    The attributes must name it completely: the daemon's environment is not known here. `name` is
    not a part of its address.

    Raises:
        UsageError: They do not, or BuildKit would refuse them.
    """
    from kitcache.options.objectcaches import parse_object_cache  # noqa: PLC0415 - rarely needed

    attrs = {"type": export.kind, **dict(export.attrs)}
    attrs.pop("name", None)
    text = join_attributes(attrs.items())
    cache = parse_object_cache(text, {})
    if cache is None:
        raise UsageError(f"type={export.kind} is not a cache in an object store")
    return ObjectTarget(cache, export.names)


def merge_targets(targets: Iterable[ObjectTarget]) -> tuple[ObjectTarget, ...]:
    """Return each cache once, with all names."""
    merged: dict[tuple[object, ...], ObjectTarget] = {}
    for target in targets:
        cache = target.cache
        key = cache.kind, cache.bucket, cache.endpoint_url, cache.blobs_key, cache.manifests_keys
        known = merged.setdefault(key, target)
        longest_ns = max(known.cache.touch_refresh_ns, cache.touch_refresh_ns)
        merged[key] = ObjectTarget(
            known.cache._replace(touch_refresh_ns=longest_ns),
            tuple(dict.fromkeys((*known.names, *target.names))),
        )
    return tuple(merged.values())


def sweep_objects_after_export(
    target: ObjectTarget, policy: "PrunePolicy | None", options: LockOptions
) -> "tuple[ResetResult, PruneResult | None]":
    """Open a cache in an object store, then sweep it as sweep_after_export does.

    Never raises a KitcacheError.
    """
    try:
        with open_store(target.cache) as store:
            return _sweep(store, target.names, policy, options)
    except KitcacheError as error:
        reason = "; ".join((error.problem, *error.hints[:1]))
        return refused_result(target.path, reason), None


def _sweep(
    store: EditableStore,
    published: Collection[str],
    policy: "PrunePolicy | None",
    options: LockOptions,
) -> "tuple[ResetResult, PruneResult | None]":
    control, timeout_s = options.control(store), options.lock_timeout_s
    if policy is None:
        return reset_after_export(store, published, control, lock_timeout_s=timeout_s), None
    from kitcache.upkeep.pruning.prune import prune_after_export  # noqa: PLC0415 - rarely needed

    pruned = prune_after_export(store, published, policy, control, lock_timeout_s=timeout_s)
    return pruned.reset, pruned
