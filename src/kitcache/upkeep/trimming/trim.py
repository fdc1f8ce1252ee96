"""Make a tag smaller: its coldest steps go, with the layers that only they needed."""

import os
import time
from collections.abc import Mapping
from threading import Event
from typing import Literal, NamedTuple

from kitcache.errors import (
    NOTHING_CHANGED,
    Damaged,
    KitcacheError,
    LimitNotReached,
    NotFound,
    Unsafe,
    UsageError,
)
from kitcache.gc.collect import SurveyedPlan
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.ls import kind_below
from kitcache.gc.reach import reach
from kitcache.gc.reset import LOCK_TIMEOUT_S, make_reset_result
from kitcache.gc.values import Root, Survey
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.options.sweep import SweepOptions
from kitcache.options.units import format_distinct
from kitcache.store.directory import DirectoryStore
from kitcache.store.files import INDEX
from kitcache.store.ioerrors import command_line, repair_command
from kitcache.store.locks import lock_store
from kitcache.store.open import open_store
from kitcache.upkeep.edit import EditContext, IndexEdit, dry_run_edit, edit_and_collect
from kitcache.upkeep.results import TrimResult
from kitcache.upkeep.trimming.steporder import weigh_steps
from kitcache.upkeep.trimming.trimplan import (
    TrimPlan,
    cut_roots,
    describe_cut,
    layer_uses,
    move_note,
    read_tree,
    tally_below,
)

_POLICY = SweepOptions()
_WORDS = {"image": "an image", "artifact": "an artifact", "cache": "holds build caches"}


def trim(
    path: str | os.PathLike[str],
    tag: str,
    max_used_bytes: int,
    *,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> TrimResult:
    """Cut a tag's coldest steps until all that it reaches fits the limit, and sweep as reset does.

    A step goes before those that it was made from; of these the coldest is the one that was of use
    the longest ago: read by an import, where that is noted, else made. Success guarantees: the tag
    reaches no more than the limit; each step that is kept has the layers that it had, and all the
    steps that an import finds it through; no other entry of index.json moved. A tag that fits is
    left as it is, and nothing is swept. A crash at any point leaves the tag as it was, or trimmed.

    The other arguments are as in reset. Raises NotFound (no such tag), UsageError (it stands for
    several things), LimitNotReached (its last step alone needs more), KitcacheError (it is no
    cache), Damaged, and what reset raises; then nothing was changed, unless the error says what had
    been done by then.
    """
    started = time.monotonic()
    name = os.fspath(path)
    control = Control(name, on_progress, cancel)
    terms = EditContext(_POLICY, control, lock_timeout_s)

    def choose(layout: DirectoryStore, judged: SurveyedPlan) -> tuple[IndexEdit, _Choice]:
        choice = _choose(layout, judged.survey, tag, max_used_bytes)
        return IndexEdit(move=choice.cutting.moves), choice

    try:
        with open_store(name) as layout:
            if dry_run:
                changed = dry_run_edit(layout, choose, terms)
            else:
                with lock_store(layout, "exclusive", control.wait_policy(lock_timeout_s)) as held:
                    changed = edit_and_collect(held, choose, terms)
                    layout.finish_sweep()
                    move_note(layout, changed.choice.cutting.cuts[0])
    except _FitsError as fits:
        return fits.answer
    outcome: Literal["done", "dry-run"] = "dry-run" if dry_run else "done"
    choice = changed.choice
    trimmed = describe_cut(
        choice.cutting.cuts[0],
        choice.survey,
        choice.cutting.after,
        choice.used,
        path=name,
        outcome=outcome,
        limit_bytes=max_used_bytes,
        now_ns=choice.now_ns,
    )
    report = make_reset_result(name, outcome, changed.judged, changed.swept, started)
    return trimmed._replace(reset=report)


class _FitsError(Exception):
    """There is nothing to cut, so nothing is touched. answer: what there is."""

    def __init__(self, answer: TrimResult) -> None:
        super().__init__()
        self.answer = answer


class _Choice(NamedTuple):
    """What is to be cut, as it was decided: by that survey, those uses of layers, at that time.

    cutting: all of its cuts are of one root, to one other.
    """

    survey: Survey
    used: Mapping[Digest, int]
    now_ns: int
    cutting: TrimPlan


def _choose(layout: DirectoryStore, survey: Survey, tag: str, limit_bytes: int) -> _Choice:
    """What to cut from the tag. Raises _FitsError, and what says why nothing can be."""
    roots, descriptor = _roots_of(layout, survey, tag)
    used, now_ns = layer_uses(layout), time.time_ns()
    positions = [root.position for root in roots]
    cutting = cut_roots(layout, survey, roots, positions, limit_bytes, used=used, now_ns=now_ns)
    if positions[0] not in cutting.trees:
        raise _no_tree(layout, survey, roots[0], descriptor)
    needed_bytes = cutting.after.live_tally.bytes
    if needed_bytes > limit_bytes:
        raise _too_large(layout, survey, roots[0], needed_bytes, limit_bytes)
    if cutting.cuts:
        return _Choice(survey, used, now_ns, cutting)
    size, digest = tally_below(survey, descriptor), descriptor.digest
    steps, _ = weigh_steps(cutting.trees[positions[0]], None, used, survey.live, now_ns)
    raise _FitsError(
        TrimResult(
            layout.path, "unchanged", tag, limit_bytes, digest, size, digest, size, steps, ()
        )
    )


def _roots_of(layout: DirectoryStore, survey: Survey, tag: str) -> tuple[list[Root], Descriptor]:
    """All entries of the tag, and what they all stand for. Raises NotFound, UsageError."""
    roots = [root for root in survey.roots if root.ref_name == tag]
    found = {root.descriptor.digest: root.descriptor for root in roots if root.descriptor}
    if not found:
        from kitcache.options.attributes import suggest  # noqa: PLC0415 - only a message needs it

        meant = suggest(tag, [root.ref_name for root in survey.roots if root.ref_name])
        raise NotFound(
            layout.path,
            f"no entry of {INDEX} has the tag {tag!r}",
            effect=NOTHING_CHANGED,
            hints=(
                *((f"did you mean {meant!r}?",) if meant else ()),
                f"see what there is: {command_line('ls', layout.path)}",
            ),
        )
    if len(found) > 1:
        all_tags = command_line("prune", layout.path, "--trim", "--keep-tag", "*")
        one_alone = command_line("tag", layout.path, str(next(iter(found))), tag)
        raise UsageError(
            f"{tag!r} stands for {len(found)} things in {INDEX}",
            path=layout.path,
            details=tuple(map(str, found)),
            hints=(
                f"trim all that the tags reach: {all_tags} --max-used-space SIZE",
                f"let it stand for one of them: {one_alone}",
            ),
        )
    return roots, next(iter(found.values()))


def _too_large(
    layout: DirectoryStore, survey: Survey, root: Root, needed_bytes: int, limit_bytes: int
) -> LimitNotReached:
    allowed, needed = format_distinct(limit_bytes, needed_bytes)
    digest = root.descriptor.digest if root.descriptor else None
    name = root.ref_name or ""
    if not name.isprintable() or name.startswith("-"):
        others = [r for r in survey.roots if r.descriptor and r.descriptor.digest == digest]
        name = str(digest) if len(others) == 1 else ""
    give_up = f"give the tag up: {command_line('untag', layout.path, name)}"
    return LimitNotReached(
        layout.path,
        f"{root.label} cannot be trimmed to {allowed}: its last step alone needs {needed}",
        limit_bytes=limit_bytes,
        needed_bytes=needed_bytes,
        hints=(
            "allow that much",
            *((give_up,) if name else ()),
        ),
    )


def _no_tree(
    layout: DirectoryStore, survey: Survey, root: Root, descriptor: Descriptor
) -> KitcacheError:
    """Why the tag is no cache, or none that can be trimmed."""
    try:
        read_tree(layout, descriptor)
    except (Damaged, Unsafe) as error:
        error.problem = f"{root.label} cannot be trimmed: its cacheconfig {error.problem}"
        error.tag, error.effect = root.ref_name, NOTHING_CHANGED
        error.hints = (repair_command(layout.path),)
        return error
    found = reach(survey, descriptor, with_subjects=False)
    kind = kind_below(survey, descriptor, found)
    what = _WORDS.get(kind, "something else")
    see = (f"see what each tag is: {command_line('ls', layout.path)}",)
    return KitcacheError(
        layout.path,
        f"{root.label} is no build cache, but {what}: there are no steps to cut",
        effect=NOTHING_CHANGED,
        hints=see if kind != "cache" else (),
    )
