"""Retire tags by a policy, then collect what only they reached."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from threading import Event
from typing import Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, LimitNotReached
from kitcache.gc.change import Change, Changed, Terms, change_and_collect, rehearse
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.refusals import command_line
from kitcache.gc.reset import (
    LOCK_TIMEOUT_S,
    Judged,
    forget_skips,
    make_report,
    sweep_after_export,
)
from kitcache.gc.sweep import tally
from kitcache.gc.values import Report, Survey, Swept
from kitcache.oci.digest import Digest
from kitcache.options.policy import Policy
from kitcache.options.retention import Amount, Retention, check_retention
from kitcache.options.units import format_bytes
from kitcache.store.layout import Layout, io_error, open_layout
from kitcache.store.locks import Held, hold_store
from kitcache.upkeep.answers import Decision, Pruned
from kitcache.upkeep.pruning.retain import ALIAS, LAST_TAG, decide
from kitcache.upkeep.pruning.uses import read_uses
from kitcache.upkeep.trimming.cutting import Cut, cut_roots, describe_cut, layer_uses, move_note

NO_POLICY = "no policy was named, so every tag stays and nothing was changed"
_DEFAULT_POLICY = Policy()
_NO_RETENTION = Retention()
_ALSO = 5


def prune(
    path: str | os.PathLike[str],
    retention: Retention,
    *,
    policy: Policy = _DEFAULT_POLICY,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> Pruned:
    """Take the tags that a policy retires out of index.json, then do what a reset does.

    Success guarantees: every tag that the policy keeps reaches what it reached before; the entries
    of the others went in one step, before the first of their blobs. A crash at any point leaves
    garbage, never a hole. Where a limit cannot be reached, what may go has gone, `needed_bytes`
    says how much would do, and the exit code is 14. A policy that names nothing changes nothing.

    policy: what the sweep spares. The other arguments are as in reset. Raises UsageError for a
    policy that contradicts itself, and what reset raises.
    """
    check_retention(retention)
    started = time.monotonic()
    name = os.fspath(path)
    control = Control(name, on_progress, cancel)
    choose = _Chooser(retention, control, ()).choose
    terms = Terms(policy, control, lock_timeout_s)
    with open_layout(name) as layout:
        if dry_run or retention.is_empty:
            done = rehearse(layout, choose, terms)
        else:
            with hold_store(layout, "exclusive", control.patience(lock_timeout_s)) as held:
                done = change_and_collect(held, choose, terms)
                forget_skips(layout)
                _move_notes(layout, done)
    is_dry = dry_run or retention.is_empty
    report = make_report(name, "dry-run" if is_dry else "done", done.judged, done.swept, started)
    answer = _answer(done, report)
    if retention.is_empty:
        return answer._replace(outcome="no-policy", why=_no_policy(retention))
    return answer


def _no_policy(retention: Retention) -> str:
    if not retention.source:
        return NO_POLICY
    return f"{retention.source} says nothing of any tag, so every tag stays and nothing was changed"


def prune_after_export(
    layout: Layout,
    give_back: Callable[[], None],
    published: Collection[str],
    retention: Retention,
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> Pruned:
    """reset_after_export, which retires tags by a policy first, but none of `published`.

    Never raises a KitcacheError. A limit that cannot be reached is no failure: `why` says so.
    """
    control = Control(layout.path, on_progress, cancel)
    choose = _Chooser(retention, control, published).choose
    terms = Terms(_DEFAULT_POLICY, control, lock_timeout_s)
    done: list[Changed[_Choice]] = []

    def work(held: Held, _: Control) -> tuple[Judged, Swept]:
        done.append(change_and_collect(held, choose, terms))
        _move_notes(held.layout, done[0])
        return done[0].judged, done[0].swept

    report = sweep_after_export(
        layout, give_back, published, work, control, lock_timeout_s=lock_timeout_s
    )
    return _answer(done[0] if done else None, report)


class _Limit(NamedTuple):
    """For all that the tags reach, in bytes; below 0 where even an empty cache would not do.

    name: the option, with its value.
    """

    bytes: int
    name: str


class _Choice(NamedTuple):
    """What is to become of the tags, by that survey. kept_bytes: of all that stays."""

    survey: Survey
    now_ns: int
    decisions: tuple[Decision, ...]
    limit: _Limit | None
    kept_bytes: int
    cuts: tuple[Cut, ...] = ()
    used: Mapping[Digest, int] = {}

    @property
    def change(self) -> Change:
        """What that comes to in index.json."""
        return Change(
            frozenset(p for d in self.decisions if not d.keep for p in d.positions),
            {position: cut.new for cut in self.cuts for position in cut.positions},
        )

    @property
    def excess_bytes(self) -> int | None:
        """By how much what stays is above the limit, None where it is not."""
        excess = None if self.limit is None else self.kept_bytes - self.limit.bytes
        return excess if excess and excess > 0 else None


class _Chooser:
    """Decides by a policy. protected: ref names that nothing drops, since they are new."""

    def __init__(self, retention: Retention, control: Control, protected: Collection[str]) -> None:
        self._retention = retention
        self._control = control
        self._protected = protected

    def choose(self, layout: Layout, judged: Judged) -> tuple[Change, _Choice]:
        """The entries that go, and those that get smaller."""
        survey, now_ns = judged.survey, time.time_ns()
        facts = read_uses(layout, survey, now_ns)
        limit = self._limit(layout, judged)
        decisions = decide(
            facts,
            survey.live,
            self._retention,
            now_ns=now_ns,
            limit_bytes=limit.bytes if limit else None,
            limit_name=limit.name if limit else "",
            protected=self._protected,
        )
        kept = [fact for fact, decision in zip(facts, decisions, strict=True) if decision.keep]
        blobs = {digest for fact in kept for digest in fact.blobs}
        kept_bytes = sum(survey.live[digest] for digest in blobs)
        choice = _Choice(survey, now_ns, decisions, limit, kept_bytes)
        if choice.excess_bytes is not None and self._retention.trim:
            choice = _cut(layout, choice)
        return choice.change, choice

    def _limit(self, layout: Layout, judged: Judged) -> _Limit | None:
        """The tighter one of those that the policy names."""
        allowed, wanted = self._retention.max_used, self._retention.min_free
        if allowed is None and wanted is None:
            return None
        size, free = _disk(layout)
        limits = []
        if allowed is not None:
            name = self._retention.spell("max-used-space", _spell(allowed, size))
            limits.append(_Limit(allowed.of(size), name))
        if wanted is not None:
            garbage = tally(judged.plan, layout, self._control)
            if garbage.failure is not None:
                raise garbage.failure
            free += garbage.removed.bytes + garbage.ingests_removed.bytes
            room = free + judged.survey.live_tally.bytes - wanted.of(size)
            name = self._retention.spell("min-free-space", _spell(wanted, size))
            limits.append(_Limit(room, name))
        return min(limits)


def _move_notes(layout: Layout, done: Changed[_Choice]) -> None:
    for cut in done.choice.cuts:
        move_note(layout, cut)


def _cut(layout: Layout, choice: _Choice) -> _Choice:
    """The same, with tags that get smaller; what has no tag stays as it is."""
    survey, used = choice.survey, layer_uses(layout)
    roots = [root for root in survey.roots if root.position not in choice.change.drop]
    tagged = [root.position for root in roots if root.ref_name is not None]
    limit_bytes = choice.limit.bytes if choice.limit else 0
    cutting = cut_roots(layout, survey, roots, tagged, limit_bytes, used=used, now_ns=choice.now_ns)
    return choice._replace(kept_bytes=cutting.bytes, cuts=cutting.cuts, used=used)


def _disk(layout: Layout) -> tuple[int, int]:
    """The size of the cache's file system, and what is free there for its user, in bytes."""
    try:
        found = os.fstatvfs(layout.root_fd)
    except OSError as error:
        raise io_error(layout.path, "cannot ask how full the disk is", error) from None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _spell(amount: Amount, disk_bytes: int) -> str:
    size = format_bytes(amount.of(disk_bytes))
    return size if amount.percent is None else f"{amount.percent:g}% ({size})"


def _answer(done: Changed[_Choice] | None, report: Report) -> Pruned:
    if done is None:
        return Pruned(report.path, report.outcome, (), (), report, None, None, report.why)
    choice = done.choice
    limit, excess = choice.limit, choice.excess_bytes
    outcome: Literal["done", "dry-run"] = "dry-run" if report.outcome == "dry-run" else "done"
    trimmed = tuple(
        describe_cut(
            cut,
            choice.survey,
            choice.used,
            path=report.path,
            outcome=outcome,
            limit_bytes=limit.bytes if limit else 0,
            now_ns=choice.now_ns,
        )
        for cut in choice.cuts
    )
    why = ""
    if limit is not None and excess is not None:
        why = (
            f"what has to stay holds {format_bytes(choice.kept_bytes)},"
            f" {format_bytes(excess)} more than {limit.name} allows"
        )
    return Pruned(
        path=report.path,
        outcome=report.outcome,
        decisions=choice.decisions,
        trimmed=trimmed,
        report=report,
        limit_bytes=limit.bytes if limit else None,
        needed_bytes=None if excess is None else choice.kept_bytes,
        why=report.why or why,
    )


def not_reached(pruned: Pruned, retention: Retention = _NO_RETENTION) -> LimitNotReached | None:
    """The error for a limit that was not reached; None where it was, or where there was none.

    retention: the policy that named it, for the ways out.
    """
    if pruned.needed_bytes is None or pruned.limit_bytes is None:
        return None
    untagged = [d for d in pruned.decisions if d.ref_name is None and d.digest and d.unique.bytes]
    is_done = pruned.outcome == "done"
    return LimitNotReached(
        pruned.path,
        pruned.why,
        limit_bytes=pruned.limit_bytes,
        needed_bytes=pruned.needed_bytes,
        details=tuple(
            f"{d.digest} has no tag, and holds {format_bytes(d.unique.bytes)} alone"
            for d in untagged[:_ALSO]
        ),
        untouched="what may go has gone, and nothing else" if is_done else NOTHING_CHANGED,
        next_steps=tuple(
            _ways_out(pruned, retention, pruned.needed_bytes, pruned.limit_bytes, untagged)
        ),
    )


def _ways_out(
    pruned: Pruned,
    retention: Retention,
    needed_bytes: int,
    limit_bytes: int,
    untagged: Sequence[Decision],
) -> Iterator[str]:
    """What would help, of what was not asked for yet."""
    if retention.max_used is not None and retention.min_free is None:
        yield f"allow that much: {retention.spell('max-used-space', f'{needed_bytes}B')}"
    else:
        yield f"loosen the limit by {needed_bytes - limit_bytes:,} bytes"
    yield from (command_line("untag", pruned.path, str(d.digest)) for d in untagged[:1])
    if not retention.trim:
        yield f"make what stays smaller: {retention.spell('trim')}"
    rules = {d.rule for d in pruned.decisions if d.keep and d.ref_name is not None}
    if LAST_TAG in rules and not retention.allow_empty:
        yield f"let the last tag go too: {retention.spell('allow-empty')}"
    if rules - {LAST_TAG, ALIAS}:
        yield "protect fewer tags"
