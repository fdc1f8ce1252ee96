"""The merge command: lock, survey, decide, copy the blobs, then one commit of index.json.

A crash at any point leaves the target's tags unchanged. The next merge reuses the blobs that were
copied, or the next reset deletes them.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Event
from typing import Literal, NamedTuple

from kitcache.errors import (
    NOTHING_CHANGED,
    NOTHING_DELETED,
    Damaged,
    KitcacheError,
    NotACache,
    UsageError,
)
from kitcache.gc.collect import IndexChangedError, retry_if_changed
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.refusals import incomplete_error
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.gc.survey import check_reachable
from kitcache.gc.values import Survey
from kitcache.oci.index import copy_entries
from kitcache.options.renames import read_rename
from kitcache.store import state
from kitcache.store.create import find_layout, make_index, make_layout
from kitcache.store.directory import DirectoryStore
from kitcache.store.open import (
    DirectoryPath,
    address_name,
    directory_path,
    is_nested,
    open_directory,
)
from kitcache.store.values import LockKind, Roots
from kitcache.upkeep.naming.blobcopy import CopyCounts, CopyPlan, copy_all, dry_run, plan_copies
from kitcache.upkeep.naming.common import (
    MergeOptions,
    as_sequence,
    lock_in_order,
    merge_uses,
)
from kitcache.upkeep.naming.mergeplan import (
    EntryGroup,
    MergeCache,
    check_patterns,
    decide,
    is_selected,
)
from kitcache.upkeep.naming.missing import find_missing, find_unknown
from kitcache.upkeep.naming.stableindex import read_surveyed_roots, read_target_roots
from kitcache.upkeep.results import MergeResult

_NO_TAG_CHANGED = "no tag was changed; copied blobs are kept for the next merge or reset"


class _SourceCache(NamedTuple):
    """A cache to merge from, its roots, and a survey of these roots."""

    store: DirectoryStore
    roots: Roots
    survey: Survey

    @property
    def cache(self) -> MergeCache:
        """The cache as the merge plan takes it."""
        path = self.store.path
        return MergeCache(path, address_name(path), self.roots.entries)


def merge(
    sources: DirectoryPath | Sequence[DirectoryPath],
    target: DirectoryPath,
    *,
    rename: str | Sequence[str] = (),
    replace: bool = False,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> MergeResult:
    """Copy all tags of the sources, and their entries without a tag, into the target.

    On success each tag of a source names the same digest in the target, and all its blobs exist
    there. All other entries and unknown fields are kept. index.json was replaced in one step, after
    all blobs were durable. The recorded uses of the tags count in the target too. Nothing but lock
    files changes in the sources.

    Args:
        target: Created if it does not exist. Blobs are hard-linked if possible, else copied.
        rename: `[GLOB=]TEMPLATE` each; see options/renames.py.
        replace: Move a tag of the target that names another digest.

    Raises:
        UsageError: The target is a source, or one of the two directories contains the other.
        Damaged: A source is damaged, or the target's index.json is invalid. Kind "lost": another
            process deleted blobs of the target after its tags were changed.
        Busy, NotACache, Unsafe, Cancelled: As reset.
        KitcacheError: A tag has different digests in two caches, or an I/O error. The effect of
            each error states whether tags were changed.
    """
    options = MergeOptions(
        tuple(directory_path(path) for path in as_sequence(sources)),
        directory_path(target),
        tags=(),
        renames=tuple(map(read_rename, as_sequence(rename))),
        replaces=replace,
        is_dry=dry_run,
        control=Control(directory_path(target), on_progress, cancel),
        started_s=time.monotonic(),
        lock_timeout_s=lock_timeout_s,
    )
    return run_merge(options)


def run_merge(options: MergeOptions) -> MergeResult:
    """Merge some or all tags. Guarantees and errors are those of merge.

    Raises:
        NotFound: No tag of the sources matches a pattern.
    """
    with ExitStack() as stack:
        return _merge(options, stack)


def _merge(options: MergeOptions, stack: ExitStack) -> MergeResult:
    stores, target = _open(options, stack)
    warnings = () if options.is_dry else _lock(stores, target, options, stack)
    sources = [_read_source(store, options) for store in stores]
    names = [entry.ref_name for source in sources for entry in source.roots.entries]
    check_patterns(stores[0], options.tags, names)
    _, groups = _decide(sources, target, options)
    roots = [(g.source, sources[g.source].survey.roots[p]) for g in groups for p in g.positions]
    plan = plan_copies([source.survey for source in sources], roots)
    if options.is_dry:
        counts = dry_run(stores, target, options.target, plan, options.control)
    else:
        if target is None:
            target = stack.enter_context(make_layout(options.target))
            wait_policy = options.control.wait_policy(options.left_s)
            stack.enter_context(target.lock("exclusive", wait_policy))
        groups, counts = _copy_and_commit(sources, target, plan, options)
    is_new = any(group.tag.state != "unchanged" for group in groups)
    outcome: Literal["done", "unchanged", "dry-run"] = "unchanged"
    if options.is_dry:
        outcome = "dry-run"
    elif is_new or counts.linked.blobs or counts.copied.blobs:
        outcome = "done"
    return MergeResult(
        path=options.target,
        outcome=outcome,
        sources=options.sources,
        tags=tuple(group.tag for group in groups),
        linked=counts.linked,
        copied=counts.copied,
        reused=counts.reused,
        warnings=warnings,
        seconds=round(time.monotonic() - options.started_s, 3),
    )


def _open(
    options: MergeOptions, stack: ExitStack
) -> tuple[list[DirectoryStore], DirectoryStore | None]:
    """Open the sources, and the target if it exists. Raises UsageError if it overlaps one."""
    if not options.sources:
        raise UsageError("name at least one cache to merge from")
    if not options.target:
        raise UsageError("the cache to merge into has an empty name")
    stores = [stack.enter_context(open_directory(path)) for path in options.sources]
    try:
        target = find_layout(options.target)
    except NotACache as error:
        error.hints = ("name a cache, an empty directory, or a path that does not exist",)
        raise
    if target is not None:
        stack.enter_context(target)
    for store in stores:
        is_target = target is not None and store.identity() == target.identity()
        if is_target or is_nested(store.path, options.target):
            problem = "are one directory" if is_target else "are nested"
            raise UsageError(
                f"{store.path} and {options.target} {problem}",
                hints=("merge into a directory of its own",),
            )
    return stores, target


def _lock(
    stores: Sequence[DirectoryStore],
    target: DirectoryStore | None,
    options: MergeOptions,
    stack: ExitStack,
) -> tuple[str, ...]:
    """Lock the sources shared and the target exclusive. Return warnings about unlocked sources.

    All merges acquire locks in the order of the identities. Otherwise two merges in opposite
    directions would wait for each other. A target that does not exist yet needs no lock here.
    """
    kinds: list[tuple[DirectoryStore, LockKind]] = [(store, "shared") for store in stores]
    kinds += [] if target is None else [(target, "exclusive")]
    kinds.sort(key=lambda pair: pair[0].identity())
    return lock_in_order(kinds, options, stack)


def _read_source(store: DirectoryStore, options: MergeOptions) -> _SourceCache:
    """Read and survey a source. Raises Damaged if one of the roots to copy is not complete."""
    roots, survey = read_surveyed_roots(store, options.control._replace(path=store.path))
    selected = tuple(r for r in survey.roots if is_selected(options.tags, r.ref_name))
    for root in selected:
        if root.position >= 0:
            problems = find_missing(survey, root)
            if problems or root.descriptor is None:
                raise incomplete_error(store.path, root, problems)
    unknown = find_unknown(survey._replace(roots=selected))
    if unknown is not None:
        # kitcache does not copy a blob that it cannot verify, so the tag would lack it.
        root, digest = unknown
        raise Damaged(
            store.path,
            f"{root.label} references a blob that kitcache cannot verify: {digest}",
            kind="unknown-algorithm",
            tag=root.ref_name,
            effect=NOTHING_CHANGED,
            hints=(f"untag it in a copy of {store.path}, and merge that",),
        )
    return _SourceCache(store, roots, survey)


def _decide(
    sources: Sequence[_SourceCache], target: DirectoryStore | None, options: MergeOptions
) -> tuple[Roots | None, tuple[EntryGroup, ...]]:
    """Return the target's roots as they are now, and the entries to copy."""
    roots = None if target is None else read_target_roots(target, options.control)
    cache = MergeCache(options.target, "", roots.entries if roots else ())
    caches = [source.cache for source in sources]
    renames, tags = options.renames, options.tags
    return roots, decide(cache, caches, renames, replaces=options.replaces, tags=tags)


def _copy_and_commit(
    sources: Sequence[_SourceCache],
    target: DirectoryStore,
    plan: CopyPlan,
    options: MergeOptions,
) -> tuple[tuple[EntryGroup, ...], CopyCounts]:
    make_index(target, options.control.wait_policy(options.left_s))
    target.refresh()
    # Read the recorded uses first: if they cannot be read, nothing is copied.
    target_uses = target.read_tag_uses()
    target.read_layer_uses()
    tag_uses = [source.store.read_tag_uses() for source in sources]
    layer_uses = [source.store.read_layer_uses() for source in sources]
    try:
        counts = copy_all([source.store for source in sources], target, plan, options.control)
    except KitcacheError as error:
        error.effect = _NO_TAG_CHANGED
        raise
    try:
        groups = _commit(sources, target, options)
    except KitcacheError as error:
        # An error after index.json was replaced has its own effect.
        if error.effect in (NOTHING_CHANGED, NOTHING_DELETED):
            error.effect = _NO_TAG_CHANGED
        raise
    try:
        target.write_tag_uses(merge_uses(groups, target_uses, tag_uses))
        copied = {str(copy.digest) for copy in plan.blobs}
        for uses in layer_uses:
            state.write_layer_uses(target, {d: ns for d, ns in uses.items() if d in copied})
    except KitcacheError as error:
        error.effect = "all tags were published; not all of their last uses are recorded"
        raise
    _check_again(sources, target, groups, plan, options.control)
    return groups, counts


def _commit(
    sources: Sequence[_SourceCache], target: DirectoryStore, options: MergeOptions
) -> tuple[EntryGroup, ...]:
    documents = [source.roots.data or b"" for source in sources]

    def attempt() -> tuple[EntryGroup, ...]:
        roots, groups = _decide(sources, target, options)
        copies = [copy for group in groups for copy in group.copies]
        if copies:
            after = copy_entries(roots.data if roots else None, documents, copies)
            wait_policy = options.control.wait_policy(options.left_s)
            if target.commit_roots(lambda _: after, wait_policy, before=roots) is None:
                raise IndexChangedError
        return groups

    return retry_if_changed(target, attempt)


def _check_again(
    sources: Sequence[_SourceCache],
    target: DirectoryStore,
    groups: Sequence[EntryGroup],
    plan: CopyPlan,
    control: Control,
) -> None:
    """Raise Damaged if a process without kitcache's lock has deleted blobs of the new tags."""
    roots = [
        sources[group.source].survey.roots[position]._replace(ref_name=group.tag.target_name)
        for group in groups
        for position in group.positions
    ]
    try:
        damage, missing = check_reachable(target, control, roots)
    except KitcacheError as error:
        error.effect = "all tags were published; their blobs were not checked again"
        raise
    faults = [(path.root.ref_name, path.chain[-1].digest, path.problem) for path in damage]
    faults += [(blob.ref_name, blob.digest, blob.problem) for blob in missing]
    # A subject may be absent in the sources too.
    existed = {copy.digest for copy in plan.blobs}
    lost = [fault for fault in faults if fault[1] in existed]
    if not lost:
        return
    tag, digest, problem = lost[0]
    label = "an entry without a tag" if tag is None else f"tag '{tag}'"
    raise Damaged(
        target.path,
        f"{label} was published, but another client has deleted blobs of it: {digest} {problem}",
        kind="lost",
        tag=tag,
        effect="index.json names it already",
        hints=("run the same merge again",),
    )
