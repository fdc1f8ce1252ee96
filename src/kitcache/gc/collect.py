"""The collection: survey, plan and sweep, repeated if the roots changed during the sweep."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from kitcache.errors import (
    NOTHING_CHANGED,
    NOTHING_DELETED,
    Busy,
    Cancelled,
    KitcacheError,
    NotConfirmed,
)
from kitcache.gc.control import Control
from kitcache.gc.plan import (
    PUBLISH_GRACE_NS,
    make_plan,
    raise_min_age,
    settling_ns,
    young_since_ns,
)
from kitcache.gc.refusals import digests_of, loss_error, lost_blobs, refusal_error
from kitcache.gc.survey import take_survey
from kitcache.gc.sweep import apply
from kitcache.gc.unpublished import newest_unpublished_ns
from kitcache.gc.values import DamagedPath, MissingBlob, Plan, Refusal, Survey, SweepResult
from kitcache.oci.digest import Digest
from kitcache.options.sweep import SweepOptions
from kitcache.store.protocol import CacheStore, CollectableStore
from kitcache.store.values import BATCH_SIZE, HeldLock, LockHolder, Waiting

MAX_RETRIES = 8
"""A command fails after so many changes of index.json by other processes."""
_POLL_S = 0.05
Result = TypeVar("Result")


class SurveyedPlan(NamedTuple):
    """A survey, and the plan that was made from it."""

    survey: Survey
    plan: Plan


def collect(
    lock: HeldLock[CollectableStore],
    options: SweepOptions,
    control: Control,
    surveyed: SurveyedPlan | None = None,
) -> tuple[SurveyedPlan, SweepResult]:
    """Survey, plan and sweep; repeat this if the roots changed during the sweep.

    Raises as reset does.

    Args:
        lock: The exclusive lock.
        surveyed: The survey and plan of the roots that the caller has just written. None to begin
            with a new survey.

    Returns:
        The last survey and plan, and the sum of the deletions of all sweeps.

    """
    store = lock.store
    surveyed, total = _collect(lock, options, control, surveyed, None)
    if options.settles and total.deleted.blobs and store.min_age_floor_ns:
        # Each export that ran during the sweep publishes its root in this time.
        seconds = options.export_time_ns / 10**9
        control.report(Waiting(store.path, "roots", LockHolder(None, None), seconds))
        try:
            control.pause(seconds)
            if not _has_roots_of(store, surveyed.plan, control):
                surveyed, again = _collect(lock, options, control, None, surveyed.survey)
                total = add_sweeps(total, again)
        except KitcacheError as error:
            raise after_deleting(error, total) from None
    return surveyed, total


def _collect(
    lock: HeldLock[CollectableStore],
    options: SweepOptions,
    control: Control,
    surveyed: SurveyedPlan | None,
    before: Survey | None,
) -> tuple[SurveyedPlan, SweepResult]:
    """Collect until the roots do not change during a sweep. before: Of an earlier sweep."""
    store, total = lock.store, SweepResult()
    stamp, changes = store.roots_stamp(), 0
    try:
        while changes < MAX_RETRIES:
            if surveyed is None:
                stamp = store.roots_stamp()
                surveyed = survey_and_plan(store, options, control, lock, before)
            plan = surveyed.plan
            swept = _sweep(lock, surveyed, control, stamp)
            total = add_sweeps(total, swept)
            if total.deleted.blobs:
                before = surveyed.survey
            if swept.failure is not None:
                raise swept.failure
            if plan.drop_ingests and not swept.stopped:
                # The deletions changed the time of ingest/. If index.json were older, the next
                # reset would wait for an export to publish.
                store.touch_roots()
                stamp = store.roots_stamp()
            if swept.stopped or not _has_roots_of(store, plan, control):
                # A scan that skips no name continues where it stopped: each retry makes progress.
                is_progress = store.scans_completely and swept.deleted.blobs > 0
                surveyed, changes = None, changes + (not is_progress)
            elif store.scans_completely or swept.deleted.blobs < BATCH_SIZE:
                store.check_exists()
                return surveyed, total
            # Some file systems skip names during deletion, so a large sweep is repeated.
    except KitcacheError as error:
        raise after_deleting(error, total) from None
    raise after_deleting(index_unstable_error(store), total)


def _sweep(
    lock: HeldLock[CollectableStore], surveyed: SurveyedPlan, control: Control, stamp: object
) -> SweepResult:
    """Sweep once, if the plan was made from the current roots."""
    store, plan = lock.store, surveyed.plan
    if not _has_roots_of(store, plan, control):
        return SweepResult(stopped=True)
    # Without a sync, a power cut could restore older roots after their blobs were deleted.
    store.prepare_sweep(surveyed.survey.live.keys())

    def is_current() -> bool:
        # After a suspend, a new blob can be later than changed_until_ns: the plan does not keep it.
        return store.roots_stamp() == stamp and store.now_ns() < plan.valid_until_ns

    return apply(plan, lock, control, is_current)


def _has_roots_of(store: CollectableStore, plan: Plan, control: Control) -> bool:
    return store.read_roots(control.pause).version == plan.index_digest


def add_sweeps(first: SweepResult, last: SweepResult) -> SweepResult:
    """Return the last result with the deletions of both sweeps."""
    return last._replace(
        deleted=first.deleted.plus(last.deleted),
        ingests_deleted=first.ingests_deleted.plus(last.ingests_deleted),
    )


def after_deleting(error: KitcacheError, total: SweepResult) -> KitcacheError:
    """Return the error; its effect states what was deleted before it."""
    blobs, uploads = total.deleted.blobs, total.ingests_deleted.blobs
    if isinstance(error, Cancelled):
        size = total.deleted.bytes
        error = Cancelled(error.path, deleted_blobs=blobs, deleted_bytes=size)
        if uploads and not blobs:
            error.effect = f"unfinished uploads had been deleted ({uploads:,}), and no blob"
        return error
    if blobs or uploads:
        also = f" and {uploads:,} unfinished uploads" if uploads else ""
        error.effect = f"{blobs:,} unreachable blobs{also} had been deleted"
    return error


class IndexChangedError(Exception):
    """Another process changed index.json since it was read: the caller decides again."""


def retry_if_changed(
    store: CacheStore, attempt: Callable[[], Result], *, effect: str = NOTHING_CHANGED
) -> Result:
    """Return the result of the first attempt that does not raise IndexChangedError.

    Raises:
        Busy: All attempts raised it.
    """
    for _ in range(MAX_RETRIES):
        with suppress(IndexChangedError):
            return attempt()
    raise index_unstable_error(store, effect=effect)


def index_unstable_error(store: CacheStore, effect: str = NOTHING_DELETED) -> Busy:
    """Return the error for roots that change again and again."""
    cause = "other processes are publishing tags"
    hints: tuple[str, ...] = ("try again when their exports have ended",)
    if store.blobs_are_leaves:
        cause += ", or each listing of the store is different"
        hints = (*hints, "check for a cache in front of the store")
    return Busy(
        store.path,
        f"{store.roots_name} changed {MAX_RETRIES} times: {cause}",
        effect=effect,
        hints=hints,
    )


def survey_and_plan(
    store: CollectableStore,
    options: SweepOptions,
    control: Control,
    lock: HeldLock[CollectableStore] | None,
    before: Survey | None = None,
) -> SurveyedPlan:
    """Survey and plan; wait first if an export may be about to publish.

    Raises the error of the plan's refusal.

    Args:
        lock: The exclusive lock. None for a dry run, which does not wait and changes no file.
        before: The survey of an earlier sweep that deleted blobs. A blob that is missing now and
            was not missing then is an error.

    """
    options = raise_min_age(options, store.min_age_floor_ns)
    # One second more than the grace time: the last upload may have ended during the survey.
    deadline = time.monotonic() + PUBLISH_GRACE_NS / 10**9 + 1
    restored: frozenset[Digest] = frozenset()
    while True:
        stamp = store.roots_stamp()
        began_ns = store.next_tick_ns(lock) if lock else None
        now_ns = store.now_ns()
        # A young blob that references no other blob is kept by the sweep.
        since_ns = None if store.blobs_are_leaves else young_since_ns(options, now_ns)
        survey = take_survey(store, control, young_since_ns=since_ns, began_ns=began_ns)
        lost = lost_blobs(before, survey) if before else ()
        if lost:
            restored |= _restore(store, lost, restored)
            continue
        plan = make_plan(survey, options, now_ns, store.recall(options.min_age_ns))
        if lock is None or (plan.refusal and plan.refusal.kind == "busy"):
            break
        settling = _settling_ns(store, control, survey, now_ns)
        if not settling:
            break
        wait_s = min(settling / 10**9, deadline - time.monotonic())
        if wait_s <= 0:
            raise refusal_error(store.path, Refusal("busy", retry_after_s=settling / 10**9))
        control.report(Waiting(store.path, "export", LockHolder(None, None), wait_s))
        wait_until = time.monotonic() + wait_s
        while store.roots_stamp() == stamp and (left_s := wait_until - time.monotonic()) > 0:
            control.pause(min(_POLL_S, left_s))
    if plan.refusal is not None:
        raise refusal_error(store.path, plan.refusal)
    if lock is not None:
        try:
            store.check_confirmed(survey.live.keys(), confirmed=options.confirmed)
        except NotConfirmed:
            # A later run then keeps the blobs of the imports that run now.
            store.prepare_sweep(survey.live.keys())
            raise
    return SurveyedPlan(survey, plan)


def check_dry_run(
    store: CollectableStore, survey: Survey, after: Survey, options: SweepOptions
) -> str:
    """Return why a run would delete nothing until it is confirmed, "" if it would delete.

    Args:
        after: The survey after the edit of a run.

    Raises:
        Unsafe: A run would raise it too. Tests that write are left out.
    """
    store.check_sweep(after.live.keys(), may_write=False)
    try:
        store.check_confirmed(survey.live.keys(), confirmed=options.confirmed)
    except NotConfirmed as error:
        return error.problem
    return ""


def _restore(
    store: CollectableStore,
    lost: Sequence[DamagedPath | MissingBlob],
    restored: frozenset[Digest],
) -> frozenset[Digest]:
    """Return the lost blobs that the store has restored. Raise the error if there is none."""
    new = frozenset(store.restore_blobs(digests_of(lost) - restored))
    if not new:
        raise loss_error(store, lost)
    return new


def _settling_ns(store: CollectableStore, control: Control, survey: Survey, now_ns: int) -> int:
    """Return how long to wait for an export that may be about to publish; usually 0."""
    uploaded_ns = survey.ingest_changed_ns
    settling = settling_ns(uploaded_ns, now_ns)
    if not settling or uploaded_ns > survey.index_changed_ns:
        return settling
    # Another client may have written index.json: look for new blobs that no new manifest names.
    since_ns = now_ns - PUBLISH_GRACE_NS
    return settling_ns(newest_unpublished_ns(store, control, survey, since_ns), now_ns)
