"""lock → survey → plan → apply → look again; without the lock and the last two, a dry run."""

import os
import time
from collections.abc import Callable, Collection
from threading import Event
from typing import NamedTuple

from kitcache.errors import Busy, Cancelled, KitcacheError
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.plan import SETTLE_NS, make_plan, settling_ns, young_since_ns
from kitcache.gc.refusals import error_of, loss_error, lost_blobs
from kitcache.gc.survey import take_survey
from kitcache.gc.sweep import apply, tally
from kitcache.gc.values import Outcome, Plan, Refusal, Report, Survey, Swept, Tally
from kitcache.options.policy import Policy
from kitcache.store.index import Stamp, read_index, stamp_index
from kitcache.store.layout import Layout, open_layout
from kitcache.store.locks import Held, Holder, Waiting, hold_store
from kitcache.store.scan import BATCH_SIZE, changed_ns

LOCK_TIMEOUT_S = 30.0
SKIPS_IN_A_ROW = 10
"""After so many sweeps that were left to others, an export waits for its turn."""
_SKIPS = ".kitcache/skips"
"""Where store/notes.py counts them."""
_DEFAULT_POLICY = Policy()
CHANGES = 8
"""So often others may change index.json while one command is at work."""
_GLANCE_S = 0.05


class Judged(NamedTuple):
    """A survey, and the plan that was made of it."""

    survey: Survey
    plan: Plan


Work = Callable[[Held, Control], tuple[Judged, Swept]]
"""What is done under the exclusive lock: the last judgement, and what was removed in all."""


def reset(
    path: str | os.PathLike[str],
    *,
    policy: Policy = _DEFAULT_POLICY,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> Report:
    """Delete every blob that no entry of index.json reaches, and uploads left behind.

    Success guarantees: all that the tags reach is where it was; of everything else only what the
    policy spares, what could not be removed (`left`) and foreign files remain. A crash at any
    point leaves garbage, never a hole.

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
    with open_layout(name) as layout:
        if dry_run:
            judged = judge(layout, policy, control, is_dry=True)
            swept = tally(judged.plan, layout, control)
            if swept.failure is not None:
                raise swept.failure
        else:
            with hold_store(layout, "exclusive", control.patience(lock_timeout_s)) as held:
                judged, swept = collect(held, policy, control)
                forget_skips(layout)
    return make_report(name, "dry-run" if dry_run else "done", judged, swept, started)


def reset_after_export(
    layout: Layout,
    give_back: Callable[[], None],
    published: Collection[str],
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> Report:
    """What `reset=true` stands for, once an export into this layout has been published.

    give_back: lets go of the shared kitcache.lock. published: the tags that this export put into
    index.json. The exclusive lock is tried once: while others export, the sweep is left to the last
    of them. After ten that were left out in a row it is waited for, up to lock_timeout_s.

    Never raises a KitcacheError: what stops the sweep is the report's outcome. skipped: others are
    at work, or the caller cancelled; refused: a tag of others is damaged, or the disk failed;
    lost: one of `published` is damaged, or the sweep and a stranger's export met.
    """
    control = Control(layout.path, on_progress, cancel)
    return sweep_after_export(
        layout,
        give_back,
        published,
        lambda held, control: collect(held, _DEFAULT_POLICY, control),
        control,
        lock_timeout_s=lock_timeout_s,
    )


def sweep_after_export(
    layout: Layout,
    give_back: Callable[[], None],
    published: Collection[str],
    work: Work,
    control: Control,
    *,
    lock_timeout_s: float,
) -> Report:
    """reset_after_export, with that work in place of a reset's."""
    from kitcache.store import notes  # noqa: PLC0415 - a reset of its own needs none of it

    started = time.monotonic()
    give_back()
    is_overdue = notes.read_skips(layout) >= SKIPS_IN_A_ROW
    patience = control.patience(lock_timeout_s if is_overdue else 0.0)
    try:
        # Directories of its own: those of the export may still be read from.
        with (
            Layout(layout.path, os.dup(layout.root_fd)) as own,
            hold_store(own, "exclusive", patience) as held,
        ):
            judged, swept = work(held, control)
            forget_skips(layout)
    except Busy as error:
        skips = notes.count_skip(layout)
        why = f"{error.problem}; left to the next export"
        if skips > 1:
            why += f" ({skips} sweeps in a row were left out)"
        return _no_report(layout.path, "skipped", why, started)
    except Cancelled as error:
        return _no_report(layout.path, "skipped", f"{error.problem}; {error.untouched}", started)
    except KitcacheError as error:
        tag = error.facts.get("tag")
        is_ours = error.facts.get("kind") == "lost" or (tag is not None and tag in published)
        why = "; ".join((error.problem, error.untouched, *error.next_steps[:1]))
        return _no_report(layout.path, "lost" if is_ours else "refused", why, started)
    report = make_report(layout.path, "done", judged, swept, started)
    hole = _hole_in(judged.survey, published)
    return report._replace(outcome="lost", why=hole) if hole else report


def forget_skips(layout: Layout) -> None:
    """A sweep has been done: none was left out in a row."""
    try:
        os.stat(_SKIPS, dir_fd=layout.root_fd, follow_symlinks=False)
    except OSError:
        return
    from kitcache.store import notes  # noqa: PLC0415 - mostly there is nothing to forget

    notes.forget_skips(layout)


def _hole_in(survey: Survey, published: Collection[str]) -> str:
    """What one of these tags lacks, in a sentence; "" where each is whole."""
    missing = {leaf.digest: leaf.problem for leaf in survey.missing_leaves}
    if not missing:
        return ""
    from kitcache.gc.reach import reach  # noqa: PLC0415 - as notes

    for root in survey.roots:
        if root.descriptor is not None and root.ref_name in published:
            for digest in reach(survey, root.descriptor):
                if digest in missing:
                    return f"{root.label} has lost a blob to others: {digest} {missing[digest]}"
    return ""


def refused_report(path: str, why: str) -> Report:
    """What a sweep comes to that its caller does not even begin."""
    return _no_report(path, "refused", why, time.monotonic())


def _no_report(path: str, outcome: Outcome, why: str, started: float) -> Report:
    seconds = round(time.monotonic() - started, 3)
    none = Tally()
    return Report(path, outcome, 0, none, none, none, none, (), (), 0, (), 0, (), seconds, why)


def make_report(
    path: str, outcome: Outcome, judged: Judged, swept: Swept, started: float
) -> Report:
    """What a sweep came to. started: by the monotonic clock, in seconds."""
    return Report(
        path=path,
        outcome=outcome,
        tags=len(judged.survey.roots),
        kept=_kept(judged.survey, swept),
        spared=_spared(judged.survey, swept),
        removed=swept.removed,
        ingests_removed=swept.ingests_removed,
        ingests_kept=judged.plan.kept_ingests,
        left=swept.left,
        left_count=swept.left_count,
        foreign=swept.foreign,
        foreign_count=swept.foreign_tally.blobs,
        missing_leaves=judged.survey.missing_leaves,
        seconds=round(time.monotonic() - started, 3),
    )


def collect(
    held: Held, policy: Policy, control: Control, judged: Judged | None = None
) -> tuple[Judged, Swept]:
    """Remove what the plan does not keep, until index.json has stayed the same meanwhile.

    judged: what the caller knows of the index.json that it has just written; without it the store
    is surveyed first. Where others change index.json later, it is surveyed anew. Returns the last
    judgement, and what was removed in all. Raises as reset does.
    """
    layout = held.layout
    before: Survey | None = None
    stamp = stamp_index(layout)
    total = Swept()
    try:
        changes, own_ingest_ns = 0, -1
        while changes < CHANGES:
            # The same index has the same roots: the second walk needs no second survey.
            if judged is None:
                stamp = stamp_index(layout)
                judged = judge(layout, policy, control, before, own_ingest_ns)
            swept = Swept(stopped=True)
            if read_index(layout).digest == judged.plan.index_digest:
                swept = apply(judged.plan, held, control, _unchanged(layout, stamp))
                total = add_swept(total, swept)
                before = judged.survey if total.removed.blobs else None
                if swept.failure is not None:
                    raise swept.failure
                if swept.ingests_removed.blobs:
                    own_ingest_ns = changed_ns(layout.ingest_fd)
            if swept.stopped or read_index(layout).digest != judged.plan.index_digest:
                changes += 1
                judged = None
            # Some file systems skip names while others go: what removed much is walked again.
            elif swept.removed.blobs < BATCH_SIZE:
                layout.check_is_there()
                return judged, total
    except KitcacheError as error:
        raise after_removing(error, total) from None
    raise after_removing(unsettled(layout), total)


def after_removing(error: KitcacheError, total: Swept) -> KitcacheError:
    """The same failure, honest about what had gone when it came."""
    blobs, uploads = total.removed.blobs, total.ingests_removed.blobs
    if isinstance(error, Cancelled):
        return Cancelled(error.path, removed_blobs=blobs, removed_bytes=total.removed.bytes)
    if blobs or uploads:
        also = f" and {uploads:,} uploads left behind" if uploads else ""
        error.untouched = f"{blobs:,} blobs that no tag reached{also} had been removed by then"
    return error


def unsettled(layout: Layout) -> Busy:
    """The error for an index.json that never rests."""
    return Busy(
        layout.path,
        f"index.json changed {CHANGES} times while the sweep ran: others are publishing",
        next_steps=("try again when they are done",),
    )


def judge(
    layout: Layout,
    policy: Policy,
    control: Control,
    before: Survey | None = None,
    own_ingest_ns: int = -1,
    *,
    is_dry: bool = False,
) -> Judged:
    """Survey and plan, once nobody seems about to publish. Raises what the plan refuses with.

    before: the survey by which blobs have been removed already: a new hole is a loss.
    own_ingest_ns: the time of ingest/ after our own removals in it, which are nobody's trace.
    """
    # A second more than the wait: the last upload may have ended while we looked.
    patience_ends = time.monotonic() + SETTLE_NS / 10**9 + 1
    while True:
        stamp = stamp_index(layout)
        now_ns = time.time_ns()
        survey = take_survey(layout, control, young_since_ns=young_since_ns(policy, now_ns))
        lost = lost_blobs(before, survey) if before else ()
        if lost:
            raise loss_error(layout.path, lost)
        plan = make_plan(survey, policy, now_ns)
        settling = survey.ingest_changed_ns != own_ingest_ns and settling_ns(survey, now_ns)
        if is_dry or not settling or (plan.refusal and plan.refusal.kind == "busy"):
            break
        wait_s = min(settling / 10**9, patience_ends - time.monotonic())
        if wait_s <= 0:
            raise error_of(layout.path, Refusal("busy", retry_after_s=settling / 10**9))
        control.tell(Waiting(layout.path, "export", Holder(None, None), wait_s))
        _wait(wait_s, control, while_true=_unchanged(layout, stamp))
    if plan.refusal is not None:
        raise error_of(layout.path, plan.refusal)
    return Judged(survey, plan)


def _unchanged(layout: Layout, stamp: Stamp | None) -> Callable[[], bool]:
    return lambda: stamp_index(layout) == stamp


def _wait(seconds: float, control: Control, while_true: Callable[[], bool]) -> None:
    ends = time.monotonic() + seconds
    while while_true() and (left_s := ends - time.monotonic()) > 0:
        control.pause(min(_GLANCE_S, left_s))


def add_swept(one: Swept, other: Swept) -> Swept:
    """Two walks over the same store: counts of removals add up, what is left is the last one's."""
    return other._replace(
        removed=one.removed.plus(other.removed),
        ingests_removed=one.ingests_removed.plus(other.ingests_removed),
    )


def _spared(survey: Survey, swept: Swept) -> Tally:
    return swept.spared.plus(Tally(len(survey.young), sum(survey.young.values())))


def _kept(survey: Survey, swept: Swept) -> Tally:
    return survey.live_tally.plus(_spared(survey, swept))
