"""The copy command: lock, survey, convert, send the layers, check them there, publish the roots.

A crash before the roots leaves only blobs that no root names: the next copy uses them, or the next
reset deletes them. In a directory all roots change in one step, in a bucket one after the other.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from threading import Event
from typing import TYPE_CHECKING, Literal, NamedTuple

from kitcache.errors import NOTHING_CHANGED, NOTHING_DELETED, Damaged, KitcacheError, UsageError
from kitcache.gc.collect import IndexChangedError, retry_if_changed
from kitcache.gc.control import Control, OnProgress
from kitcache.gc.reset import LOCK_TIMEOUT_S
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.index import NewEntry, add_entries
from kitcache.options.renames import read_rename
from kitcache.store.create import find_layout, make_index, make_layout
from kitcache.store.open import (
    StoreAddress,
    address_name,
    address_text,
    find_object_cache,
    open_store,
)
from kitcache.store.protocol import EditableStore
from kitcache.store.values import LockKind, Roots
from kitcache.upkeep.copying.documents import (
    ConvertedRoot,
    Form,
    SourceCache,
    convert_source,
    list_layers,
)
from kitcache.upkeep.copying.transfer import (
    TransferCounts,
    TransferPlan,
    plan_transfer,
    transfer,
)
from kitcache.upkeep.naming.common import (
    MergeOptions,
    as_sequence,
    lock_in_order,
    merge_uses,
)
from kitcache.upkeep.naming.merge import run_merge
from kitcache.upkeep.naming.mergeplan import EntryGroup, MergeCache, check_patterns, decide
from kitcache.upkeep.naming.stableindex import read_surveyed_roots, read_target_roots
from kitcache.upkeep.publish import find_faults
from kitcache.upkeep.results import CopyResult

if TYPE_CHECKING:
    from kitcache.store.directory import DirectoryStore

_NO_TAG_CHANGED = "no tag was changed; copied blobs are kept for the next copy or reset"

_SOME_PUBLISHED = "tags may have been published, each with all its blobs"


class _CopyPlan(NamedTuple):
    """The roots to publish, by their positions in the sources, and the layers that they name."""

    sources: tuple[SourceCache, ...]
    groups: tuple[EntryGroup, ...]
    layers: TransferPlan

    def root_of(self, group: EntryGroup) -> ConvertedRoot:
        """Return the root of a group: all its entries name the same one."""
        return self.sources[group.source].roots[group.positions[0]]


def copy(
    sources: "StoreAddress | Sequence[StoreAddress]",
    target: StoreAddress,
    *,
    tags: str | Sequence[str] = (),
    rename: str | Sequence[str] = (),
    replace: bool = False,
    trim: bool = False,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    on_progress: OnProgress | None = None,
    cancel: Event | None = None,
) -> CopyResult:
    """Copy the tags of caches in directories and object stores into another cache.

    On success each copied tag is complete in the target, in the form that the target needs, and
    BuildKit imports the same steps from it. Every blob was verified while it was copied, and all of
    them exist in the target before the first root names them. Blobs that the target has are not
    sent again. Between directories this is merge. A directory gets all tags in one step, a bucket
    one after the other.

    Args:
        target: A directory is created if it does not exist; a bucket is not.
        tags: Names or patterns of the tags to copy; () for all.
        rename: `[GLOB=]TEMPLATE` each; see options/renames.py.
        replace: Move a tag of the target that names another digest.
        trim: If a tag is too large for BuildKit to import it from a directory, copy it without its
            least recently used steps.

    Raises:
        NotFound: No tag of the sources matches one of `tags`.
        UsageError: The target is a source, or directories and object stores are to be copied
            together into a directory.
        Damaged: A tag of a source is not complete, or lacks a fact that the other form needs.
        Busy, NotACache, Unsafe, Cancelled: As reset.
        KitcacheError: A tag has different digests in two caches, is too large, is not a build
            cache, or an I/O error. The effect of each error states whether tags were changed.
    """
    addresses = as_sequence(sources)
    options = MergeOptions(
        tuple(map(address_text, addresses)),
        address_text(target),
        tags=tuple(as_sequence(tags)),
        renames=tuple(map(read_rename, as_sequence(rename))),
        replaces=replace,
        is_dry=dry_run,
        control=Control(address_text(target), on_progress, cancel),
        started_s=time.monotonic(),
        lock_timeout_s=lock_timeout_s,
    )
    if not addresses:
        raise UsageError("name at least one cache to copy from")
    if not _needs_conversion(addresses, target, options):
        merged = run_merge(options)
        return CopyResult(
            **{name: getattr(merged, name) for name in merged._fields if name in CopyResult._fields}
        )
    with ExitStack() as stack:
        return _Copy(addresses, target, options, stack, trims=trim).run()


def _needs_conversion(
    sources: Sequence[StoreAddress], target: StoreAddress, options: MergeOptions
) -> bool:
    """Return False if all caches are directories, so that merge copies them. Raises UsageError."""
    if options.target in options.sources and find_object_cache(target) is not None:
        raise UsageError(f"{options.target} is both a source and the target")
    if find_object_cache(target) is not None:
        return True
    are_objects = [find_object_cache(source) is not None for source in sources]
    if any(are_objects) and not all(are_objects):
        raise UsageError(
            f"{options.target}: directories and object stores cannot be copied into a directory"
            " in one step",
            hints=("copy the object stores first, then the directories",),
        )
    return any(are_objects)


class _Copy:
    """One call of copy that converts roots. It opens the caches and holds their locks."""

    def __init__(
        self,
        sources: Sequence[StoreAddress],
        target: StoreAddress,
        options: MergeOptions,
        stack: ExitStack,
        *,
        trims: bool,
    ) -> None:
        self._options, self._control, self._stack = options, options.control, stack
        self._trims = trims
        self._effect = _NO_TAG_CHANGED
        self._names = list(map(address_name, sources))
        self._sources: list[EditableStore] = [stack.enter_context(open_store(s)) for s in sources]
        self._target: EditableStore | None = None
        self._directory: DirectoryStore | None = None
        self._form: Form = "directory" if find_object_cache(target) is None else "object"
        if self._form == "object":
            self._target = stack.enter_context(open_store(target))
        else:
            self._target = self._directory = find_layout(options.target)
            if self._directory is not None:
                stack.enter_context(self._directory)

    def run(self) -> CopyResult:
        options = self._options
        warnings = () if options.is_dry else self._lock()
        plan, counts = retry_if_changed(self._sources[0], self._attempt)
        is_new = counts.copied.blobs or any(group.tag.state != "unchanged" for group in plan.groups)
        outcome: Literal["done", "unchanged"] = "done" if is_new else "unchanged"
        return CopyResult(
            path=options.target,
            outcome="dry-run" if options.is_dry else outcome,
            sources=options.sources,
            tags=tuple(group.tag for group in plan.groups),
            trimmed=tuple(trimmed for source in plan.sources for trimmed in source.trimmed),
            skipped=tuple(skipped for source in plan.sources for skipped in source.skipped),
            copied=counts.copied,
            reused=counts.reused,
            warnings=(*warnings, *_warn_empty(plan.sources)),
            seconds=round(time.monotonic() - options.started_s, 3),
        )

    def _lock(self) -> tuple[str, ...]:
        """Lock the sources shared and the target exclusive, as far as they have locks."""
        shared: list[tuple[EditableStore, LockKind]] = [(s, "shared") for s in self._sources]
        warnings = lock_in_order(shared, self._options, self._stack)
        if self._target is not None:
            # The exclusive lock of an object store is for sweeps: it keeps an old listing.
            kind: LockKind = "exclusive" if self._directory else "shared"
            lock_in_order([(self._target, kind)], self._options, self._stack)
        return warnings

    def _attempt(self) -> tuple[_CopyPlan, TransferCounts]:
        try:
            plan = self._make_plan()
        except KitcacheError as error:
            error.effect = NOTHING_CHANGED if error.effect == NOTHING_DELETED else error.effect
            raise
        if self._options.is_dry or not plan.groups:
            return plan, TransferCounts(plan.layers.copied, plan.layers.reused)
        target = self._target or self._make_target()
        if self._directory is not None:
            make_index(self._directory, self._control.wait_policy(self._options.left_s))
            self._directory.refresh()
        # Read the recorded uses first: if they cannot be read, nothing is copied.
        target_uses = target.read_tag_uses()
        source_uses = [store.read_tag_uses() for store in self._sources]
        try:
            counts = transfer(self._sources, target, plan.layers, self._control)
            self._write_documents(plan, target)
            groups = self._commit(plan, target)
        except KitcacheError as error:
            if isinstance(error, Damaged) and self._has_source_changed(plan):
                raise IndexChangedError from None
            if error.effect in (NOTHING_CHANGED, NOTHING_DELETED):
                error.effect = self._effect
            raise
        try:
            target.write_tag_uses(merge_uses(groups, target_uses, source_uses))
        except KitcacheError as error:
            error.effect = "all tags were published; not all of their last uses are recorded"
            raise
        if self._directory is not None:
            self._check_again(plan, target)
        return plan._replace(groups=groups), counts

    def _make_target(self) -> EditableStore:
        """Create the directory of the target, or complete it, and lock it."""
        self._directory = self._stack.enter_context(make_layout(self._options.target))
        self._target = self._directory
        lock_in_order([(self._target, "exclusive")], self._options, self._stack)
        return self._target

    def _make_plan(self) -> _CopyPlan:
        options, sources, names = self._options, [], []
        for store in self._sources:
            control = self._control._replace(path=store.path)
            roots, survey = read_surveyed_roots(store, control)
            names += [entry.ref_name for entry in roots.entries]
            source = convert_source(
                store, survey, options.tags, self._form, control, trims=self._trims
            )
            sources.append(source)
        check_patterns(self._sources[0], options.tags, names)
        _, groups = self._decide(sources)
        layers = plan_transfer(self._target, list_layers(sources))
        return _CopyPlan(tuple(sources), groups, layers)

    def _decide(
        self, sources: Sequence[SourceCache]
    ) -> tuple[Roots | None, tuple[EntryGroup, ...]]:
        """Return the target's roots as they are now, and the roots to publish."""
        roots = None if self._target is None else read_target_roots(self._target, self._control)
        caches = [
            MergeCache(source.store.path, name, tuple(root.entry for root in source.roots))
            for source, name in zip(sources, self._names, strict=True)
        ]
        options = self._options
        cache = MergeCache(options.target, "", roots.entries if roots else ())
        groups = decide(cache, caches, options.renames, replaces=options.replaces)
        for group in groups:
            if len(group.tag.digests) > 1:
                number = len(group.tag.digests)
                raise UsageError(
                    f"{group.tag.source}: {group.tag.source_name!r} names {number} roots",
                    hints=("let the tag name one of them",),
                )
        return roots, groups

    def _has_source_changed(self, plan: _CopyPlan) -> bool:
        for source in plan.sources:
            source.store.refresh()
            roots = source.store.read_roots(self._control.pause)
            if roots.version != source.survey.index_digest:
                return True
        return False

    def _write_documents(self, plan: _CopyPlan, target: EditableStore) -> None:
        """Check that all layers are in the target, then write the documents of all roots."""
        target.sync_blobs()
        target.refresh()
        layers = plan.layers
        lost = plan_transfer(target, [*layers.send, *(copy for copy, _ in layers.reuse)]).send
        if lost:
            raise KitcacheError(
                target.path,
                f"{lost[0].root.label} is not complete after the copy: another process has deleted"
                f" {len(lost):,} of its blobs, such as {lost[0].digest.short}",
                hints=("run the same copy again",),
            )
        for group in plan.groups:
            self._control.check()
            documents = plan.sources[group.source].documents_of(plan.root_of(group))
            for document in documents.in_order:
                target.write_blob(document)
        target.sync_blobs()

    def _commit(self, plan: _CopyPlan, target: EditableStore) -> tuple[EntryGroup, ...]:
        def attempt() -> tuple[EntryGroup, ...]:
            roots, groups = self._decide(plan.sources)
            entries = tuple(
                _new_entry(plan.root_of(group).descriptor, group.tag.target_name)
                for group in groups
                if group.tag.state != "unchanged"
            )
            if entries:
                after = add_entries(roots.data if roots else None, entries)
                wait_policy = self._control.wait_policy(self._options.left_s)
                if self._form == "object":
                    # There, each root is a request of its own.
                    self._effect = _SOME_PUBLISHED
                if target.commit_roots(lambda _: after, wait_policy, before=roots) is None:
                    raise IndexChangedError
            return groups

        return retry_if_changed(target, attempt)

    def _check_again(self, plan: _CopyPlan, target: EditableStore) -> None:
        """Raise Damaged if a process without kitcache's lock has deleted blobs of the new tags."""
        for group in plan.groups:
            try:
                faults = find_faults(target, self._control, plan.root_of(group).descriptor)
            except KitcacheError as error:
                error.effect = "all tags were published; their blobs were not checked again"
                raise
            if faults:
                tag = group.tag.target_name
                raise Damaged(
                    target.path,
                    f"tag '{tag}' was published, but another client has deleted blobs of it:"
                    f" {faults}",
                    kind="lost",
                    tag=tag,
                    effect="index.json names it already",
                    hints=("run the same copy again",),
                )


def _warn_empty(sources: Sequence[SourceCache]) -> Iterator[str]:
    for store, survey, *_ in sources:
        if not survey.roots:
            yield f"{store.path}: {store.roots_name} has no tags"


def _new_entry(descriptor: Descriptor, name: str | None) -> NewEntry:
    digest = str(descriptor.digest)
    return NewEntry(descriptor.media_type, digest, descriptor.size or 0, name or "")
