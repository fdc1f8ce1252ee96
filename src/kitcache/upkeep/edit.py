"""Judge, decide, edit index.json once, sweep: what prune and trim do under one exclusive lock.

New blobs come first, then the edit, then the blobs that nobody reaches any more go: a crash at any
point leaves garbage, and the next reset finishes the work.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

from kitcache.errors import Busy, Cancelled, Damaged, KitcacheError, Unsafe
from kitcache.gc.collect import (
    MAX_RETRIES,
    SurveyedPlan,
    add_sweeps,
    after_deleting,
    collect,
    index_unstable_error,
    survey_and_plan,
)
from kitcache.gc.control import Control
from kitcache.gc.plan import make_plan
from kitcache.gc.sweep import dry_run_sweep
from kitcache.gc.values import Survey, SweepResult
from kitcache.oci.digest import Digest
from kitcache.oci.index import edit_entries
from kitcache.options.sweep import SweepOptions
from kitcache.store.directory import DirectoryStore
from kitcache.store.index import INDEX, publish_index, read_index
from kitcache.store.locks import lock_index
from kitcache.store.protocol import HeldLock
from kitcache.store.scan import uploads_changed_ns
from kitcache.store.state import delete_stale_files, open_state_dir
from kitcache.upkeep.project import NewContent, project
from kitcache.upkeep.rewrite import RewrittenRoot, write_root

Choice = TypeVar("Choice")


class IndexEdit(NamedTuple):
    """What is to become of entries of index.json, which go by their positions.

    drop: they go. move: they get a new root, which reaches nothing that was not live before.
    """

    drop: frozenset[int] = frozenset()
    move: Mapping[int, RewrittenRoot] = {}

    @property
    def is_empty(self) -> bool:
        """Whether index.json stays as it is."""
        return not self.drop and not self.move


class EditResult(NamedTuple, Generic[Choice]):
    """What was decided last, what a survey finds after it, and what was removed in all."""

    choice: Choice
    judged: SurveyedPlan
    swept: SweepResult


Choose = Callable[[DirectoryStore, SurveyedPlan], tuple[IndexEdit, Choice]]
"""Decides what is to change, and why: on a store without damage, in which nobody publishes."""


class EditContext(NamedTuple):
    """policy: what the sweep spares. lock_timeout_s: for BuildKit's lock."""

    options: SweepOptions
    control: Control
    lock_timeout_s: float


class IndexChangedError(Exception):
    """Others were at work since the survey: what was decided no longer holds."""


def dry_run_edit(
    layout: DirectoryStore, choose: Choose[Choice], terms: EditContext
) -> EditResult[Choice]:
    """What change_and_collect would do: the same steps, without a lock and without a write."""
    judged = survey_and_plan(layout, terms.options, terms.control, None)
    change, choice = choose(layout, judged)
    after = _look_ahead(layout, judged, change, terms, judged.survey.index_digest)
    swept = dry_run_sweep(after.plan, layout, terms.control)
    if swept.failure is not None:
        raise swept.failure
    return EditResult(choice, after, swept)


def edit_and_collect(
    held: HeldLock[DirectoryStore], choose: Choose[Choice], terms: EditContext
) -> EditResult[Choice]:
    """Survey, let `choose` decide, change index.json in one step, and remove what is left behind.

    Decides anew where others changed index.json before it was written. Raises as reset does; once
    entries have been changed the error says so.
    """
    layout, total = held.store, SweepResult()
    try:
        for _ in range(MAX_RETRIES):
            judged = survey_and_plan(layout, terms.options, terms.control, held)
            change, choice = choose(layout, judged)
            try:
                after = _carry_out(layout, judged, change, terms)
            except IndexChangedError:
                continue
            except (Busy, Cancelled, Damaged, Unsafe):
                raise
            except KitcacheError:
                # On a full disk there is room for an index once the garbage has gone.
                swept = _make_room(held, judged, terms)
                if not swept.deleted.bytes:
                    raise
                total = add_sweeps(total, swept)
                continue
            try:
                after, swept = collect(held, terms.options, terms.control, after)
            except KitcacheError as error:
                raise _after_changing(error, change) from None
            return EditResult(choice, after, add_sweeps(total, swept))
        raise index_unstable_error(layout.path)
    except KitcacheError as error:
        raise (after_deleting(error, total) if total.deleted.blobs else error) from None


def _carry_out(
    layout: DirectoryStore, judged: SurveyedPlan, change: IndexEdit, terms: EditContext
) -> SurveyedPlan:
    """Put the change on the disk: what a survey finds then. Raises _OvertakenError."""
    if change.is_empty:
        return judged
    digest = _write(layout, judged.survey, change, terms)
    return _look_ahead(layout, judged, change, terms, digest)


def _make_room(
    held: HeldLock[DirectoryStore], judged: SurveyedPlan, terms: EditContext
) -> SweepResult:
    """A reset, if index.json is what it was: where a new one is not safe yet, nothing may go."""
    if read_index(held.store).digest != judged.survey.index_digest:
        return SweepResult()
    return collect(held, terms.options, terms.control, judged)[1]


def _write(layout: DirectoryStore, survey: Survey, change: IndexEdit, terms: EditContext) -> Digest:
    """Write new roots, then index.json: the digest of its bytes. Raises _OvertakenError."""
    moves = {position: write_root(layout, new) for position, new in change.move.items()}

    def edit(data: bytes | None) -> tuple[bytes, Digest]:
        # An upload that has ended meanwhile may be about to be published.
        has_uploads = uploads_changed_ns(layout) != survey.ingest_changed_ns
        if data is None or _digest_of(data) != survey.index_digest or has_uploads:
            raise IndexChangedError
        after = edit_entries(data, remove=change.drop, move=moves)
        return after, _digest_of(after)

    lock = lock_index(layout, terms.control.wait_policy(terms.lock_timeout_s))
    with open_state_dir(layout) as room_fd:
        if room_fd is not None:
            delete_stale_files(room_fd)
        return publish_index(layout, room_fd, lock, edit)


def _look_ahead(
    layout: DirectoryStore,
    judged: SurveyedPlan,
    change: IndexEdit,
    terms: EditContext,
    index_digest: Digest,
) -> SurveyedPlan:
    """What a survey finds once that index.json is in place, without one."""
    if change.is_empty:
        return judged
    survey, plan = judged
    move = {position: NewContent(n.manifest, n.config) for position, n in change.move.items()}
    after = project(survey, drop=change.drop, move=move, index_digest=index_digest)
    if terms.options.min_age_ns:
        given_up = survey.live.keys() - after.live.keys()
        young = [d for d in given_up if _is_young(layout, d, plan.young_since_ns)]
        after = project(survey, drop=change.drop, move=move, young=young, index_digest=index_digest)
    made = make_plan(after, terms.options, time.time_ns())
    return SurveyedPlan(after, plan._replace(index_digest=made.index_digest, keep=made.keep))


def _is_young(layout: DirectoryStore, digest: Digest, since_ns: float) -> bool:
    found = layout.stat_blob(digest)
    return found is not None and found.mtime_ns >= since_ns


def _digest_of(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def _after_changing(error: KitcacheError, change: IndexEdit) -> KitcacheError:
    """The same failure, honest about what had become of index.json when it came."""
    said = [
        f"{count:,} {'entry' if count == 1 else 'entries'} of {INDEX} had been {what}"
        for count, what in ((len(change.drop), "taken out"), (len(change.move), "made smaller"))
        if count
    ]
    if said:
        error.effect = "; ".join(filter(None, (*said, error.effect)))
        error.hints = (*error.hints, "the next reset finishes what is left")
    return error
