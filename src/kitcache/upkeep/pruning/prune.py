"""Retire tags by a policy, then collect what only they reached."""

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from threading import Event
from typing import Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, KitcacheError, LimitNotReached, UsageError
from kitcache.gc.collect import SurveyedPlan
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.reset import (
    LOCK_TIMEOUT_S,
    lock_after_export,
    make_reset_result,
    new_reset_result,
    swept_result,
    unswept_result,
)
from kitcache.gc.values import ResetResult, Survey
from kitcache.oci.digest import Digest
from kitcache.options.prunepolicy import PrunePolicy, check_policy, find_glob
from kitcache.options.sweep import SweepOptions
from kitcache.options.units import format_bytes, format_distinct
from kitcache.store.directory import DirectoryStore
from kitcache.store.ioerrors import command_line
from kitcache.store.locks import lock_store
from kitcache.store.open import open_published_store
from kitcache.store.state import TagUse, write_tag_uses
from kitcache.upkeep.edit import EditContext, EditResult, IndexEdit, dry_run_edit, edit_and_collect
from kitcache.upkeep.project import project
from kitcache.upkeep.pruning.decisions import ALIAS, LAST_TAG, NEW, TagFacts, decide
from kitcache.upkeep.pruning.lastuse import read_uses
from kitcache.upkeep.pruning.limits import Limit, find_limits
from kitcache.upkeep.results import PruneResult, TagDecision
from kitcache.upkeep.trimming.trimplan import (
    TrimPlan,
    cut_roots,
    describe_cut,
    layer_uses,
    move_note,
)

NO_POLICY = "no policy was named, so every tag stays and nothing was changed"
_DEFAULT_POLICY = SweepOptions()
_NO_RETENTION = PrunePolicy()
_ALSO = 5


def prune(
    path: str | os.PathLike[str],
    policy: PrunePolicy,
    *,
    options: SweepOptions = _DEFAULT_POLICY,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> PruneResult:
    """Take the tags that a policy retires out of index.json, then do what a reset does.

    Success guarantees: every tag that the policy keeps reaches what it reached before; the entries
    of the others went in one step, before the first of their blobs. A crash at any point leaves
    garbage, never a hole. Where a limit cannot be reached, what may go has gone, `needed_bytes`
    says how much would do, and the exit code is 14. A policy that names nothing changes nothing.

    policy: what the sweep spares. The other arguments are as in reset. Raises UsageError for a
    policy that contradicts itself, or by which tags would go only since no tag to keep is there;
    and what reset raises.
    """
    check_policy(policy)
    started = time.monotonic()
    name = os.fspath(path)
    control = Control(name, on_progress, cancel)
    choose = _Chooser(policy, control, ()).choose
    terms = EditContext(options, control, lock_timeout_s)
    layout = open_published_store(name)
    if layout is None:
        return _answer(None, new_reset_result(name, started, is_dry=dry_run or policy.is_empty))
    with layout:
        if dry_run or policy.is_empty:
            done = dry_run_edit(layout, choose, terms)
        else:
            with lock_store(layout, "exclusive", control.wait_policy(lock_timeout_s)) as held:
                done = edit_and_collect(held, choose, terms)
                layout.finish_sweep()
                _tend_notes(layout, done.choice)
    is_dry = dry_run or policy.is_empty
    report = make_reset_result(
        name, "dry-run" if is_dry else "done", done.judged, done.swept, started
    )
    answer = _answer(done, report)
    if policy.is_empty:
        return answer._replace(outcome="no-policy", reason=_no_policy(policy))
    return answer


def _no_policy(policy: PrunePolicy) -> str:
    if not policy.source:
        return NO_POLICY
    return f"{policy.source} says nothing of any tag, so every tag stays and nothing was changed"


def prune_after_export(
    layout: DirectoryStore,
    published: Collection[str],
    policy: PrunePolicy,
    control: Control,
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> PruneResult:
    """Prune a cache after an export to it, as reset_after_export resets it.

    Removes none of the tags in `published`. Never raises a KitcacheError. If a limit cannot be
    reached, the result's `reason` says so.
    """
    started = time.monotonic()
    choose = _Chooser(policy, control, published).choose
    done = None
    try:
        with lock_after_export(layout, control, lock_timeout_s) as held:
            done = edit_and_collect(
                held, choose, EditContext(_DEFAULT_POLICY, control, lock_timeout_s)
            )
            _tend_notes(held.store, done.choice)
    except KitcacheError as error:
        return _answer(done, unswept_result(layout, error, published, started))
    return _answer(done, swept_result(layout.path, done.judged, done.swept, published, started))


class _Choice(NamedTuple):
    """What is to become of the tags, by that survey. used: when imports last read which layers."""

    survey: Survey
    now_ns: int
    decisions: tuple[TagDecision, ...]
    limits: tuple[Limit, ...]
    cutting: TrimPlan
    used: Mapping[Digest, int] = {}

    @property
    def change(self) -> IndexEdit:
        """What that comes to in index.json."""
        return IndexEdit(_dropped(self.decisions), self.cutting.moves)

    def kept_bytes(self, limit: Limit) -> int:
        """What stays, as far as that limit counts it."""
        live = self.cutting.after.live
        held = (self.survey.live[digest] for digest in limit.held if digest not in live)
        return sum(live.values()) + sum(held)

    def held_bytes(self, limit: Limit) -> int:
        """Of that, what would keep its room whatever went."""
        return sum(self.survey.live[digest] for digest in limit.held)

    def excess_bytes(self, limit: Limit) -> int:
        """By how much what stays is above the limit; 0 or less where it is reached."""
        return self.kept_bytes(limit) - limit.bytes

    @property
    def limit(self) -> Limit | None:
        """The one that is the furthest from being reached."""
        return max(self.limits, key=self.excess_bytes, default=None)


def _dropped(decisions: Sequence[TagDecision]) -> frozenset[int]:
    return frozenset(p for d in decisions if not d.keep for p in d.positions)


class _Chooser:
    """Decides by a policy. protected: ref names that nothing drops, since they are new."""

    def __init__(self, policy: PrunePolicy, control: Control, protected: Collection[str]) -> None:
        self._retention = policy
        self._control = control
        self._protected = protected

    def choose(self, layout: DirectoryStore, judged: SurveyedPlan) -> tuple[IndexEdit, _Choice]:
        """The entries that go, and those that get smaller."""
        survey, now_ns = judged.survey, time.time_ns()
        facts = read_uses(layout, survey, now_ns)
        limits = find_limits(layout, judged, self._retention, self._control)
        by_limit = [self._decide(facts, survey, limit, now_ns) for limit in limits or (None,)]
        # In one order for all limits: what one of them drops goes.
        decisions = tuple(
            next((decision for decision in same if not decision.keep), same[0])
            for same in zip(*by_limit, strict=True)
        )
        _check_kept(layout.path, self._retention, decisions)
        stays = project(survey, drop=_dropped(decisions), index_digest=survey.index_digest)
        choice = _Choice(survey, now_ns, decisions, limits, TrimPlan((), stays, {}))
        if self._retention.trim:
            choice = _cut(layout, choice)
        return choice.change, choice

    def _decide(
        self, facts: Sequence[TagFacts], survey: Survey, limit: Limit | None, now_ns: int
    ) -> tuple[TagDecision, ...]:
        return decide(
            facts,
            survey.live,
            self._retention,
            now_ns=now_ns,
            limit_bytes=limit.bytes if limit else None,
            limit_name=limit.name if limit else "",
            held=limit.held if limit else frozenset(),
            protected=self._protected,
        )


def _check_kept(path: str, policy: PrunePolicy, decisions: Sequence[TagDecision]) -> None:
    """Raises UsageError where tags would go since no tag to keep is there: mistyped, maybe.

    A limit, an age or a drop-tag drops by itself; and where another rule keeps a tag, that one was
    meant.
    """
    tags = {d.ref_name: d for d in decisions if d.ref_name is not None}
    is_only_cause = not (policy.has_limit or policy.has_age or policy.drop_tags)
    if not policy.keep_tags or not is_only_cause or all(d.keep for d in decisions):
        return
    by_no_rule = {LAST_TAG} if policy.rules else {LAST_TAG, NEW}
    is_any_kept = any(d.keep and d.reason not in by_no_rule for d in tags.values())
    if is_any_kept or any(find_glob(policy.keep_tags, name) for name in tags):
        return
    from kitcache.options.attributes import suggest  # noqa: PLC0415 - only a message needs it

    gone = sum(not decision.keep for decision in tags.values())
    asked = [policy.spell("keep-tag", glob) for glob in policy.keep_tags]
    meant = dict.fromkeys(suggest(glob, tags) for glob in policy.keep_tags)
    error = UsageError(
        f"no tag matches {', '.join(asked)}, so {gone:,} of {len(tags):,} would go",
        path=path,
        hints=(
            *(f"did you mean {name!r}?" for name in meant if name),
            f"if they are to go: {_write(policy, 'unused-for', '0s')}",
        ),
    )
    error.effect = NOTHING_CHANGED
    raise error


def _write(policy: PrunePolicy, key: str, value: str | None = None) -> str:
    """A line for the policy, to be pasted: an option, or TOML."""
    if not policy.source:
        return policy.spell(key, value)
    return f"{key} = {'true' if value is None else json.dumps(value)}"


def _tend_notes(layout: DirectoryStore, choice: _Choice) -> None:
    """Have the notes that can be read speak of the tags as they are now: a repair goes by them."""
    gone = [d.ref_name for d in choice.decisions if not d.keep and d.ref_name is not None]
    with suppress(KitcacheError):
        write_tag_uses(layout, dict.fromkeys(gone, TagUse()))
    for cut in choice.cutting.cuts:
        move_note(layout, cut)


def _cut(layout: DirectoryStore, choice: _Choice) -> _Choice:
    """The same, with tags that get smaller; what has no tag stays as it is."""
    survey, used = choice.survey, layer_uses(layout)
    roots = [root for root in survey.roots if root.position not in choice.change.drop]
    tagged = [root.position for root in roots if root.ref_name is not None]
    cuttings = [
        cut_roots(
            layout,
            survey,
            roots,
            tagged,
            limit.bytes,
            used=used,
            now_ns=choice.now_ns,
            held=limit.held,
        )
        for limit in choice.limits
        if choice.excess_bytes(limit) > 0
    ]
    if not cuttings:
        return choice
    # In one order for all limits, too: the smallest is what all of them ask for.
    smallest = min(cuttings, key=lambda cutting: cutting.after.live_tally.bytes)
    return choice._replace(cutting=smallest, used=used)


def _answer(done: EditResult[_Choice] | None, report: ResetResult) -> PruneResult:
    if done is None:
        return PruneResult(report.path, report.outcome, (), (), report, None, None, report.reason)
    choice = done.choice
    limit = choice.limit
    is_missed = limit is not None and choice.excess_bytes(limit) > 0
    held_bytes = choice.held_bytes(limit) if limit else 0
    outcome: Literal["done", "dry-run"] = "dry-run" if report.outcome == "dry-run" else "done"
    trimmed = tuple(
        describe_cut(
            cut,
            choice.survey,
            choice.cutting.after,
            choice.used,
            path=report.path,
            outcome=outcome,
            limit_bytes=limit.bytes if limit else 0,
            now_ns=choice.now_ns,
        )
        for cut in choice.cutting.cuts
    )
    return PruneResult(
        path=report.path,
        outcome=report.outcome,
        tags=choice.decisions,
        trimmed=trimmed,
        reset=report,
        limit_bytes=limit.bytes - held_bytes if limit else None,
        needed_bytes=choice.kept_bytes(limit) - held_bytes if limit and is_missed else None,
        reason=report.reason
        or (_why_missed(choice, limit, outcome) if limit and is_missed else ""),
    )


def _why_missed(choice: _Choice, limit: Limit, outcome: Literal["done", "dry-run"]) -> str:
    held_bytes = choice.held_bytes(limit)
    needed, allowed = format_distinct(choice.kept_bytes(limit) - held_bytes, limit.wanted_bytes)
    excess = format_bytes(choice.excess_bytes(limit))
    why = f"what has to stay holds {needed}, {excess} more than {limit.spell(allowed)} allows"
    if held_bytes:
        why += f"; {format_bytes(held_bytes)} beside it, linked elsewhere or young, free nothing"
    if choice.cutting.cuts:
        would = "was" if outcome == "done" else "would be"
        why += f", although each tag of which a cut frees anything {would} cut to one step"
    return why


def not_reached(pruned: PruneResult, policy: PrunePolicy = _NO_RETENTION) -> LimitNotReached | None:
    """The error for a limit that was not reached; None where it was, or where there was none.

    retention: the policy that named it, for the ways out.
    """
    if pruned.needed_bytes is None or pruned.limit_bytes is None:
        return None
    untagged = [
        d for d in pruned.tags if d.ref_name is None and d.unique.bytes and -1 not in d.positions
    ]
    is_done = pruned.outcome == "done"
    return LimitNotReached(
        pruned.path,
        pruned.reason,
        limit_bytes=pruned.limit_bytes,
        needed_bytes=pruned.needed_bytes,
        details=tuple(
            f"{d.digest} has no tag, and holds {format_bytes(d.unique.bytes)} alone"
            for d in untagged[:_ALSO]
        ),
        effect="what may go has gone, and nothing else" if is_done else NOTHING_CHANGED,
        hints=tuple(_ways_out(pruned, policy, pruned.needed_bytes, pruned.limit_bytes, untagged)),
    )


def _ways_out(
    pruned: PruneResult,
    policy: PrunePolicy,
    needed_bytes: int,
    limit_bytes: int,
    untagged: Sequence[TagDecision],
) -> Iterator[str]:
    """What would help, of what was not asked for yet."""
    excess = needed_bytes - limit_bytes
    if limit_bytes < 0:
        yield f"free {format_bytes(excess)} elsewhere on the disk: an empty cache is not enough"
        yield f"loosen the limit by {excess:,} bytes"
        return
    if policy.max_used is not None and policy.min_free is None:
        yield f"allow that much: {_write(policy, 'max-used-space', f'{needed_bytes}B')}"
    else:
        yield f"loosen the limit by {excess:,} bytes"
    yield from (command_line("untag", pruned.path, str(d.digest)) for d in untagged[:1])
    if not policy.trim:
        yield f"make what stays smaller: {_write(policy, 'trim')}"
    rules = {d.reason for d in pruned.tags if d.keep and d.ref_name is not None}
    if LAST_TAG in rules and not policy.allow_empty:
        yield f"let the last tag go too: {_write(policy, 'allow-empty')}"
    if rules - {LAST_TAG, ALIAS}:
        yield "protect fewer tags"
