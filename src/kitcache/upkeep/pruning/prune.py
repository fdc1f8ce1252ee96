"""The prune command: remove tags by a policy, then delete the blobs that only they reached."""

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from threading import Event
from typing import Literal, NamedTuple

from kitcache.errors import (
    NOTHING_CHANGED,
    KitcacheError,
    LimitNotReached,
    NotConfirmed,
    UsageError,
)
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
from kitcache.options.prunepolicy import PrunePolicy, check_policy
from kitcache.options.sweep import SweepOptions
from kitcache.options.tagpatterns import find_pattern
from kitcache.options.units import format_bytes, format_distinct
from kitcache.store.ioerrors import command_line
from kitcache.store.open import StoreAddress, address_text, open_published_store
from kitcache.store.protocol import EditableStore
from kitcache.store.values import TagUse
from kitcache.upkeep.edit import (
    Choose,
    EditContext,
    EditResult,
    IndexEdit,
    dry_run_edit,
    edit_and_collect,
)
from kitcache.upkeep.project import project
from kitcache.upkeep.pruning.decisions import ALIAS, LAST_TAG, NEW, decide
from kitcache.upkeep.pruning.lastuse import read_uses
from kitcache.upkeep.pruning.limits import Limit, check_disk, find_limits
from kitcache.upkeep.results import PruneResult, TagDecision
from kitcache.upkeep.rewrite import move_recorded_exports
from kitcache.upkeep.trimming.trimplan import TrimPlan, layer_uses, plan_trims

NO_POLICY = "no policy was named: every tag is kept and nothing was changed"
_DEFAULT_OPTIONS = SweepOptions()
_EMPTY_POLICY = PrunePolicy()
_MAX_DETAILS = 5


def prune(
    path: StoreAddress,
    policy: PrunePolicy,
    *,
    options: SweepOptions = _DEFAULT_OPTIONS,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> PruneResult:
    """Remove the tags that a policy does not keep from index.json, then sweep as reset does.

    Guarantees on success: every kept tag reaches the same blobs as before, or is trimmed. The
    entries of the other tags were removed in one step, before their first blob was deleted. A crash
    at any point leaves unreachable blobs, never a missing blob.

    If a limit cannot be reached, all unprotected tags that free space are removed. Then the exit
    code is 14, and `needed_bytes` is the limit that would be enough. With an empty policy nothing
    is changed.

    Args:
        options: The minimum age of blobs to delete. The other arguments are as in reset.

    Raises:
        UsageError: The policy contradicts itself, or removes tags only because no tag matches its
            keep_tags; or a limit needs a disk, and there is none. Other errors: see reset.
    """
    check_policy(policy)
    check_disk(path, policy)
    started = time.monotonic()
    name = address_text(path)
    is_dry = dry_run or policy.is_empty
    control = Control(name, on_progress, cancel)
    choose = _make_choose(policy, control, ())
    context = EditContext(options, control, lock_timeout_s)
    store = open_published_store(path)
    if store is None:
        return _make_result(None, new_reset_result(name, started, is_dry=is_dry))
    with store:
        if not is_dry:
            try:
                with store.lock("exclusive", control.wait_policy(lock_timeout_s)) as held:
                    done = edit_and_collect(held, choose, context)
                    store.finish_sweep()
                    _record(store, done.choice)
            except NotConfirmed:
                is_dry = True
        if is_dry:
            done = dry_run_edit(store, choose, context)
        outcome: Literal["done", "dry-run"] = "dry-run" if is_dry else "done"
        reset = make_reset_result(store, outcome, done.judged, done.swept, started)
        if not policy.is_empty:
            return _make_result(done, reset._replace(reason=done.doubt))
        result = _make_result(done, reset)
    reason = NO_POLICY
    if policy.source:
        reason = f"{policy.source} applies to no tag: every tag is kept and nothing was changed"
    return result._replace(outcome="no-policy", reason=reason)


def prune_after_export(
    store: EditableStore,
    published: Collection[str],
    policy: PrunePolicy,
    control: Control,
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> PruneResult:
    """Prune a cache after an export to it, as reset_after_export resets it.

    Removes none of the tags in `published`. Never raises a KitcacheError. If a limit cannot be
    reached, `reason` of the result states this.
    """
    started = time.monotonic()
    choose = _make_choose(policy, control, published)
    context = EditContext(_DEFAULT_OPTIONS, control, lock_timeout_s)
    done = None
    try:
        with lock_after_export(store, control, lock_timeout_s) as held:
            done = edit_and_collect(held, choose, context)
            _record(held.store, done.choice)
    except KitcacheError as error:
        return _make_result(done, unswept_result(store, error, published, started))
    reset = swept_result(store, done.judged, done.swept, published, started)
    return _make_result(done, reset)


class _Choice(NamedTuple):
    """The decisions about all tags.

    Attributes:
        survey: The survey before the prune.
        trim_plan: The tags that are trimmed, and the survey after the prune.
    """

    survey: Survey
    decisions: tuple[TagDecision, ...]
    limits: tuple[Limit, ...]
    trim_plan: TrimPlan

    def kept_bytes(self, limit: Limit) -> int:
        """Return the bytes that are kept, as the limit counts them."""
        live = self.trim_plan.after.live
        held = (self.survey.live[digest] for digest in limit.held if digest not in live)
        return sum(live.values()) + sum(held)

    def held_bytes(self, limit: Limit) -> int:
        """Return the bytes that take space even if every tag is removed."""
        return sum(self.survey.live[digest] for digest in limit.held)

    def excess_bytes(self, limit: Limit) -> int:
        """Return by how much the kept bytes exceed the limit; 0 or less if it is reached."""
        return self.kept_bytes(limit) - limit.bytes

    @property
    def limit(self) -> Limit | None:
        """The limit that the kept bytes exceed most; None without limits."""
        return max(self.limits, key=self.excess_bytes, default=None)


def _make_choose(
    policy: PrunePolicy, control: Control, protected: Collection[str]
) -> Choose[_Choice]:
    """Return the function that decides by a policy. protected: Ref names to keep."""

    def choose(store: EditableStore, planned: SurveyedPlan) -> tuple[IndexEdit, _Choice]:
        survey, now_ns = planned.survey, store.now_ns()
        facts = read_uses(store, survey, now_ns)
        limits = find_limits(store, planned, policy, control)
        by_limit = [
            decide(
                facts,
                survey.live,
                policy,
                now_ns=now_ns,
                limit_bytes=limit.bytes if limit else None,
                limit_name=limit.spell(format_bytes(limit.wanted_bytes)) if limit else "",
                held=limit.held if limit else frozenset(),
                protected=protected,
            )
            for limit in limits or (None,)
        ]
        # All limits remove tags in one order: a tag is removed if one of them requires it.
        decisions = tuple(
            next((decision for decision in same if not decision.keep), same[0])
            for same in zip(*by_limit, strict=True)
        )
        _check_kept(store.path, policy, decisions)
        drop = frozenset(p for d in decisions if not d.keep for p in d.positions)
        kept = project(survey, drop=drop, index_digest=survey.index_digest)
        choice = _Choice(survey, decisions, limits, TrimPlan((), survey, kept, {}, {}, now_ns))
        if policy.trim:
            choice = choice._replace(trim_plan=_plan_trims(store, choice, drop))
        return IndexEdit(drop, choice.trim_plan.moves), choice

    return choose


def _plan_trims(store: EditableStore, choice: _Choice, drop: Collection[int]) -> TrimPlan:
    """Plan the trims of kept tags. Entries without a tag are not changed."""
    used = layer_uses(store)
    roots = [root for root in choice.survey.roots if root.position not in drop]
    plans = [
        plan_trims(
            store,
            choice.survey,
            roots,
            [root.position for root in roots if root.ref_name is not None],
            limit.bytes,
            used=used,
            now_ns=choice.trim_plan.now_ns,
            held=limit.held,
        )
        for limit in choice.limits
        if choice.excess_bytes(limit) > 0
    ]
    # All limits remove steps in one order too: the smallest plan satisfies all of them.
    return min(plans, key=lambda plan: plan.after.live_tally.bytes, default=choice.trim_plan)


def _check_kept(path: str, policy: PrunePolicy, decisions: Sequence[TagDecision]) -> None:
    """Raise UsageError if tags would be removed only because no keep-tag matches; maybe a typo.

    A limit, an age or a drop-tag removes tags for another reason. If another rule keeps a tag, the
    policy is accepted.
    """
    tags = {d.ref_name: d for d in decisions if d.ref_name is not None}
    is_only_reason = not (policy.has_limit or policy.has_age or policy.drop_tags)
    if not policy.keep_tags or not is_only_reason or all(d.keep for d in decisions):
        return
    without_rule = {LAST_TAG} if policy.rules else {LAST_TAG, NEW}
    is_any_kept = any(d.keep and d.reason not in without_rule for d in tags.values())
    if is_any_kept or any(find_pattern(policy.keep_tags, name) for name in tags):
        return
    from kitcache.options.attributes import suggest  # noqa: PLC0415 - only a message needs it

    removed = sum(not decision.keep for decision in tags.values())
    patterns = ", ".join(policy.spell("keep-tag", pattern) for pattern in policy.keep_tags)
    similar = dict.fromkeys(suggest(pattern, tags) for pattern in policy.keep_tags)
    add = _spell_addition(policy, "unused-for", "0s")
    error = UsageError(
        f"no tag matches {patterns}: prune would remove {removed:,} of {len(tags):,} tags",
        path=path,
        hints=(
            *(f"did you mean {name!r}?" for name in similar if name),
            f"to remove them anyway, add {add}",
        ),
    )
    error.effect = NOTHING_CHANGED
    raise error


def _spell_addition(policy: PrunePolicy, key: str, value: str | None = None) -> str:
    """Return the addition to the policy: a key and its value, in a file a line of TOML."""
    if not policy.source:
        return policy.spell(key, value)
    return f"{key} = {'true' if value is None else json.dumps(value)}"


def _record(store: EditableStore, choice: _Choice) -> None:
    """Update the records of last uses, if possible; a repair restores tags from them."""
    removed = [d.ref_name for d in choice.decisions if not d.keep and d.ref_name is not None]
    with suppress(KitcacheError):
        store.write_tag_uses(dict.fromkeys(removed, TagUse()))
    move_recorded_exports(store, choice.trim_plan.moved_exports)


def _make_result(done: EditResult[_Choice] | None, reset: ResetResult) -> PruneResult:
    if done is None:
        return PruneResult(reset.path, reset.outcome, (), (), reset, None, None, reset.reason)
    choice = done.choice
    outcome: Literal["done", "dry-run"] = "dry-run" if reset.outcome == "dry-run" else "done"
    limit, plan = choice.limit, choice.trim_plan
    result = PruneResult(
        path=reset.path,
        outcome=reset.outcome,
        tags=choice.decisions,
        trimmed=tuple(
            plan.describe(trim, reset.path, outcome, limit.bytes if limit else 0, plan.after)
            for trim in plan.trims
        ),
        reset=reset,
        limit_bytes=None,
        needed_bytes=None,
        reason=reset.reason,
    )
    if limit is None:
        return result
    held_bytes = choice.held_bytes(limit)
    result = result._replace(limit_bytes=limit.bytes - held_bytes)
    if choice.excess_bytes(limit) <= 0:
        return result
    needed_bytes = choice.kept_bytes(limit) - held_bytes
    needed, allowed = format_distinct(needed_bytes, limit.wanted_bytes)
    excess = format_bytes(choice.excess_bytes(limit))
    reason = f"the kept tags need {needed}, {excess} more than {limit.spell(allowed)} allows"
    if held_bytes:
        held = format_bytes(held_bytes)
        reason += f"; another {held} would free nothing, because it is linked elsewhere or young"
    if plan.trims:
        was = "was" if outcome == "done" else "would be"
        reason += f", although each tag that a trim makes smaller {was} trimmed to one step"
    return result._replace(needed_bytes=needed_bytes, reason=reset.reason or reason)


def limit_error(result: PruneResult, policy: PrunePolicy = _EMPTY_POLICY) -> LimitNotReached | None:
    """Return the error for a limit that was not reached, None if there is none.

    Args:
        policy: The policy that named the limit, for the hints.
    """
    if result.needed_bytes is None or result.limit_bytes is None:
        return None
    untagged = [
        d for d in result.tags if d.ref_name is None and d.unique.bytes and -1 not in d.positions
    ]
    is_done = result.outcome == "done"
    return LimitNotReached(
        result.path,
        result.reason,
        limit_bytes=result.limit_bytes,
        needed_bytes=result.needed_bytes,
        details=tuple(
            f"{d.digest} has no tag; {format_bytes(d.unique.bytes)} belong to it alone"
            for d in untagged[:_MAX_DETAILS]
        ),
        effect="every tag that may be removed was removed; other tags are unchanged"
        if is_done
        else NOTHING_CHANGED,
        hints=tuple(
            _limit_hints(result, policy, result.needed_bytes, result.limit_bytes, untagged)
        ),
    )


def _limit_hints(
    result: PruneResult,
    policy: PrunePolicy,
    needed_bytes: int,
    limit_bytes: int,
    untagged: Sequence[TagDecision],
) -> Iterator[str]:
    """Yield the options that would help and that the policy does not have."""
    excess = needed_bytes - limit_bytes
    if limit_bytes < 0:
        yield f"free {format_bytes(excess)} elsewhere on the disk: an empty cache is not enough"
        yield f"loosen the limit by {excess:,} bytes"
        return
    if policy.max_used is not None and policy.min_free is None:
        enough = _spell_addition(policy, "max-used-space", f"{needed_bytes}B")
        yield f"allow that much: {enough}"
    else:
        yield f"loosen the limit by {excess:,} bytes"
    yield from (command_line("untag", result.path, str(d.digest)) for d in untagged[:1])
    if not policy.trim:
        yield f"make the kept tags smaller: {_spell_addition(policy, 'trim')}"
    reasons = {d.reason for d in result.tags if d.keep and d.ref_name is not None}
    if LAST_TAG in reasons and not policy.allow_empty:
        yield f"allow the last tag to be removed: {_spell_addition(policy, 'allow-empty')}"
    if reasons - {LAST_TAG, ALIAS}:
        yield "protect fewer tags"
