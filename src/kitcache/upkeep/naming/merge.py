"""Several caches into one: lock, survey, decide, bring the blobs, then one edit of index.json.

A crash at any point leaves the target's own tags as they were, and blobs that the next merge finds
there, or the next reset removes.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from threading import Event
from typing import Literal, NamedTuple, TypeVar

from kitcache.errors import (
    NOTHING_CHANGED,
    NOTHING_DELETED,
    Busy,
    Cancelled,
    Damaged,
    KitcacheError,
    NotACache,
    UsageError,
)
from kitcache.gc.collect import MAX_RETRIES
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.refusals import hole_error
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.gc.values import Root, Survey
from kitcache.oci.index import copy_entries, read_entries
from kitcache.options.renames import Rename, read_rename
from kitcache.store import state
from kitcache.store.create import find_layout, make_index, make_layout
from kitcache.store.directory import DirectoryStore
from kitcache.store.index import replace_index_if_unchanged
from kitcache.store.layout import look_at_open
from kitcache.store.locks import describe_unlocked, lock_index, lock_store
from kitcache.store.open import open_store
from kitcache.store.protocol import LockKind
from kitcache.upkeep.naming.blobcopy import (
    BlobCopy,
    CopyCounts,
    CopyPlan,
    bring_all,
    dry_run,
    find_lost,
    list_wants,
)
from kitcache.upkeep.naming.mergeplan import EntryGroup, MergeCache, decide
from kitcache.upkeep.naming.missing import find_missing, find_unknown
from kitcache.upkeep.naming.stableindex import index_unstable_error, read_settled, read_target
from kitcache.upkeep.results import MergeResult

_Text = TypeVar("_Text", bound=str | os.PathLike[str])
_NO_TAG_CHANGED = (
    "no tag was changed; blobs that had come by then stay, for the next merge or reset"
)


class _SourceCache(NamedTuple):
    """A cache that is merged from, its index.json, and the survey of just that."""

    layout: DirectoryStore
    data: bytes
    survey: Survey

    @property
    def side(self) -> MergeCache:
        """The same, as the plan wants it."""
        path = self.layout.path
        return MergeCache(path, os.path.basename(os.path.abspath(path)), read_entries(self.data))


class _MergeOptions(NamedTuple):
    """What a caller wants. began_s: monotonic; lock_timeout_s: of all locks together."""

    sources: tuple[str, ...]
    target: str
    renames: tuple[Rename, ...]
    replaces: bool
    is_dry: bool
    control: Control
    began_s: float
    lock_timeout_s: float

    @property
    def left_s(self) -> float:
        """How long a lock may still be waited for."""
        return max(0.0, self.began_s + self.lock_timeout_s - time.monotonic())


def merge(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    rename: str | Sequence[str] = (),
    replace: bool = False,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> MergeResult:
    """Put all tags of the sources, and their entries without one, into the target too.

    The target is made where it is not there. Blobs come as hard links where that can be, else as
    copies that were proven. rename: renames, each `[GLOB=]TEMPLATE` (options/renames.py). replace:
    a tag of the target that stands for something else moves.

    Success guarantees: every tag of the sources stands in the target for what it stands for in its
    source, and all of that is there; all other entries and all unknown fields are what they were;
    index.json was replaced in one step, after all blobs were on the disk. What is noted of last
    uses counts in the target too. In the sources nothing changes but their lock files.

    Raises KitcacheError where two caches disagree about a tag, UsageError (the target is one of the
    sources, or within one), Damaged (a source that is not whole, or a target without a readable
    index.json), NotACache, Unsafe, Busy, Cancelled, and KitcacheError for I/O errors: then no tag
    was changed. Damaged of kind lost: others removed blobs of the target meanwhile.
    """
    call = _MergeOptions(
        tuple(os.fspath(path) for path in _listed(sources)),
        os.fspath(target),
        tuple(map(read_rename, _listed(rename))),
        replaces=replace,
        is_dry=dry_run,
        control=Control(os.fspath(target), on_progress, cancel),
        began_s=time.monotonic(),
        lock_timeout_s=lock_timeout_s,
    )
    with ExitStack() as stack:
        return _merge(call, stack)


def _merge(call: _MergeOptions, stack: ExitStack) -> MergeResult:
    layouts, home = _open(call, stack)
    warnings = () if call.is_dry else _lock(layouts, home, call, stack)
    read = [_read_source(layout, call.control) for layout in layouts]
    _, groups = _decide(read, home, call)
    wants = list_wants([source.survey for source in read], _roots(read, groups))
    if call.is_dry:
        came = dry_run(layouts, home, call.target, wants, call.control)
    else:
        home = _make_target(call, stack) if home is None else home
        groups, came = _merge_held(read, home, wants, call)
    return MergeResult(
        path=call.target,
        outcome="dry-run" if call.is_dry else _outcome(groups, came),
        sources=call.sources,
        tags=tuple(group.tag for group in groups),
        linked=came.linked,
        copied=came.copied,
        reused=came.reused,
        warnings=warnings,
        seconds=round(time.monotonic() - call.began_s, 3),
    )


def _listed(given: _Text | Sequence[_Text]) -> Sequence[_Text]:
    return (given,) if isinstance(given, str | os.PathLike) else given


def _open(
    call: _MergeOptions, stack: ExitStack
) -> tuple[list[DirectoryStore], DirectoryStore | None]:
    """The sources, and the target if it is there already; each a directory of its own."""
    if not call.sources:
        raise UsageError("name at least one cache to merge from")
    if not call.target:
        raise UsageError("the cache to merge into has an empty name")
    layouts = [stack.enter_context(open_store(path)) for path in call.sources]
    home = _find_target(call.target)
    if home is not None:
        stack.enter_context(home)
    _check_apart(layouts, home, call.target)
    return layouts, home


def _check_apart(
    layouts: Sequence[DirectoryStore], home: DirectoryStore | None, target: str
) -> None:
    """Raises UsageError where the target is a source, or one lies within the other."""
    own = os.path.realpath(target)
    for layout in layouts:
        real = os.path.realpath(layout.path)
        is_one = home is not None and _inode_of(layout) == _inode_of(home)
        if is_one or os.path.commonpath((real, own)) in (real, own):
            what = "are one directory" if is_one else "lie within each other"
            raise UsageError(
                f"{layout.path} and {target} {what}",
                hints=("merge into a directory of its own",),
            )


def _find_target(name: str) -> DirectoryStore | None:
    try:
        return find_layout(name)
    except NotACache as error:
        error.hints = ("name a cache, an empty directory, or one that is not there yet",)
        raise


def _make_target(call: _MergeOptions, stack: ExitStack) -> DirectoryStore:
    """The target, made and held."""
    home = stack.enter_context(make_layout(call.target))
    stack.enter_context(lock_store(home, "exclusive", call.control.wait_policy(call.left_s)))
    return home


def _lock(
    layouts: Sequence[DirectoryStore],
    home: DirectoryStore | None,
    call: _MergeOptions,
    stack: ExitStack,
) -> tuple[str, ...]:
    """The sources shared, the target exclusive; warnings of sources that cannot be locked.

    All merges take their locks in one order, by inode: two that go opposite ways would wait for
    each other for ever. A target that is yet to be made is nobody's source.
    """
    kinds: list[tuple[DirectoryStore, LockKind]] = [(layout, "shared") for layout in layouts]
    kinds += [] if home is None else [(home, "exclusive")]
    warnings = []
    for layout, kind in sorted(kinds, key=lambda pair: _inode_of(pair[0])):
        try:
            patience = call.control.wait_policy(call.left_s)
            stack.enter_context(lock_store(layout, kind, patience))
        except (Busy, Cancelled):
            raise
        except KitcacheError as error:
            if kind == "exclusive":
                raise
            warnings.append(describe_unlocked(layout.path, error))
    return tuple(warnings)


def _inode_of(layout: DirectoryStore) -> tuple[int, int]:
    found = look_at_open(layout, layout.root_fd, "the directory")
    return found.st_dev, found.st_ino


def _read_source(layout: DirectoryStore, control: Control) -> _SourceCache:
    """A source, all of whose roots are whole. Raises Damaged."""
    data, survey = read_settled(layout, control._replace(path=layout.path))
    for root in survey.roots:
        if root.position >= 0:
            holes = find_missing(survey, root)
            if holes or root.descriptor is None:
                raise hole_error(layout.path, root, holes)
    unknown = find_unknown(survey)
    if unknown is not None:
        # What kitcache cannot check it cannot bring, and the tag would have a hole.
        root, digest = unknown
        raise Damaged(
            layout.path,
            f"{root.label} names a blob that cannot be checked here: {digest}",
            kind="unknown-algorithm",
            tag=root.ref_name,
            effect=NOTHING_CHANGED,
            hints=(f"untag it in a copy of {layout.path}, and merge that",),
        )
    return _SourceCache(layout, data, survey)


def _decide(
    read: Sequence[_SourceCache], home: DirectoryStore | None, call: _MergeOptions
) -> tuple[bytes | None, tuple[EntryGroup, ...]]:
    """The target's index.json as it is now, and what is to come into it."""
    data, entries = (None, ()) if home is None else read_target(home, call.control)
    side = MergeCache(call.target, "", entries)
    sides = [source.side for source in read]
    return data, decide(side, sides, call.renames, replaces=call.replaces)


def _roots(read: Sequence[_SourceCache], groups: Sequence[EntryGroup]) -> list[tuple[int, Root]]:
    return [(g.source, read[g.source].survey.roots[p]) for g in groups for p in g.positions]


def _merge_held(
    read: Sequence[_SourceCache], home: DirectoryStore, wants: CopyPlan, call: _MergeOptions
) -> tuple[tuple[EntryGroup, ...], CopyCounts]:
    make_index(home, lock_index(home, call.control.wait_policy(call.left_s)))
    home.open_directories()
    with state.open_state_dir(home) as room_fd:
        if room_fd is not None:
            state.delete_stale_files(room_fd)
    noted = [_read_noted(layout) for layout in (home, *(source.layout for source in read))]
    try:
        came = bring_all([source.layout for source in read], home, wants, call.control)
    except KitcacheError as error:
        error.effect = _NO_TAG_CHANGED
        raise
    try:
        groups = _publish(read, home, call)
    except KitcacheError as error:
        # One whose index.json is in place already says so itself.
        if error.effect in (NOTHING_CHANGED, NOTHING_DELETED):
            error.effect = _NO_TAG_CHANGED
        raise
    _carry_notes(noted, home, groups, wants)
    _look_again(home, groups, wants, call.control)
    return groups, came


def _publish(
    read: Sequence[_SourceCache], home: DirectoryStore, call: _MergeOptions
) -> tuple[EntryGroup, ...]:
    """One edit of index.json; decided anew where others changed it since."""
    documents = [source.data for source in read]
    for _ in range(MAX_RETRIES):
        before, groups = _decide(read, home, call)
        copies = [copy for group in groups for copy in group.copies]
        if not copies:
            return groups
        after = copy_entries(before, documents, copies)
        lock = lock_index(home, call.control.wait_policy(call.left_s))
        with state.open_state_dir(home) as room_fd:
            if replace_index_if_unchanged(home, room_fd, lock, before, after):
                return groups
    raise index_unstable_error(home.path)


def _look_again(
    home: DirectoryStore, groups: Sequence[EntryGroup], wants: CopyPlan, control: Control
) -> None:
    """Raises Damaged where others, who know no lock of ours, have removed what had just come."""
    try:
        lost = find_lost(home, wants, control)
    except KitcacheError as error:
        error.effect = "all tags have come; whether all of them is still there was not looked at"
        raise
    if lost is None:
        return
    one, problem = lost
    tag = next(g.tag for g in groups if _is_of(one, g))
    raise Damaged(
        home.path,
        f"{one.root.label} has come, but others removed from it meanwhile: {one.digest} {problem}",
        kind="lost",
        tag=tag.target_name,
        effect="index.json names it already",
        hints=("run the same merge again",),
    )


def _is_of(one: BlobCopy, group: EntryGroup) -> bool:
    return one.source == group.source and one.root.position in group.positions


class _Noted(NamedTuple):
    """What a cache's notes say of its tags and its layers."""

    tags: Mapping[str, state.TagUse]
    layers: Mapping[str, int]


def _read_noted(layout: DirectoryStore) -> _Noted:
    """Before anything comes: notes that cannot be read end the merge."""
    return _Noted(state.read_tag_uses(layout), state.read_layer_uses(layout))


def _carry_notes(
    noted: Sequence[_Noted], home: DirectoryStore, groups: Sequence[EntryGroup], wants: CopyPlan
) -> None:
    """The later use of both counts, for a tag that is not one of the target's alone.

    noted: of the target, then of the sources.
    """
    (own, _), *known = noted
    carried: dict[str, state.TagUse] = {}
    for group in groups:
        new, old, digests = group.tag.target_name, group.tag.source_name, group.tag.digests
        if new is None or old is None:
            continue
        here = own.get(new) if group.tag.state == "unchanged" else None
        note = known[group.source].tags.get(old, state.TagUse())
        digest = digests[0] if len(digests) == 1 else None
        carried[new] = _later(carried.get(new) or here, note)._replace(digest=digest)
    came = {str(one.digest) for part in wants for one in part}
    try:
        state.write_tag_uses(home, carried)
        for _, uses in known:
            state.put_layer_uses(home, {d: ns for d, ns in uses.items() if d in came})
    except KitcacheError as error:
        error.effect = "all tags have come; not all of their last uses are noted"
        raise


def _later(one: state.TagUse | None, other: state.TagUse) -> state.TagUse:
    if one is None:
        return other
    return state.TagUse(
        max(one.exported_ns or 0, other.exported_ns or 0) or None,
        max(one.imported_ns or 0, other.imported_ns or 0) or None,
    )


def _outcome(groups: Sequence[EntryGroup], came: CopyCounts) -> Literal["done", "unchanged"]:
    is_new = any(group.tag.state != "unchanged" for group in groups)
    return "done" if is_new or came.linked.blobs or came.copied.blobs else "unchanged"
