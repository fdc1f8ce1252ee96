"""The reset command: acquire the exclusive lock, collect, build the result.

A dry run acquires no lock and deletes nothing.
"""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

from kitcache.errors import (
    NOTHING_CHANGED,
    NOTHING_DELETED,
    Busy,
    Cancelled,
    KitcacheError,
    NotConfirmed,
)
from kitcache.gc.collect import SurveyedPlan, check_dry_run, collect, survey_and_plan
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.sweep import dry_run_sweep
from kitcache.gc.values import Outcome, ResetResult, Survey, SweepResult, Tally
from kitcache.options.sweep import SweepOptions
from kitcache.store.open import StoreAddress, address_text, open_published_store
from kitcache.store.protocol import CollectableStore
from kitcache.store.values import HeldLock

LOCK_TIMEOUT_S = 30.0
MAX_SKIPPED_SWEEPS = 10
"""After this many skipped sweeps in a row, an export waits for the exclusive lock."""
NOTHING_YET = "nothing to delete: no export was published here yet"
_DEFAULT_OPTIONS = SweepOptions()

S = TypeVar("S", bound=CollectableStore)


def reset(
    path: StoreAddress,
    *,
    options: SweepOptions = _DEFAULT_OPTIONS,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> ResetResult:
    """Delete every blob that no entry of index.json reaches, and unfinished uploads.

    No blob that a tag reaches is changed, even if the process is killed. Files remain that are too
    young, foreign, or could not be deleted (`not_deleted`), and recent uploads (`ingests_kept`). A
    directory to which no export was published yet is not changed; `reason` states this.

    Args:
        dry_run: Count without deletion. Needs no lock and no write permission. An unconfirmed run
            in an object store is a dry run too, and `reason` states this; see SweepOptions.
        lock_timeout_s: How long to wait for exporters that hold the lock.
        on_progress: Called in the caller's thread with Progress and Waiting.
        cancel: Checked between blobs.

    Raises:
        NotACache: There is no cache at that path.
        Busy: The lock was not acquired in time, or an export is running.
        Damaged: A root cannot be read, and nothing was deleted; or a tag that was published during
            the sweep lost a blob.
        Unsafe: For example, blobs/ is a symlink.
        Cancelled: The caller cancelled. It has the number of blobs that were deleted.
        KitcacheError: An I/O error.

    Source: BuildKit's `reset=true` (client/solve.go), which has no locks and does not refuse.
    """
    started = time.monotonic()
    name = address_text(path)
    control = Control(name, on_progress, cancel)
    store = open_published_store(path)
    if store is None:
        return new_reset_result(name, started, is_dry=dry_run)
    with store:
        is_dry, doubt = dry_run, ""
        if not is_dry:
            try:
                with store.lock("exclusive", control.wait_policy(lock_timeout_s)) as lock:
                    surveyed, swept = collect(lock, options, control)
                    store.finish_sweep()
            except NotConfirmed:
                is_dry = True
        if is_dry:
            surveyed = survey_and_plan(store, options, control, None)
            doubt = check_dry_run(store, surveyed.survey, surveyed.survey, options)
            swept = dry_run_sweep(surveyed.plan, store, control)
            if swept.failure is not None:
                raise swept.failure
        result = make_reset_result(store, "dry-run" if is_dry else "done", surveyed, swept, started)
        return result._replace(reason=doubt)


def reset_after_export(
    store: CollectableStore,
    published: Collection[str],
    control: Control,
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> ResetResult:
    """Reset a cache after an export to it, as `reset=true` requests.

    The caller has released the shared kitcache.lock. Never raises a KitcacheError: the result
    states what stopped the sweep (see unswept_result).

    Args:
        published: The tags that this export has published.
        lock_timeout_s: See lock_after_export.
    """
    started = time.monotonic()
    try:
        with lock_after_export(store, control, lock_timeout_s) as lock:
            surveyed, swept = collect(lock, _DEFAULT_OPTIONS, control)
    except KitcacheError as error:
        return unswept_result(store, error, published, started)
    return swept_result(store, surveyed, swept, published, started)


@contextmanager
def lock_after_export(store: S, control: Control, lock_timeout_s: float) -> Iterator[HeldLock[S]]:
    """Hold the exclusive lock for a sweep after an export; then delete stale files in .kitcache/.

    The lock is tried once. If another export holds it, Busy is raised: the last export sweeps.
    After MAX_SKIPPED_SWEEPS skipped sweeps in a row, wait for the lock up to lock_timeout_s.
    """
    is_overdue = store.read_skipped_sweeps() >= MAX_SKIPPED_SWEEPS
    wait_policy = control.wait_policy(lock_timeout_s if is_overdue else 0.0)
    # Open the store again: a daemon may still read from the directories of the export.
    with store.reopen() as own, own.lock("exclusive", wait_policy) as lock:
        yield lock
        own.finish_sweep()


def unswept_result(
    store: CollectableStore, error: KitcacheError, published: Collection[str], started: float
) -> ResetResult:
    """Return the result if this error stopped the sweep after an export.

    Busy: "skipped", and the sweep is counted as skipped. Cancelled: "skipped". If a tag in
    `published` is damaged, or the sweep deleted blobs of a lock-unaware client: "damaged". Other
    errors: "refused".
    """
    outcome: Outcome = "skipped"
    reason = f"{error.problem}; {error.effect}"
    if isinstance(error, Busy):
        count = store.count_skipped_sweep()
        is_untouched = error.effect in (NOTHING_DELETED, NOTHING_CHANGED)
        effect = () if is_untouched else (error.effect,)
        reason = "; ".join((error.problem, *effect, "the next export sweeps"))
        if count > 1:
            reason += f" ({count} sweeps in a row were skipped)"
    elif not isinstance(error, Cancelled):
        tag = error.facts.get("tag")
        is_own = error.facts.get("kind") == "lost" or (tag is not None and tag in published)
        outcome = "damaged" if is_own else "refused"
        reason = "; ".join((error.problem, error.effect, *error.hints[:1]))
    return _empty_result(store.path, outcome, reason, started)


def swept_result(
    store: CollectableStore,
    surveyed: SurveyedPlan,
    swept: SweepResult,
    published: Collection[str],
    started: float,
) -> ResetResult:
    """Return the result of a sweep after an export; "damaged" if a published tag lacks a blob."""
    result = make_reset_result(store, "done", surveyed, swept, started)
    lost = _find_lost_blob(surveyed.survey, published)
    return result._replace(outcome="damaged", reason=lost) if lost else result


def _find_lost_blob(survey: Survey, published: Collection[str]) -> str:
    """Return a sentence about a blob that one of these tags lacks, "" if all are complete."""
    missing = {blob.digest: blob.problem for blob in survey.missing_blobs}
    if not missing:
        return ""
    from kitcache.gc.reach import reach  # noqa: PLC0415 - rarely needed

    for root in survey.roots:
        if root.descriptor is not None and root.ref_name in published:
            for digest in reach(survey, root.descriptor):
                if digest in missing:
                    problem = f"{digest} {missing[digest]}"
                    return f"{root.label} has lost a blob to another process: {problem}"
    return ""


def new_reset_result(path: str, started: float, *, is_dry: bool) -> ResetResult:
    """Return the result for a directory to which no export was published yet."""
    return _empty_result(path, "dry-run" if is_dry else "done", NOTHING_YET, started)


def refused_result(path: str, reason: str) -> ResetResult:
    """Return the result if the caller does not begin the sweep."""
    return _empty_result(path, "refused", reason, time.monotonic())


def _empty_result(path: str, outcome: Outcome, reason: str, started: float) -> ResetResult:
    seconds = round(time.monotonic() - started, 3)
    empty = Tally()
    return ResetResult(
        path, outcome, 0, empty, empty, empty, empty, (), (), 0, (), 0, (), seconds, reason
    )


def make_reset_result(
    store: CollectableStore,
    outcome: Outcome,
    surveyed: SurveyedPlan,
    swept: SweepResult,
    started: float,
) -> ResetResult:
    """Return the result of a sweep.

    Args:
        started: By the monotonic clock, in seconds.
    """
    survey, report = surveyed.survey, store.report()
    too_young = swept.too_young.plus(Tally(len(survey.young), sum(survey.young.values())))
    return ResetResult(
        path=store.path,
        outcome=outcome,
        entry_count=sum(root.position >= 0 for root in survey.roots),
        kept=survey.live_tally.plus(too_young),
        too_young=too_young,
        deleted=swept.deleted,
        ingests_deleted=swept.ingests_deleted,
        ingests_kept=surveyed.plan.kept_ingests,
        not_deleted=swept.not_deleted,
        not_deleted_count=swept.not_deleted_count,
        foreign=swept.foreign,
        foreign_count=swept.foreign_tally.blobs,
        missing_blobs=survey.missing_blobs,
        seconds=round(time.monotonic() - started, 3),
        requests=report.requests,
        warnings=report.warnings,
        freed=swept.freed,
    )
