"""The trim command: remove the least recently used steps of a tag, and their layers."""

import time
from threading import Event
from typing import Literal

from kitcache.errors import (
    NOTHING_CHANGED,
    Damaged,
    KitcacheError,
    LimitNotReached,
    NotConfirmed,
    Unsafe,
    UsageError,
)
from kitcache.gc.collect import SurveyedPlan
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.ls import kind_below
from kitcache.gc.reach import reach, reached_elsewhere
from kitcache.gc.reset import LOCK_TIMEOUT_S, make_reset_result
from kitcache.gc.values import Root, Survey
from kitcache.oci.descriptor import Descriptor
from kitcache.options.sweep import SweepOptions
from kitcache.options.units import format_distinct
from kitcache.store.ioerrors import command_line, repair_command
from kitcache.store.open import StoreAddress, address_text, open_store
from kitcache.store.protocol import EditableStore
from kitcache.upkeep.edit import EditContext, IndexEdit, dry_run_edit, edit_and_collect
from kitcache.upkeep.naming.tagnames import unknown_tag_error
from kitcache.upkeep.results import TrimResult
from kitcache.upkeep.rewrite import move_recorded_exports
from kitcache.upkeep.trimming.steporder import describe_steps
from kitcache.upkeep.trimming.trimplan import (
    TrimPlan,
    layer_uses,
    plan_trims,
    read_cache,
    tally_below,
)

_DEFAULT_OPTIONS = SweepOptions()
_KINDS = {"image": "an image", "artifact": "an artifact", "cache": "an index of build caches"}


def trim(
    path: StoreAddress,
    tag: str,
    max_used_bytes: int,
    *,
    options: SweepOptions = _DEFAULT_OPTIONS,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> TrimResult:
    """Remove a tag's steps until all blobs that it reaches fit the limit, then sweep as reset does.

    A step is removed before the steps it was built from. Of the steps that can be removed, the
    least recently used is removed first. The last use of a step is its last recorded import or its
    creation, whichever is later.

    Guarantees on success: The tag reaches at most max_used_bytes. Each kept step has its layers and
    the steps it was built from. No other entry of index.json changed. If the tag fits already, it
    is not changed and nothing is swept. After a crash the tag is either unchanged or trimmed.

    Args:
        tag: The ref name of one or more entries with the same root.
        max_used_bytes: The limit. The other arguments are as in reset.

    Raises:
        NotFound: There is no such tag.
        UsageError: The tag names several roots.
        LimitNotReached: The last step alone exceeds the limit.
        Damaged: The cacheconfig is invalid, or reset would refuse.
        KitcacheError: The tag is not a cache. Unless the error states otherwise, nothing was
            changed.
    """
    started = time.monotonic()
    name = address_text(path)
    control = Control(name, on_progress, cancel)
    context = EditContext(options, control, lock_timeout_s)

    def choose(store: EditableStore, planned: SurveyedPlan) -> tuple[IndexEdit, TrimPlan]:
        plan = _plan_trim(store, planned.survey, tag, max_used_bytes)
        return IndexEdit(move=plan.moves), plan

    try:
        with open_store(path) as store:
            is_dry = dry_run
            if not is_dry:
                try:
                    with store.lock("exclusive", control.wait_policy(lock_timeout_s)) as held:
                        done = edit_and_collect(held, choose, context)
                        store.finish_sweep()
                        move_recorded_exports(store, done.choice.moved_exports)
                except NotConfirmed:
                    is_dry = True
            if is_dry:
                done = dry_run_edit(store, choose, context)
            outcome: Literal["done", "dry-run"] = "dry-run" if is_dry else "done"
            reset = make_reset_result(store, outcome, done.judged, done.swept, started)
    except _FitsAlready as fits:
        return fits.result
    # All trims of the plan replace one root by one other.
    plan = done.choice
    result = plan.describe(plan.trims[0], name, outcome, max_used_bytes, plan.before)
    return result._replace(reset=reset._replace(reason=done.doubt))


class _FitsAlready(Exception):
    """Ends the edit before index.json is changed. result: Of the unchanged tag."""

    def __init__(self, result: TrimResult) -> None:
        super().__init__()
        self.result = result


def _plan_trim(store: EditableStore, survey: Survey, tag: str, limit_bytes: int) -> TrimPlan:
    """Plan the trim of one tag. Raises _FitsAlready, LimitNotReached, or as trim."""
    roots, descriptor = _find_roots(store, survey, tag)
    used, now_ns = layer_uses(store), store.now_ns()
    positions = [root.position for root in roots]
    plan = plan_trims(store, survey, roots, positions, limit_bytes, used=used, now_ns=now_ns)
    if positions[0] not in plan.caches:
        raise _not_a_cache(store, survey, roots[0], descriptor)
    needed_bytes = plan.after.live_tally.bytes
    if needed_bytes > limit_bytes:
        raise _limit_not_reached(store, survey, roots[0], needed_bytes, limit_bytes)
    if plan.trims:
        return plan
    size, digest = tally_below(survey, descriptor), descriptor.digest
    steps, _ = describe_steps(
        plan.caches[positions[0]],
        None,
        used,
        survey.live,
        elsewhere=reached_elsewhere(survey, positions),
        now_ns=now_ns,
    )
    raise _FitsAlready(
        TrimResult(store.path, "unchanged", tag, limit_bytes, digest, size, digest, size, steps, ())
    )


def _find_roots(store: EditableStore, survey: Survey, tag: str) -> tuple[list[Root], Descriptor]:
    """Return all entries of the tag and their one root. Raises NotFound, UsageError."""
    roots = [root for root in survey.roots if root.ref_name == tag]
    named = {root.descriptor.digest: root.descriptor for root in roots if root.descriptor}
    if not named:
        names = [root.ref_name for root in survey.roots]
        raise unknown_tag_error(store, f"the tag {tag!r}", tag, names)
    if len(named) > 1:
        retag = command_line("tag", store.path, str(next(iter(named))), tag)
        raise UsageError(
            f"{tag!r} names {len(named)} roots in {store.roots_name}",
            path=store.path,
            details=tuple(map(str, named)),
            hints=(
                "trim everything that the tags reach",
                f"let the tag name one of them: {retag}",
            ),
        )
    return roots, next(iter(named.values()))


def _limit_not_reached(
    store: EditableStore, survey: Survey, root: Root, needed_bytes: int, limit_bytes: int
) -> LimitNotReached:
    allowed, needed = format_distinct(limit_bytes, needed_bytes)
    digest = root.descriptor.digest if root.descriptor else None
    name = root.ref_name or ""
    if not name.isprintable() or name.startswith("-"):
        others = [r for r in survey.roots if r.descriptor and r.descriptor.digest == digest]
        name = str(digest) if len(others) == 1 else ""
    untag = f"remove the tag: {command_line('untag', store.path, name)}"
    return LimitNotReached(
        store.path,
        f"{root.label} cannot be trimmed to {allowed}: its last step alone needs {needed}",
        limit_bytes=limit_bytes,
        needed_bytes=needed_bytes,
        hints=("allow that much", *((untag,) if name else ())),
    )


def _not_a_cache(
    store: EditableStore, survey: Survey, root: Root, descriptor: Descriptor
) -> KitcacheError:
    """Return the error for a tag that is not a cache, or is an invalid cache."""
    try:
        read_cache(store, descriptor)
    except (Damaged, Unsafe) as error:
        error.problem = f"{root.label} cannot be trimmed: its cacheconfig {error.problem}"
        error.tag, error.effect = root.ref_name, NOTHING_CHANGED
        error.hints = (repair_command(store.path),)
        return error
    kind = kind_below(survey, descriptor, reach(survey, descriptor, with_subjects=False))
    return KitcacheError(
        store.path,
        f"{root.label} is not a build cache but {_KINDS.get(kind, 'something else')}:"
        " it has no steps to remove",
        effect=NOTHING_CHANGED,
        hints=("list the tags",) if kind != "cache" else (),
    )
