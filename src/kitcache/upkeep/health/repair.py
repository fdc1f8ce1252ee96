"""The repair command: verify, plan the fewest changes, and apply them.

Order: copy blobs, write new roots, edit index.json once, quarantine bad blobs. A bad blob that is
replaced is quarantined first. If a repair is killed at any point, every importable tag is still
complete and the next repair continues. It deletes nothing.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from threading import Event

from kitcache.errors import (
    NOTHING_CHANGED,
    Busy,
    Cancelled,
    Damaged,
    KitcacheError,
    Unsafe,
    UsageError,
)
from kitcache.gc.collect import IndexChangedError, retry_if_changed
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.plan import make_plan
from kitcache.gc.refusals import refusal_error
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.oci.digest import Digest
from kitcache.options.sweep import SweepOptions
from kitcache.store.directory import DirectoryStore
from kitcache.store.open import (
    StoreAddress,
    address_text,
    find_object_cache,
    open_directory,
    open_object_store,
    open_published_directory,
)
from kitcache.store.quarantine import Quarantine
from kitcache.store.transfer import copy_blob
from kitcache.store.values import HeldLock
from kitcache.store.write import sync_blobs, write_blob
from kitcache.upkeep.health.hash import HashResult, hash_some
from kitcache.upkeep.health.repairinput import Copies, read_repair_input
from kitcache.upkeep.health.repairplan import RepairInput, RepairPlan, make_repair_plan
from kitcache.upkeep.health.verify import nothing_published, verify_locked
from kitcache.upkeep.results import BadBlob, RepairAction, RepairResult, VerifyResult
from kitcache.upkeep.rewrite import move_recorded_exports

_TAGS_INTACT = "every tag that was importable still is; the next repair continues"


def repair(
    path: StoreAddress,
    *,
    sources: StoreAddress | Sequence[StoreAddress] = (),
    read: bool = False,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> RepairResult:
    """Make every tag importable or remove it, with as few changes as possible; see RepairAction.

    Guarantees on success: Every tag that was importable has its digest and all its blobs. The steps
    and tags that were removed could not be imported. No byte was lost: bad blobs and an invalid
    index.json are in .kitcache/quarantine. Unreachable blobs are kept until the next reset. Only
    bad blobs, and blobs that were written since, are hashed more than once.

    In an object store only roots are written. A root that names unusable blobs becomes smaller, or
    is removed; the document of a removed root is kept in the quarantine.

    Args:
        sources: Other copies of the cache. Missing and bad blobs are copied from them after their
            bytes were verified. Each copy's kitcache.lock is created and held shared if possible;
            nothing else is written there. None for an object store.
        read: As in verify.
        dry_run: Verify and report what would be done, without a lock.
        lock_timeout_s: How long to wait for each lock.
        cancel: Checked between actions and while hashing.

    Raises:
        NotACache: The directory does not exist or is not a cache.
        Busy: A lock was not acquired in time, or an export is running.
        Unsafe: A directory of the cache is a symlink, or a cap is exceeded.
        UsageError: A source is the cache itself, or one of them is an object store.
        Cancelled: `cancel` was set.
        KitcacheError: An I/O error. Every importable tag is still complete, and the next repair
            continues.
    """
    name = address_text(path)
    control = Control(name, on_progress, cancel)
    sources = sources if isinstance(sources, list | tuple) else (sources,)
    cache = find_object_cache(path)
    if cache is not None:
        from kitcache.upkeep.health.rootrepair import (  # noqa: PLC0415 - object stores only
            no_sources_error,
            repair_roots,
        )

        if sources:
            raise no_sources_error(name, sources)
        with open_object_store(cache) as objects:
            return repair_roots(
                objects, control, read=read, dry_run=dry_run, lock_timeout_s=lock_timeout_s
            )
    with ExitStack() as stack:
        opened = open_directory(path) if sources else open_published_directory(path)
        if opened is None:
            return RepairResult(name, "dry-run" if dry_run else "done", (), nothing_published(name))
        store = stack.enter_context(opened)
        copies = {address_text(source): _open_copy(stack, store, source) for source in sources}
        if dry_run:
            verified, _ = verify_locked(store, control)
            actions: tuple[RepairAction, ...] = ()
            if verified.exit_code:
                source = read_repair_input(store, copies, verified.bad_blobs, control)
                actions = make_repair_plan(source, now_ns=time.time_ns(), is_dry=True).actions
            return RepairResult(name, "dry-run", actions, verified)
        verified, hashed = _verify(store, control, lock_timeout_s)
        if not verified.exit_code:
            return RepairResult(name, "done", (), verified)
        with ExitStack() as locks:
            held = _lock(locks, store, copies, control, lock_timeout_s)
            actions = _Repair(held, copies, control, lock_timeout_s).run(verified.bad_blobs)
        try:
            # Verify also if there were no actions: another process may have repaired the cache.
            verified, _ = _verify(store, control, lock_timeout_s, before=hashed)
        except KitcacheError as error:
            error.details += tuple(action.description for action in actions)
            error.effect = "everything was repaired, but not verified again"
            raise
    return RepairResult(name, "done", actions, verified)


def _verify(
    store: DirectoryStore, control: Control, lock_timeout_s: float, before: HashResult | None = None
) -> tuple[VerifyResult, HashResult]:
    with store.lock("shared", control.wait_policy(lock_timeout_s)) as held:
        return verify_locked(store, control, began_ns=store.next_tick_ns(held), before=before)


def _open_copy(stack: ExitStack, store: DirectoryStore, path: StoreAddress) -> DirectoryStore:
    copy = stack.enter_context(open_directory(path))
    if copy.identity() == store.identity():
        raise UsageError(f"{copy.path} is the cache that is to be repaired", path=store.path)
    copy.refresh()
    return copy


def _lock(
    stack: ExitStack, store: DirectoryStore, copies: Copies, control: Control, lock_timeout_s: float
) -> HeldLock[DirectoryStore]:
    """Acquire the exclusive lock of the cache and the shared locks of the copies.

    Locks are acquired in the order of inodes, as merges do. Otherwise two caches that are repaired
    from each other would wait for each other.
    """
    others = sorted(copies.values(), key=DirectoryStore.identity)
    for copy in others:
        if copy.identity() < store.identity():
            _lock_copy(stack, copy, control, lock_timeout_s)
    wait_policy = control.wait_policy(lock_timeout_s)
    held = stack.enter_context(store.lock("exclusive", wait_policy))
    for copy in others:
        if copy.identity() > store.identity():
            _lock_copy(stack, copy, control, lock_timeout_s)
    return held


def _lock_copy(
    stack: ExitStack, copy: DirectoryStore, control: Control, lock_timeout_s: float
) -> None:
    """Acquire the shared lock if possible: a copy on a read-only disk is used without it."""
    try:
        stack.enter_context(copy.lock("shared", control.wait_policy(lock_timeout_s)))
    except (Busy, Cancelled, Unsafe):
        raise
    except KitcacheError:
        pass


class _Repair:
    """Plans and applies a repair under the exclusive lock."""

    def __init__(
        self,
        held: HeldLock[DirectoryStore],
        copies: Copies,
        control: Control,
        lock_timeout_s: float,
    ) -> None:
        self._held = held
        self._store = held.store
        self._copies = copies
        self._control = control
        self._lock_timeout_s = lock_timeout_s

    def run(self, suspects: Sequence[BadBlob]) -> tuple[RepairAction, ...]:
        """Plan and apply until index.json does not change in between; return all actions."""
        done: list[RepairAction] = []

        def attempt() -> tuple[RepairAction, ...]:
            return (*done, *self._attempt(suspects, done))

        return retry_if_changed(self._store, attempt, effect=_TAGS_INTACT)

    def _attempt(
        self, suspects: Sequence[BadBlob], done: list[RepairAction]
    ) -> tuple[RepairAction, ...]:
        """Plan and apply once. If index.json has changed, add the actions so far to `done`."""
        store, control = self._store, self._control
        store.refresh()
        # Hash the bad blobs again: an export may have written the right bytes since. Blobs that
        # were added since are hashed after the repair, because builds wait for this lock.
        digests = [blob.digest for blob in suspects]
        still_bad = {blob.digest for blob in hash_some(store, digests, control).bad_blobs}
        bad_blobs = [blob for blob in suspects if blob.digest in still_bad]
        source = read_repair_input(store, self._copies, bad_blobs, control)
        now_ns = time.time_ns()
        plan = make_repair_plan(source, now_ns=now_ns, is_dry=False)
        if not plan.actions:
            return ()
        refusal = make_plan(source.survey, SweepOptions(), now_ns).refusal
        if refusal is not None and refusal.kind == "busy":
            error = refusal_error(store.path, refusal)
            error.effect = _TAGS_INTACT if done else NOTHING_CHANGED
            raise error
        try:
            self._apply(source, plan)
        except IndexChangedError:
            done += self._arrived(plan)
            raise
        return plan.actions

    def _arrived(self, plan: RepairPlan) -> Iterator[RepairAction]:
        """Yield the actions that were done before index.json was edited."""
        for action in plan.actions:
            if action.digest is None or action.digest not in plan.arriving:
                continue
            stat = self._store.stat_blob(action.digest) if action.kind == "copy-blob" else None
            if action.kind == "quarantine-blob" or (stat is not None and stat.kind == "file"):
                yield action

    def _apply(self, source: RepairInput, plan: RepairPlan) -> None:
        """Apply the plan. Raises IndexChangedError if index.json was not edited."""
        old_index = source.old_index if source.lost else None
        with Quarantine(self._held) as quarantine:
            if plan.bad or old_index is not None:
                quarantine.make()
            try:
                self._add_blobs(plan, quarantine)
                if plan.new_index is not None:
                    self._control.check()
                    if old_index is not None:
                        quarantine.keep_index(old_index)
                    self._publish(source.old_index, plan.new_index)
                    move_recorded_exports(self._store, plan.moved_exports)
                self._quarantine([d for d in plan.bad if d not in plan.arriving], quarantine)
            except KitcacheError as error:
                error.effect = _TAGS_INTACT
                raise

    def _add_blobs(self, plan: RepairPlan, quarantine: Quarantine) -> None:
        """Copy and write blobs, and sync them.

        The bad originals are quarantined first: no importable tag references them.
        """
        self._quarantine([digest for digest in plan.bad if digest in plan.arriving], quarantine)
        for digest, path in plan.copies.items():
            self._control.check()
            try:
                copy_blob(self._copies[path], self._store, digest, None, proves=True)
            except Damaged:
                # The copy has changed since it was hashed: plan again.
                raise IndexChangedError from None
        for data in plan.new_blobs.values():
            self._control.check()
            write_blob(self._store, data)
        if plan.arriving:
            sync_blobs(self._store, with_bytes=True)

    def _publish(self, before: bytes | None, after: bytes) -> None:
        def change(data: bytes | None) -> bytes:
            if data != before:
                raise IndexChangedError
            return after

        self._store.commit_roots(change, self._control.wait_policy(self._lock_timeout_s))

    def _quarantine(self, digests: Sequence[Digest], quarantine: Quarantine) -> None:
        for digest in digests:
            self._control.check()
            quarantine.take_blob(digest)
        if digests:
            quarantine.sync()
            sync_blobs(self._store)
