"""verify → plan → mend: the least that makes every tag importable or gone.

Order: blobs that come, new roots, one edit of index.json, then the quarantine. Killed at any point,
it leaves every healthy tag whole, and the next repair goes on. It sweeps nothing.
"""

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from threading import Event
from typing import NamedTuple

from kitcache.errors import (
    NOTHING_CHANGED,
    Busy,
    Cancelled,
    Damaged,
    KitcacheError,
    Unsafe,
    UsageError,
)
from kitcache.gc.collect import MAX_RETRIES, index_unstable_error
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.plan import make_plan
from kitcache.gc.refusals import refusal_error
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.oci.digest import Digest
from kitcache.options.sweep import SweepOptions
from kitcache.store.directory import DirectoryStore
from kitcache.store.layout import look_at_open
from kitcache.store.locks import lock_store
from kitcache.store.open import open_published_store, open_store
from kitcache.store.protocol import HeldLock
from kitcache.store.quarantine import Quarantine
from kitcache.store.state import read_tag_uses, write_tag_uses
from kitcache.store.transfer import copy_blob
from kitcache.store.write import sync_blobs, write_blob
from kitcache.upkeep.health.hash import rehash_some
from kitcache.upkeep.health.repairinput import Copies, Diagnosis, diagnose
from kitcache.upkeep.health.repairplan import RepairPlan, make_repair_plan
from kitcache.upkeep.health.verify import nothing_published, verify_held
from kitcache.upkeep.results import BadBlob, RepairAction, RepairResult, VerifyResult


class _RepairContext(NamedTuple):
    """What a repair has at hand. lock_timeout_s: how long to wait for others, for each lock."""

    held: HeldLock[DirectoryStore]
    copies: Copies
    control: Control
    lock_timeout_s: float


class IndexChangedError(Exception):
    """index.json, or a copy, was changed since it was read: the plan no longer holds.

    steps: those of it that were done.
    """

    def __init__(self, steps: tuple[RepairAction, ...] = ()) -> None:
        super().__init__()
        self.steps = steps


def repair(
    path: str | os.PathLike[str],
    *,
    sources: Sequence[str | os.PathLike[str]] = (),
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> RepairResult:
    """Make every tag importable or gone, by the least that does it; see RepairStep.

    Success guarantees: a tag that imported fully has its digest and all its blobs; what was cut out
    of others cannot be imported by anybody; no byte of a blob was lost: bad ones, and an old
    index.json, are in .kitcache/quarantine. What no tag reaches any more stays for the next reset.

    sources: other cache directories that missing and bad blobs are taken from, once their bytes
    are proven; nothing in them is changed but kitcache.lock, which is held shared where it can be.
    dry_run: verify, and say what would be done; takes no lock. lock_timeout_s: how long to wait
    for others, for each lock. cancel: is looked at between steps, and in the course of hashing.

    Raises NotACache, Busy (locked, or an export is under way), Unsafe, Cancelled, UsageError (a
    source that is the cache itself), and KitcacheError for I/O errors: then every tag that was
    whole still is, and the next repair goes on.
    """
    name = os.fspath(path)
    control = Control(name, on_progress, cancel)
    with ExitStack() as stack:
        opened = open_store(name) if sources else open_published_store(name)
        if opened is None:
            return RepairResult(name, "dry-run" if dry_run else "done", (), nothing_published(name))
        layout = stack.enter_context(opened)
        copies = {
            os.fspath(source): _open_copy(stack, layout, os.fspath(source))
            for source in ((sources,) if isinstance(sources, str) else sources)
        }
        if dry_run:
            verified = verify_held(layout, control)
            steps = _foresee(layout, copies, verified, control)
            return RepairResult(name, "dry-run", steps, verified)
        verified = _verify(layout, control, lock_timeout_s)
        if not verified.exit_code:
            return RepairResult(name, "done", (), verified)
        with ExitStack() as locks:
            held = _lock(locks, layout, copies, control, lock_timeout_s)
            steps = _mend(_RepairContext(held, copies, control, lock_timeout_s), verified.bad_blobs)
        try:
            # Also where nothing was left to do: others may have mended it meanwhile.
            verified = _verify(layout, control, lock_timeout_s)
        except KitcacheError as error:
            error.details += tuple(step.description for step in steps)
            error.effect = "all that had to be mended was, and was not looked at once more"
            raise
    return RepairResult(name, "done", steps, verified)


def _foresee(
    layout: DirectoryStore, copies: Copies, verified: VerifyResult, control: Control
) -> tuple[RepairAction, ...]:
    """What would be done."""
    if not verified.exit_code:
        return ()
    found = diagnose(layout, copies, verified.bad_blobs, control).found
    return make_repair_plan(found, now_ns=time.time_ns(), is_dry=True).actions


def _verify(layout: DirectoryStore, control: Control, lock_timeout_s: float) -> VerifyResult:
    with lock_store(layout, "shared", control.wait_policy(lock_timeout_s)):
        return verify_held(layout, control)


def _open_copy(stack: ExitStack, layout: DirectoryStore, path: str) -> DirectoryStore:
    copy = stack.enter_context(open_store(path))
    if os.path.sameopenfile(copy.root_fd, layout.root_fd):
        raise UsageError(f"{path} is the cache that is to be repaired", path=layout.path)
    copy.open_directories()
    return copy


def _lock(
    stack: ExitStack,
    layout: DirectoryStore,
    copies: Copies,
    control: Control,
    lock_timeout_s: float,
) -> HeldLock[DirectoryStore]:
    """The cache exclusive, the copies shared.

    All take these locks in one order, by inode, as merges do: two that are repaired from each other
    would else wait for each other.
    """
    own, others = _inode_of(layout), sorted(copies.values(), key=_inode_of)
    for copy in others:
        if _inode_of(copy) < own:
            _lock_copy(stack, copy, control, lock_timeout_s)
    patience = control.wait_policy(lock_timeout_s)
    held = stack.enter_context(lock_store(layout, "exclusive", patience))
    for copy in others:
        if _inode_of(copy) > own:
            _lock_copy(stack, copy, control, lock_timeout_s)
    return held


def _inode_of(layout: DirectoryStore) -> tuple[int, int]:
    found = look_at_open(layout, layout.root_fd, "the directory")
    return found.st_dev, found.st_ino


def _lock_copy(
    stack: ExitStack, copy: DirectoryStore, control: Control, lock_timeout_s: float
) -> None:
    """Where that can be: a copy on a read-only disk, or somebody else's, will do as well."""
    try:
        stack.enter_context(lock_store(copy, "shared", control.wait_policy(lock_timeout_s)))
    except (Busy, Cancelled, Unsafe):
        raise
    except KitcacheError:
        pass


def _mend(means: _RepairContext, suspects: Collection[BadBlob]) -> tuple[RepairAction, ...]:
    """Plan and apply, until nobody has changed index.json meanwhile: all that was done."""
    told: list[RepairAction] = []
    for _ in range(MAX_RETRIES):
        try:
            return (*told, *_attempt(means, suspects, has_begun=bool(told)))
        except IndexChangedError as error:
            told += error.steps
    raise _honest(index_unstable_error(means.held.store.path), has_begun=True)


def _attempt(
    means: _RepairContext, suspects: Collection[BadBlob], *, has_begun: bool
) -> tuple[RepairAction, ...]:
    """Plan and apply once: what was done. Raises _OvertakenError."""
    layout, control = means.held.store, means.control
    layout.open_directories()
    # A second look: an export may have brought what was missing, or the right bytes.
    still = {one.digest for one in rehash_some(layout, [s.digest for s in suspects], control).bad}
    bad = [one for one in suspects if one.digest in still]
    diagnosis = diagnose(layout, means.copies, bad, control)
    now_ns = time.time_ns()
    mending = make_repair_plan(diagnosis.found, now_ns=now_ns, is_dry=False)
    if not mending.actions:
        return ()
    busy = make_plan(diagnosis.found.survey, SweepOptions(), now_ns).refusal
    if busy is not None and busy.kind == "busy":
        raise _honest(refusal_error(layout.path, busy), has_begun=has_begun)
    try:
        _apply(means, diagnosis, mending)
    except IndexChangedError:
        raise IndexChangedError(tuple(_come_about(layout, mending))) from None
    return mending.actions


def _come_about(layout: DirectoryStore, mending: RepairPlan) -> Iterator[RepairAction]:
    """The steps that were done, where it did not come to index.json."""
    for step in mending.actions:
        if step.digest is None or step.digest not in mending.comes:
            continue
        found = layout.stat_blob(step.digest) if step.kind == "copy-blob" else None
        if step.kind == "quarantine-blob" or (found is not None and found.kind == "file"):
            yield step


def _honest(error: KitcacheError, *, has_begun: bool) -> KitcacheError:
    """The same failure, and what it left as it was."""
    error.effect = NOTHING_CHANGED
    if has_begun:
        error.effect = "every tag that was whole still is; the next repair goes on"
    return error


def _apply(means: _RepairContext, diagnosis: Diagnosis, mending: RepairPlan) -> None:
    """Put the mending on the disk. Raises _OvertakenError: then index.json was not changed."""
    old_index = diagnosis.old_index
    keeps_index = bool(diagnosis.found.lost) and old_index is not None
    with Quarantine(means.held) as quarantine:
        if mending.bad or keeps_index:
            quarantine.make()
        try:
            _bring(means, mending, quarantine)
            if mending.new_index is not None:
                means.control.check()
                if keeps_index and old_index is not None:
                    quarantine.keep_index(old_index)
                _publish(means, old_index, mending.new_index)
                _move_notes(means.held.store, mending)
            _put_aside(means, [d for d in mending.bad if d not in mending.comes], quarantine)
        except KitcacheError as error:
            raise _honest(error, has_begun=True) from None


def _bring(means: _RepairContext, mending: RepairPlan, quarantine: Quarantine) -> None:
    """All blobs that come, on the disk. What was bad of them goes first: no healthy tag has it."""
    layout, check = means.held.store, means.control.check
    _put_aside(means, [digest for digest in mending.bad if digest in mending.comes], quarantine)
    for digest, path in mending.takes.items():
        check()
        try:
            copy_blob(means.copies[path], layout, digest, None, proves=True)
        except Damaged:
            # The copy is not what it was when it was hashed: it is judged anew.
            raise IndexChangedError from None
    for data in mending.new_blobs.values():
        check()
        write_blob(layout, data)
    if mending.comes:
        sync_blobs(layout, with_bytes=True)


def _move_notes(layout: DirectoryStore, mending: RepairPlan) -> None:
    """Have the notes of last exports name what those have become, if they can be read."""
    with suppress(KitcacheError):
        notes, moved = read_tag_uses(layout), {}
        for tag, (old, new) in mending.became.items():
            note = notes.get(tag)
            if note is not None and note.digest == str(old):
                moved[tag] = note._replace(digest=str(new))
        write_tag_uses(layout, moved)


def _put_aside(means: _RepairContext, digests: list[Digest], quarantine: Quarantine) -> None:
    for digest in digests:
        means.control.check()
        quarantine.take_blob(digest)
    if digests:
        quarantine.sync()
        sync_blobs(means.held.store)


def _publish(means: _RepairContext, before: bytes | None, after: bytes) -> None:
    def change(data: bytes | None) -> bytes:
        if data != before:
            raise IndexChangedError
        return after

    wait_policy = means.control.wait_policy(means.lock_timeout_s)
    means.held.store.commit_roots(change, wait_policy)
