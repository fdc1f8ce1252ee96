"""A reset: the lock, the collection, the report. A dry run: no lock, and empty hands."""

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Event

from kitcache.errors import Busy, Cancelled, KitcacheError
from kitcache.gc.collect import SurveyedPlan, collect, survey_and_plan
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.sweep import dry_run_sweep
from kitcache.gc.values import Outcome, ResetResult, Survey, SweepResult, Tally
from kitcache.options.sweep import SweepOptions
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import Layout, open_layout
from kitcache.store.locks import HeldLock, lock_store
from kitcache.store.scan import STATE_DIR

LOCK_TIMEOUT_S = 30.0
MAX_SKIPPED_SWEEPS = 10
"""After so many sweeps that were left to others, an export waits for its turn."""
NOTHING_YET = "nothing to remove: no export was published here yet"
_DEFAULT_POLICY = SweepOptions()


def reset(
    path: str | os.PathLike[str],
    *,
    options: SweepOptions = _DEFAULT_POLICY,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> ResetResult:
    """Delete every blob that no entry of index.json reaches, and uploads left behind.

    Success guarantees: all that the tags reach is where it was; of everything else only what the
    policy spares, what could not be removed (`left`) and foreign files remain. A crash at any
    point leaves garbage, never a hole. A directory in which no export was published yet, and that
    holds nothing of others, is left as it is; `why` says so.

    dry_run: count, and remove nothing; needs no lock and no right to write. lock_timeout_s: how
    long to wait for exporters that hold the lock. on_progress is called from this thread with
    Progress and Waiting; cancel is looked at between blobs.

    Raises NotACache, Busy (locked, or an export is under way), Damaged (a root that cannot be
    read: nothing removed; or a tag published meanwhile lost a blob), Unsafe, Cancelled, and
    KitcacheError for I/O errors. Mirrors BuildKit's `reset=true` (client/solve.go), which has
    neither the locks nor the refusals.
    """
    started = time.monotonic()
    name = os.fspath(path)
    control = Control(name, on_progress, cancel)
    layout = open_published(name)
    if layout is None:
        return new_reset_result(name, started, is_dry=dry_run)
    with layout:
        if dry_run:
            judged = survey_and_plan(layout, options, control, None)
            swept = dry_run_sweep(judged.plan, layout, control)
            if swept.failure is not None:
                raise swept.failure
        else:
            with lock_store(layout, "exclusive", control.wait_policy(lock_timeout_s)) as held:
                judged, swept = collect(held, options, control)
                finish_sweep_state(layout)
    return make_report(name, "dry-run" if dry_run else "done", judged, swept, started)


def reset_after_export(
    layout: Layout,
    published: Collection[str],
    control: Control,
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> ResetResult:
    """Reset a cache after an export to it, as `reset=true` asks for.

    The caller has released the shared kitcache.lock. Never raises a KitcacheError: the result's
    outcome says what stopped the sweep (see unswept_result).

    Args:
        published: The tags that this export has published.
        lock_timeout_s: See lock_after_export.

    """
    started = time.monotonic()
    try:
        with lock_after_export(layout, control, lock_timeout_s) as held:
            judged, swept = collect(held, _DEFAULT_POLICY, control)
    except KitcacheError as error:
        return unswept_result(layout, error, published, started)
    return swept_result(layout.path, judged, swept, published, started)


@contextmanager
def lock_after_export(
    layout: Layout, control: Control, lock_timeout_s: float
) -> Iterator[HeldLock]:
    """Hold the exclusive lock for the sweep after an export; then clean up .kitcache/.

    The lock is tried once: if another export is running, the sweep is left to the last export.
    After MAX_SKIPPED_SWEEPS skipped sweeps in a row, wait for the lock up to lock_timeout_s.
    """
    from kitcache.store import state  # noqa: PLC0415 - the reset command does not need it

    is_overdue = state.read_skipped_sweeps(layout) >= MAX_SKIPPED_SWEEPS
    patience = control.wait_policy(lock_timeout_s if is_overdue else 0.0)
    with _reopen(layout) as own, lock_store(own, "exclusive", patience) as held:
        yield held
        finish_sweep_state(layout)


def _reopen(layout: Layout) -> Layout:
    """Open the directory again: the export may still read from the layout's own directories."""
    try:
        return Layout(layout.path, os.dup(layout.root_fd))
    except OSError as error:
        raise io_error(layout.path, "cannot be opened once more", error) from None


def unswept_result(
    layout: Layout, error: KitcacheError, published: Collection[str], started: float
) -> ResetResult:
    """Return the result of a sweep after an export that this error has stopped.

    Its outcome is "skipped" if another export is running (the sweep is counted as skipped) or the
    caller cancelled, "damaged" if a tag in `published` is damaged or the sweep deleted blobs of a
    lock-unaware client, else "refused".
    """
    reason = f"{error.problem}; {error.effect}"
    if isinstance(error, Busy):
        from kitcache.store import state  # noqa: PLC0415 - the reset command does not need it

        count = state.count_skipped_sweep(layout)
        reason = f"{error.problem}; left to the next export"
        if count > 1:
            reason += f" ({count} sweeps in a row were left out)"
    elif not isinstance(error, Cancelled):
        tag = error.facts.get("tag")
        is_ours = error.facts.get("kind") == "lost" or (tag is not None and tag in published)
        reason = "; ".join((error.problem, error.effect, *error.hints[:1]))
        outcome: Outcome = "damaged" if is_ours else "refused"
        return _no_report(layout.path, outcome, reason, started)
    return _no_report(layout.path, "skipped", reason, started)


def swept_result(
    path: str,
    judged: SurveyedPlan,
    swept: SweepResult,
    published: Collection[str],
    started: float,
) -> ResetResult:
    """Return the result of a sweep after an export; "damaged" if a published tag lacks a blob."""
    report = make_report(path, "done", judged, swept, started)
    hole = _hole_in(judged.survey, published)
    return report._replace(outcome="damaged", reason=hole) if hole else report


def finish_sweep_state(layout: Layout) -> None:
    """A sweep has been done: .kitcache/ keeps neither a count of those left out, nor leftovers."""
    try:
        os.stat(STATE_DIR, dir_fd=layout.root_fd, follow_symlinks=False)
    except OSError:
        return
    from kitcache.store import state  # noqa: PLC0415 - mostly there is nothing to tidy

    state.tidy(layout)


def _hole_in(survey: Survey, published: Collection[str]) -> str:
    """What one of these tags lacks, in a sentence; "" where each is whole."""
    missing = {leaf.digest: leaf.problem for leaf in survey.missing_blobs}
    if not missing:
        return ""
    from kitcache.gc.reach import reach  # noqa: PLC0415 - as notes

    for root in survey.roots:
        if root.descriptor is not None and root.ref_name in published:
            for digest in reach(survey, root.descriptor):
                if digest in missing:
                    return f"{root.label} has lost a blob to others: {digest} {missing[digest]}"
    return ""


def open_published(path: str) -> Layout | None:
    """Open the cache at that path; return None if no export was published in the directory yet.

    A first build that failed leaves such a directory, and it is no reason to fail each night.
    Raises as open_layout does where anything else is there.
    """
    try:
        return open_layout(path)
    except KitcacheError:
        from kitcache.store.fresh import is_fresh  # noqa: PLC0415 - mostly it is a cache

        if is_fresh(path):
            return None
        raise


def new_reset_result(path: str, started: float, *, is_dry: bool) -> ResetResult:
    """Report on a directory in which no export was published yet."""
    return _no_report(path, "dry-run" if is_dry else "done", NOTHING_YET, started)


def refused_result(path: str, why: str) -> ResetResult:
    """What a sweep comes to that its caller does not even begin."""
    return _no_report(path, "refused", why, time.monotonic())


def _no_report(path: str, outcome: Outcome, why: str, started: float) -> ResetResult:
    seconds = round(time.monotonic() - started, 3)
    none = Tally()
    return ResetResult(path, outcome, 0, none, none, none, none, (), (), 0, (), 0, (), seconds, why)


def make_report(
    path: str, outcome: Outcome, judged: SurveyedPlan, swept: SweepResult, started: float
) -> ResetResult:
    """What a sweep came to. started: by the monotonic clock, in seconds."""
    return ResetResult(
        path=path,
        outcome=outcome,
        entry_count=sum(root.position >= 0 for root in judged.survey.roots),
        kept=_kept(judged.survey, swept),
        too_young=_spared(judged.survey, swept),
        deleted=swept.deleted,
        ingests_deleted=swept.ingests_deleted,
        ingests_kept=judged.plan.kept_ingests,
        not_deleted=swept.not_deleted,
        not_deleted_count=swept.not_deleted_count,
        foreign=swept.foreign,
        foreign_count=swept.foreign_tally.blobs,
        missing_blobs=judged.survey.missing_blobs,
        seconds=round(time.monotonic() - started, 3),
    )


def _spared(survey: Survey, swept: SweepResult) -> Tally:
    return swept.too_young.plus(Tally(len(survey.young), sum(survey.young.values())))


def _kept(survey: Survey, swept: SweepResult) -> Tally:
    return survey.live_tally.plus(_spared(survey, swept))
