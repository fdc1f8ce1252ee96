"""survey → plan → apply → look again, until index.json has stayed the same meanwhile."""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from kitcache.errors import Busy, Cancelled, KitcacheError
from kitcache.gc.control import Control
from kitcache.gc.plan import PUBLISH_GRACE_NS, make_plan, settling_ns, young_since_ns
from kitcache.gc.refusals import loss_error, lost_blobs, refusal_error
from kitcache.gc.survey import take_survey
from kitcache.gc.sweep import apply
from kitcache.gc.unpublished import newest_unpublished_ns
from kitcache.gc.values import Plan, Refusal, Survey, SweepResult
from kitcache.options.sweep import SweepOptions
from kitcache.store.index import Stamp, date_index, read_index, stamp_index, sync_index
from kitcache.store.layout import Layout
from kitcache.store.locks import HeldLock, LockHolder, Waiting
from kitcache.store.scan import BATCH_SIZE, next_tick_ns

MAX_RETRIES = 8
"""So often others may change index.json while one command is at work."""
_GLANCE_S = 0.05


class SurveyedPlan(NamedTuple):
    """A survey, and the plan that was made of it."""

    survey: Survey
    plan: Plan


def collect(
    held: HeldLock, options: SweepOptions, control: Control, judged: SurveyedPlan | None = None
) -> tuple[SurveyedPlan, SweepResult]:
    """Remove what the plan does not keep, until index.json has stayed the same meanwhile.

    judged: what the caller knows of the index.json that it has just written; without it the store
    is surveyed first. Where others change index.json later, it is surveyed anew. Returns the last
    judgement, and what was removed in all. Raises as reset does.
    """
    work = _Collection(held, options, control, judged)
    try:
        changes = 0
        while changes < MAX_RETRIES:
            came_to = work.sweep()
            if came_to == "done":
                held.layout.check_is_there()
                return work.judged, work.total
            changes += came_to == "changed"
    except KitcacheError as error:
        raise after_removing(error, work.total) from None
    raise after_removing(index_unstable_error(held.layout), work.total)


class _Collection:
    """One walk after another. total: what they removed."""

    def __init__(
        self, held: HeldLock, options: SweepOptions, control: Control, judged: SurveyedPlan | None
    ) -> None:
        self.total = SweepResult()
        self._held = held
        self._policy = options
        self._control = control
        self._stamp = stamp_index(held.layout)
        self._judged = judged
        self._before: Survey | None = None

    @property
    def judged(self) -> SurveyedPlan:
        """The judgement by which to remove: one for as long as index.json stays the same."""
        if self._judged is None:
            layout = self._held.layout
            self._stamp = stamp_index(layout)
            self._judged = survey_and_plan(
                layout, self._policy, self._control, self._held, self._before
            )
        return self._judged

    def sweep(self) -> Literal["done", "again", "changed"]:
        """Walk once. again: the same index, whose roots need no second survey."""
        layout, judged, swept = self._held.layout, self.judged, SweepResult(stopped=True)
        if self._is_index_of(judged):
            # Else a power cut could bring back an older one, whose blobs have gone by then.
            sync_index(layout)
            swept = apply(judged.plan, self._held, self._control, self._is_current)
            self.total = add_swept(self.total, swept)
            if self.total.deleted.blobs:
                self._before = judged.survey
            if swept.failure is not None:
                raise swept.failure
            if judged.plan.drop_ingests:
                # Else the next reset takes our own changes of ingest/ for those of an export.
                date_index(layout)
                self._stamp = stamp_index(layout)
        if swept.stopped or not self._is_index_of(judged):
            self._judged = None
            return "changed"
        # Some file systems skip names while others go: what removed much is walked again.
        return "done" if swept.deleted.blobs < BATCH_SIZE else "again"

    def _is_index_of(self, judged: SurveyedPlan) -> bool:
        return read_index(self._held.layout).digest == judged.plan.index_digest

    def _is_current(self) -> bool:
        return stamp_index(self._held.layout) == self._stamp and (
            # A machine that slept on the way has blobs that are newer than what would be spared.
            self._judged is not None and time.time_ns() < self._judged.plan.valid_until_ns
        )


def add_swept(one: SweepResult, other: SweepResult) -> SweepResult:
    """Two walks over the same store: counts of removals add up, what is left is the last one's."""
    return other._replace(
        deleted=one.deleted.plus(other.deleted),
        ingests_deleted=one.ingests_deleted.plus(other.ingests_deleted),
    )


def after_removing(error: KitcacheError, total: SweepResult) -> KitcacheError:
    """The same failure, honest about what had gone when it came."""
    blobs, uploads = total.deleted.blobs, total.ingests_deleted.blobs
    if isinstance(error, Cancelled):
        size = total.deleted.bytes
        error = Cancelled(error.path, deleted_blobs=blobs, deleted_bytes=size)
        if uploads and not blobs:
            error.effect = f"uploads left behind had been removed ({uploads:,}), and no blob"
        return error
    if blobs or uploads:
        also = f" and {uploads:,} uploads left behind" if uploads else ""
        error.effect = f"{blobs:,} blobs that no tag reached{also} had been removed by then"
    return error


def index_unstable_error(layout: Layout) -> Busy:
    """The error for an index.json that never rests."""
    return Busy(
        layout.path,
        f"index.json changed {MAX_RETRIES} times while the sweep ran: others are publishing",
        hints=("try again when they are done",),
    )


def survey_and_plan(
    layout: Layout,
    options: SweepOptions,
    control: Control,
    held: HeldLock | None,
    before: Survey | None = None,
) -> SurveyedPlan:
    """Survey and plan, once nobody seems about to publish. Raises what the plan refuses with.

    held: the exclusive lock; None for a dry run, which waits for nobody and dates no file. before:
    the survey by which blobs have been removed already: a new hole is a loss.
    """
    # A second more than the wait: the last upload may have ended while we looked.
    patience_ends = time.monotonic() + PUBLISH_GRACE_NS / 10**9 + 1
    while True:
        stamp = stamp_index(layout)
        began_ns = next_tick_ns(held.fd) if held else None
        now_ns = time.time_ns()
        since_ns = young_since_ns(options, now_ns)
        survey = take_survey(layout, control, young_since_ns=since_ns, began_ns=began_ns)
        lost = lost_blobs(before, survey) if before else ()
        if lost:
            raise loss_error(layout.path, lost)
        plan = make_plan(survey, options, now_ns)
        if held is None or (plan.refusal and plan.refusal.kind == "busy"):
            break
        settling = _settling_ns(layout, control, survey, now_ns)
        if not settling:
            break
        wait_s = min(settling / 10**9, patience_ends - time.monotonic())
        if wait_s <= 0:
            raise refusal_error(layout.path, Refusal("busy", retry_after_s=settling / 10**9))
        control.report(Waiting(layout.path, "export", LockHolder(None, None), wait_s))
        _wait(wait_s, control, while_true=_unchanged(layout, stamp))
    if plan.refusal is not None:
        raise refusal_error(layout.path, plan.refusal)
    return SurveyedPlan(survey, plan)


def _settling_ns(layout: Layout, control: Control, survey: Survey, now_ns: int) -> int:
    """For how long an export may still be about to publish; mostly 0."""
    uploaded_ns = survey.ingest_changed_ns
    settling = settling_ns(uploaded_ns, now_ns)
    if not settling or uploaded_ns > survey.index_changed_ns:
        return settling
    # Who published need not be who uploaded.
    return settling_ns(
        newest_unpublished_ns(layout, control, survey, now_ns - PUBLISH_GRACE_NS), now_ns
    )


def _unchanged(layout: Layout, stamp: Stamp | None) -> Callable[[], bool]:
    return lambda: stamp_index(layout) == stamp


def _wait(seconds: float, control: Control, while_true: Callable[[], bool]) -> None:
    ends = time.monotonic() + seconds
    while while_true() and (left_s := ends - time.monotonic()) > 0:
        control.pause(min(_GLANCE_S, left_s))
