"""Lock, run, merge, sweep: what `kitcache exec` does with a task, in this order.

A command that fails changes no store beyond what its client did, and nothing is swept after it.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

from kitcache.errors import Busy, Cancelled, KitcacheError
from kitcache.gc.control import LockOptions, Warn
from kitcache.gc.reset import reset_after_export
from kitcache.gc.values import ResetResult
from kitcache.oci.document import DocumentError
from kitcache.oci.index import find_entry
from kitcache.options.caches import CacheImport
from kitcache.store.index import read_stable_index
from kitcache.store.layout import Layout
from kitcache.store.state import record_use
from kitcache.wrap.argv import FILE_PLACEHOLDER, Rewritten
from kitcache.wrap.child import run_child
from kitcache.wrap.stores import LockedCache, LockedCaches, is_locked_elsewhere
from kitcache.wrap.task import Export, Task, need_program

if TYPE_CHECKING:
    from kitcache.options.prunepolicy import PrunePolicy
    from kitcache.upkeep.results import PruneResult
    from kitcache.wrap.staging import Stage, StagedMerge

_STAGED_HELPS = "another export was under way in it; without --in-place several can export at once"


class ExecCacheResult(NamedTuple):
    """What became of one store. path: as the user wrote it first.

    tags: what was exported to it. problems: what went wrong, a sentence each; code: what that means
    for the exit code. linked, reused: blobs of staged exports. report: of the reset, None where
    none was asked for. pruned: with it, where a policy was named.
    """

    path: str
    tags: tuple[str, ...]
    is_staged: bool
    linked: int = 0
    reused: int = 0
    problems: tuple[str, ...] = ()
    failure_code: int = 0
    reset: ResetResult | None = None
    prune: "PruneResult | None" = None

    @property
    def exit_code(self) -> int:
        """0 where all is well."""
        return max(self.failure_code, self.reset.exit_code if self.reset else 0)


class ExecResult(NamedTuple):
    """How it ended. command: what was run. code: the command's own exit code."""

    command: tuple[str, ...]
    command_exit_code: int
    caches: tuple[ExecCacheResult, ...]

    @property
    def exit_code(self) -> int:
        """The command's own, or that of the stores where the command was fine."""
        return self.command_exit_code or max((store.exit_code for store in self.caches), default=0)


class _Target(NamedTuple):
    """A store that is exported to. had_neighbour: others were at work in it at the beginning."""

    path: str
    store: LockedCache
    exports: tuple[Export, ...]
    was_locked_elsewhere: bool
    is_staged: bool


def run_task(
    task: Task,
    environ: Mapping[str, str],
    terms: LockOptions,
    *,
    policy: "PrunePolicy | None" = None,
) -> ExecResult:
    """Run the command under the locks, then bring in what was staged, and sweep what asked for it.

    policy: which tags go from the stores that are swept. Raises what stops it before the command
    was started.
    """
    program = need_program(task.job.argv[0], environ)
    with ExitStack() as stack:
        stores = LockedCaches(terms, stack)
        targets = _open_targets(task, stores, terms.warn)
        sources = [(cache, stores.to_read(cache.src)) for cache in task.imports]
        stages = _Stages(terms, stack, must_find_all=task.job.builds_all)
        targets = [stages.open(target) if target.is_staged else target for target in targets]
        rewritten = task.job.rewrite(task.texts(stages.dests))
        if terms.cancel is not None and terms.cancel.is_set():
            raise Cancelled("", effect="the command was not started")
        fds = [fd for store in stores.all for fd in store.lock_fds] + stages.lock_fds
        command, code = _run(program, rewritten, environ, fds)
        if code:
            return ExecResult(command, code, tuple(map(_after_failure, targets)))
        merged = [stages.merge(target) for target in targets]
        _note(targets, merged, [(cache, store) for cache, store in sources if store is not None])
        results = [_sweep(t, r, terms, policy) for t, r in zip(targets, merged, strict=True)]
        return ExecResult(command, code, tuple(results))


def _open_targets(task: Task, stores: LockedCaches, warn: Warn) -> list[_Target]:
    """Those that can be caches. To another directory the client exports as it can."""
    found: dict[str, tuple[LockedCache, list[Export]]] = {}
    for export in task.exports:
        try:
            store = stores.to_write(export.cache.dest)
        except (Busy, Cancelled):
            raise
        except KitcacheError as error:
            if export.cache.reset:
                raise
            warn(f"warning: {export.cache.dest}: the export is not guarded: {error.problem}")
            continue
        found.setdefault(store.real_path, (store, []))[1].append(export)
    return [
        _Target(
            exports[0].cache.dest,
            store,
            tuple(exports),
            is_locked_elsewhere(store.layout),
            len(exports) > 1 or any(export.is_staged for export in exports),
        )
        for store, exports in found.values()
    ]


def _run(
    program: str, rewritten: Rewritten, environ: Mapping[str, str], fds: Sequence[int]
) -> tuple[tuple[str, ...], int]:
    """Run it, with what it reads in files; the command, and its exit code."""
    argv = rewritten.argv
    with suppress(OSError):
        os.write(2, rewritten.warned)
    with ExitStack() as stack:
        stdin_fd = None
        if rewritten.stdin is not None:
            import tempfile  # noqa: PLC0415 - as in task._job_of

            file = stack.enter_context(tempfile.TemporaryFile())
            file.write(rewritten.stdin)
            file.seek(0)
            stdin_fd = file.fileno()
        if rewritten.file is not None:
            import tempfile  # noqa: PLC0415 - as in task._job_of

            named = stack.enter_context(
                tempfile.NamedTemporaryFile(prefix="kitcache-compose-", suffix=".json")
            )
            named.write(rewritten.file)
            named.flush()
            argv = tuple(named.name if word == FILE_PLACEHOLDER else word for word in argv)
        return argv, run_child(program, argv, environ, inherited=fds, stdin_fd=stdin_fd)


def _after_failure(target: _Target) -> ExecCacheResult:
    """Nothing is done to the store; where a neighbour may have been the reason it is said."""
    result = ExecCacheResult(target.path, (), target.is_staged)
    if target.is_staged or not (
        target.was_locked_elsewhere or is_locked_elsewhere(target.store.layout)
    ):
        return result
    return result._replace(problems=(_STAGED_HELPS,))


class _Stages:
    """The staging directories of one command. must_find_all: an empty one is to be told of."""

    def __init__(self, terms: LockOptions, stack: ExitStack, *, must_find_all: bool) -> None:
        self._terms = terms
        self._stack = stack
        self._must_find_all = must_find_all
        self._all: dict[int, Stage] = {}

    def open(self, target: _Target) -> _Target:
        """One for each export; where one is alone in its build it begins with the store's blobs.

        The target as it is then: where there can be none it is not staged, and refused only where
        one is needed before a reset.
        """
        from kitcache.wrap.staging import open_stage  # noqa: PLC0415 - as in task._job_of

        for export in target.exports:
            try:
                self._all[export.at] = open_stage(
                    target.store, self._terms, self._stack, is_seeded=export.is_alone
                )
            except Cancelled:
                raise
            except KitcacheError as error:
                is_needed = len(target.exports) > 1 or not export.is_alone
                if is_needed and any(each.cache.reset for each in target.exports):
                    raise
                for each in target.exports:
                    self._all.pop(each.at, None)
                self._terms.warn(f"{target.path}: the export is not staged: {error.problem}")
                return target._replace(is_staged=False)
        return target

    @property
    def dests(self) -> dict[int, str]:
        """Where each staged export goes."""
        return {at: stage.path for at, stage in self._all.items()}

    @property
    def lock_fds(self) -> list[int]:
        """What the command inherits."""
        return [fd for stage in self._all.values() for fd in stage.lock_fds]

    def merge(self, target: _Target) -> ExecCacheResult:
        """Bring in what was staged for a store."""
        tags = tuple(dict.fromkeys(export.cache.tag for export in target.exports))
        result = ExecCacheResult(target.path, tags, target.is_staged)
        if not target.is_staged:
            return result
        merged_tags: list[str] = []
        for export in target.exports:
            merged, problem = self._bring_in(target.store, export)
            merged_tags += merged.tags
            result = result._replace(
                linked=result.linked + merged.linked.blobs,
                reused=result.reused + merged.reused.blobs,
                problems=(*result.problems, problem) if problem else result.problems,
                failure_code=max(result.failure_code, merged.code),
            )
        return result._replace(tags=tuple(dict.fromkeys(merged_tags)))

    def _bring_in(self, store: LockedCache, export: Export) -> tuple["StagedMerge", str]:
        """What came of one, and what went wrong, as a sentence."""
        from kitcache.wrap.staging import StagedMerge, merge  # noqa: PLC0415 - as in task._job_of

        tag = export.cache.tag
        try:
            merged = merge(store, self._all[export.at], self._terms)
        except KitcacheError as error:
            problem = f"tag '{tag}' was not published: {error.problem}"
            return StagedMerge(code=error.exit_code), problem
        if merged.problem:
            return merged, f"tag '{tag}': {merged.problem}"
        if self._must_find_all and not merged.tags:
            return merged, f"nothing was exported to it; tag '{tag}' is unchanged"
        return merged, ""


def _note(
    targets: Sequence[_Target],
    merged: Sequence[ExecCacheResult],
    sources: Sequence[tuple[CacheImport, LockedCache]],
) -> None:
    """What was used now, for those who retire tags by age."""
    for target, result in zip(targets, merged, strict=True):
        layout, now_ns = target.store.layout, time.time_ns()
        record_use(
            layout, result.tags, "exported", now_ns, digests=_digests_of(layout, result.tags)
        )
    for cache, store in sources:
        if os.access(store.real_path, os.W_OK):
            record_use(store.layout, [cache.tag], "imported", time.time_ns())


def _digests_of(layout: Layout, tags: Sequence[str]) -> dict[str, str]:
    """What index.json says that these tags are, as far as it can be read."""
    try:
        _, entries = read_stable_index(layout, time.sleep)
    except (KitcacheError, DocumentError):
        return {}
    found = [(tag, find_entry(entries, tag)) for tag in tags]
    return {tag: str(e.descriptor.digest) for tag, e in found if e is not None and e.descriptor}


def _sweep(
    target: _Target, result: ExecCacheResult, terms: LockOptions, policy: "PrunePolicy | None"
) -> ExecCacheResult:
    if not any(export.cache.reset for export in target.exports) or result.failure_code:
        return result
    layout = target.store.layout
    control = terms.control(layout)
    target.store.give_back()
    if policy is None:
        report = reset_after_export(
            layout, result.tags, control, lock_timeout_s=terms.lock_timeout_s
        )
        return result._replace(reset=report)
    from kitcache.upkeep.pruning.prune import prune_after_export  # noqa: PLC0415 - as in task._job_of

    pruned = prune_after_export(
        layout, result.tags, policy, control, lock_timeout_s=terms.lock_timeout_s
    )
    return result._replace(reset=pruned.reset, prune=pruned)
