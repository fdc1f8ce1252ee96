"""The verify command: hash every blob, and report the tags and steps that cannot be imported.

In an object store it compares the listing, and reads the blobs only on request. It changes nothing.
A missing or invalid index.json is in the result; all blobs are still hashed.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from threading import Event
from typing import NamedTuple

from kitcache.errors import Busy, Cancelled, Damaged, KitcacheError
from kitcache.gc.collect import MAX_RETRIES
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.refusals import IS_SYMLINK, recovery_hints
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.gc.survey import take_survey
from kitcache.gc.values import DamagedPath, Survey, Tally
from kitcache.oci.digest import Digest
from kitcache.store.open import StoreAddress, address_text, open_published_store
from kitcache.store.protocol import EditableStore
from kitcache.upkeep.health.blobcheck import BlobCheck
from kitcache.upkeep.health.hash import HashResult
from kitcache.upkeep.health.judge import Judge
from kitcache.upkeep.results import BadBlob, TagStatus, VerifyResult


def verify(
    path: StoreAddress,
    *,
    read: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> VerifyResult:
    """Hash every blob, follow every tag, and report whether a build could import it.

    Holds kitcache.lock shared, so that no reset runs. If the lock can be neither opened nor
    created, as in a read-only cache, verify continues without it and adds a warning. Tags that are
    published during the run are verified too. If no export was published in the directory yet,
    `reason` states this. Damage is in the result and never raised.

    In an object store, blobs are only listed, unless `read` is set: a missing blob and one of
    another size are found.

    Args:
        read: Also read every blob of an object store, which transfers all bytes; the first Progress
            has their number. A directory is always read.
        on_progress: Called from this thread with Progress and Waiting.

    Raises:
        NotACache: The directory does not exist or is not a cache.
        Busy: A reset holds the lock.
        Unsafe: A directory of the cache is a symlink, or a cap is exceeded.
        Cancelled: `cancel` was set.
        KitcacheError: A directory cannot be listed.
    """
    name = address_text(path)
    started = time.monotonic()
    control = Control(name, on_progress, cancel)
    store = open_published_store(path)
    if store is None:
        return nothing_published(name)
    with store, ExitStack() as stack:
        warnings = []
        try:
            stack.enter_context(store.lock("shared", control.wait_policy(lock_timeout_s)))
        except (Busy, Cancelled):
            raise
        except KitcacheError as error:
            warnings.append(f"the cache is not protected from a concurrent reset: {error.problem}")
        result, _ = verify_locked(store, control, read=read)
    return result._replace(
        warnings=(*warnings, *result.warnings), seconds=round(time.monotonic() - started, 3)
    )


def nothing_published(path: str) -> VerifyResult:
    """Return the result for a directory in which no export was published yet."""
    reason = "nothing to verify: no export was published here yet"
    return VerifyResult(path, Tally(), (), "", (), (), (), 0.0, reason)


def verify_locked(
    store: EditableStore,
    control: Control,
    *,
    began_ns: int = 0,
    before: HashResult | None = None,
    read: bool = False,
) -> tuple[VerifyResult, HashResult]:
    """Verify a cache whose kitcache.lock the caller holds, if it could be acquired.

    Args:
        began_ns: The current time by the clock of the file system; 0 if unknown.
        before: An earlier result. Blobs that were intact then and have not changed since are not
            read again.
        read: As in verify.
    """
    started = time.monotonic()
    view = _read_view(store, control)
    check = BlobCheck(store, control, read=read)
    hashed = check.all(before, began_ns)
    warnings = []
    for _ in range(MAX_RETRIES):
        if _read_version(store, control) == view.version:
            break
        newer = _read_view(store, control)
        # New blobs may not have been hashed, and bad ones may have been replaced.
        doubtful = {*newer.live - view.live, *(blob.digest for blob in hashed.bad_blobs)}
        bad_blobs = check.some(doubtful)
        hashed, view = hashed._replace(bad_blobs=bad_blobs), newer
    else:
        warnings.append(
            f"{store.roots_name} kept changing: the version that was read last is verified"
        )
    if view.survey is None:
        result = VerifyResult(
            store.path, hashed.blobs, hashed.bad_blobs, view.problem, (), (), (), 0.0
        )
    else:
        result = _judge(store, view.survey, hashed, control)
    warnings += (*store.find_risks(), *store.report().warnings)
    return result._replace(
        warnings=(*warnings, *result.warnings),
        seconds=round(time.monotonic() - started, 3),
        hashed=check.reads,
    ), hashed


class _IndexView(NamedTuple):
    """index.json and its survey.

    Attributes:
        version: The digest of its bytes; if it cannot be parsed, the problem.
        survey: None if index.json is missing or invalid; then `problem` is the reason.
    """

    version: Digest | str
    survey: Survey | None
    problem: str = ""

    @property
    def live(self) -> frozenset[Digest]:
        return frozenset(self.survey.live) if self.survey else frozenset()


def _read_view(store: EditableStore, control: Control) -> _IndexView:
    store.refresh()
    version = _read_version(store, control)
    if isinstance(version, str):
        return _IndexView(version, None, version)
    try:
        survey = take_survey(store, control)
    except Damaged as error:
        return _IndexView(version, None, error.problem)
    return _IndexView(survey.index_digest, survey)


def _read_version(store: EditableStore, control: Control) -> Digest | str:
    try:
        return store.read_roots(control.pause).version
    except Damaged as error:
        return error.problem


def _judge(
    store: EditableStore, survey: Survey, hashed: HashResult, control: Control
) -> VerifyResult:
    bad_blobs = tuple(_with_lengths(survey, hashed.bad_blobs))
    bad = {blob.digest: blob.problem for blob in bad_blobs}
    tags, warnings, reported = [], [], set(bad)
    for root, status in Judge(store, survey, bad).judge_entries(control):
        digest = root.descriptor.digest if root.descriptor else None
        check = status.check
        tags.append(
            TagStatus(
                root.position,
                root.ref_name,
                digest,
                status.kind,
                check.importable,
                check.reason,
                check.steps,
                check.unusable_steps,
            )
        )
        warnings += [f"{root.label}: {warning}" for warning in check.warnings]
        reported |= status.faults.keys()
    damage = tuple(
        path
        for path in survey.damage
        if not (path.chain[-1].digest in reported if path.chain else path.root.position >= 0)
    )
    symlinks = [digest for digest in hashed.symlinks if digest in survey.live]
    return VerifyResult(
        path=store.path,
        blobs=hashed.blobs,
        bad_blobs=bad_blobs,
        index_problem="",
        tags=tuple(tags),
        damage=damage,
        warnings=(
            *warnings,
            *(f"blob {d.short} {IS_SYMLINK}: replace the symlink by its file" for d in symlinks),
            *_hints(store.path, damage),
        ),
        seconds=0.0,
    )


def _with_lengths(survey: Survey, bad_blobs: Iterable[BadBlob]) -> Iterator[BadBlob]:
    """Yield the bad blobs. A length that differs from the descriptor replaces the problem."""
    problems = {b.digest: b.problem for b in survey.missing_blobs if b.digest in survey.live}
    problems |= {d.chain[-1].digest: d.problem for d in survey.damage if d.kind == "wrong-size"}
    for blob in bad_blobs:
        yield blob._replace(problem=problems.get(blob.digest, blob.problem))


def _hints(path: str, damage: Iterable[DamagedPath]) -> Iterator[str]:
    """Yield hints for a damaged subject of index.json, which a repair does not change."""
    roots = dict.fromkeys(damaged.root for damaged in damage if damaged.root.position < 0)
    for root in roots:
        yield from (f"hint: {hint}" for hint in recovery_hints(path, root))
