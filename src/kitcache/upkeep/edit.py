"""An edit of index.json, then a sweep, under one exclusive lock. prune and trim use it.

New blobs are written first, then index.json, then the unreachable blobs are deleted. A crash at any
point leaves unreachable blobs, and the next reset deletes them.
"""

from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

from kitcache.errors import Busy, Cancelled, Damaged, KitcacheError, Unsafe
from kitcache.gc.collect import (
    IndexChangedError,
    SurveyedPlan,
    add_sweeps,
    after_deleting,
    check_dry_run,
    collect,
    retry_if_changed,
    survey_and_plan,
)
from kitcache.gc.control import Control
from kitcache.gc.plan import make_plan
from kitcache.gc.sweep import dry_run_sweep
from kitcache.gc.values import SweepResult, Tally
from kitcache.oci.digest import Digest, sha256_of
from kitcache.oci.index import edit_entries
from kitcache.options.sweep import SweepOptions
from kitcache.store.protocol import CollectableStore, EditableStore
from kitcache.store.values import HeldLock
from kitcache.upkeep.project import RewrittenRoot, project
from kitcache.upkeep.rewrite import write_root

Choice = TypeVar("Choice")


class IndexEdit(NamedTuple):
    """A change of entries of index.json, by position.

    Attributes:
        drop: The entries to remove.
        move: The new roots of entries. They reach no blob that was not live before.
    """

    drop: frozenset[int] = frozenset()
    move: Mapping[int, RewrittenRoot] = {}

    @property
    def is_empty(self) -> bool:
        """Return True if index.json does not change."""
        return not self.drop and not self.move


class EditResult(NamedTuple, Generic[Choice]):
    """The result of an edit and its sweep.

    Attributes:
        choice: The last decision.
        judged: The survey and the plan after the edit.
        swept: The blobs and uploads that were deleted, in total.
        doubt: Of a dry run: why a run would delete nothing until it is confirmed.
    """

    choice: Choice
    judged: SurveyedPlan
    swept: SweepResult
    doubt: str = ""


Choose = Callable[[EditableStore, SurveyedPlan], tuple[IndexEdit, Choice]]
"""Returns the edit and the decision behind it. The store has no damage, and no client publishes."""


class EditContext(NamedTuple):
    """How to sweep, report and stop. lock_timeout_s: For BuildKit's lock."""

    options: SweepOptions
    control: Control
    lock_timeout_s: float


def dry_run_edit(
    store: EditableStore, choose: Choose[Choice], context: EditContext
) -> EditResult[Choice]:
    """Return what edit_and_collect would do; acquire no lock and write nothing."""
    surveyed = survey_and_plan(store, context.options, context.control, None)
    edit, choice = choose(store, surveyed)
    after = _project(store, surveyed, edit, context, surveyed.survey.index_digest)
    doubt = check_dry_run(store, surveyed.survey, after.survey, context.options)
    swept = dry_run_sweep(after.plan, store, context.control)
    if swept.failure is not None:
        raise swept.failure
    return EditResult(choice, after, _with_freed(swept, surveyed, after), doubt)


def edit_and_collect(
    lock: HeldLock[EditableStore], choose: Choose[Choice], context: EditContext
) -> EditResult[Choice]:
    """Survey, call `choose`, commit its edit, and delete the blobs that are unreachable then.

    If another process changes index.json first, it starts again. Raises as reset does; if entries
    were changed before the error, its effect names them.
    """
    store, total = lock.store, SweepResult()

    def attempt() -> EditResult[Choice]:
        nonlocal total
        surveyed = survey_and_plan(store, context.options, context.control, lock)
        edit, choice = choose(store, surveyed)
        try:
            edited = _commit(store, surveyed, edit, context)
        except (Busy, Cancelled, Damaged, Unsafe):
            raise
        except KitcacheError:
            # On a full disk, deleting unreachable blobs may free the space that index.json needs.
            # If it was replaced before the error, a power cut can undo that, so delete nothing.
            if store.read_roots(context.control.pause).version != surveyed.survey.index_digest:
                raise
            swept = collect(lock, context.options, context.control, surveyed)[1]
            if not swept.deleted.bytes:
                raise
            total = add_sweeps(total, swept)
            raise IndexChangedError from None
        try:
            after, swept = collect(lock, context.options, context.control, edited)
        except KitcacheError as error:
            raise _after_edit(error, edit, store.roots_name) from None
        swept = _with_freed(add_sweeps(total, swept), surveyed, edited)
        return EditResult(choice, after, swept)

    try:
        return retry_if_changed(store, attempt)
    except KitcacheError as error:
        raise (after_deleting(error, total) if total.deleted.blobs else error) from None


def _commit(
    store: EditableStore, surveyed: SurveyedPlan, edit: IndexEdit, context: EditContext
) -> SurveyedPlan:
    """Write new roots, then index.json. Return the survey and plan after it.

    Raises IndexChangedError.
    """
    if edit.is_empty:
        return surveyed
    survey = surveyed.survey
    if store.blobs_are_leaves:
        after = project(survey, drop=edit.drop, move=edit.move, index_digest=survey.index_digest)
        store.check_sweep(after.live.keys(), may_write=True)
        store.prepare_sweep(survey.live.keys())
    moves = {position: write_root(store, root) for position, root in edit.move.items()}

    def change(data: bytes | None) -> bytes:
        # A client may be about to publish an upload that has ended since the survey.
        has_uploads = store.writer_activity().changed_ns != survey.ingest_changed_ns
        if data is None or sha256_of(data) != survey.index_digest or has_uploads:
            raise IndexChangedError
        return edit_entries(data, remove=edit.drop, move=moves)

    roots = store.commit_roots(change, context.control.wait_policy(context.lock_timeout_s))
    if roots is None:
        raise IndexChangedError
    return _project(store, surveyed, edit, context, roots.version)


def _project(
    store: CollectableStore,
    surveyed: SurveyedPlan,
    edit: IndexEdit,
    context: EditContext,
    index_digest: Digest,
) -> SurveyedPlan:
    """Return the survey and plan of the edited index.json, without a new survey."""
    if edit.is_empty:
        return surveyed
    survey, plan = surveyed
    after = project(survey, drop=edit.drop, move=edit.move, index_digest=index_digest)
    if context.options.min_age_ns and not store.blobs_are_leaves:
        unreferenced = survey.live.keys() - after.live.keys()
        stats = store.stat_blobs(unreferenced)
        young = [digest for digest, stat in stats if stat.mtime_ns >= plan.young_since_ns]
        after = project(
            survey, drop=edit.drop, move=edit.move, young=young, index_digest=index_digest
        )
    remembered = plan.remembered
    if store.blobs_are_leaves and context.options.export_time_ns:
        # A build that runs now may have imported a root that this edit removes.
        names = {digest.hex for digest in survey.live}.union(*remembered.names.values())
        remembered = remembered._replace(names={"sha256": names})
    made = make_plan(after, context.options, store.now_ns(), remembered)
    return SurveyedPlan(
        after,
        plan._replace(
            index_digest=made.index_digest,
            keep=made.keep,
            remembered=remembered,
            recent=made.recent,
        ),
    )


def _with_freed(swept: SweepResult, before: SurveyedPlan, after: SurveyedPlan) -> SweepResult:
    """Return the result of the sweep with the tally of the blobs that the edit has freed."""
    if after is before:
        return swept
    survey, recent = after.survey, after.plan.recent
    freed = [
        size
        for digest, size in before.survey.live.items()
        if digest not in survey.live
        and digest not in survey.young
        and digest.hex not in recent.get(digest.algorithm, ())
    ]
    # In an object store, blobs can be too young without a record of an earlier run.
    tally = min(Tally(len(freed), sum(freed)), swept.deleted)
    return swept._replace(freed=tally)


def _after_edit(error: KitcacheError, edit: IndexEdit, roots_name: str) -> KitcacheError:
    """Add the changes of the roots to the effect of an error."""
    clauses = [
        f"{count:,} {'entry' if count == 1 else 'entries'} of {roots_name} had been {verb}"
        for count, verb in ((len(edit.drop), "removed"), (len(edit.move), "trimmed"))
        if count
    ]
    if clauses:
        error.effect = "; ".join(filter(None, (*clauses, error.effect)))
        error.hints = (*error.hints, "the next reset deletes the unreachable blobs")
    return error
