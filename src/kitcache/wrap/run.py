"""Runs the task of `kitcache exec`: locks, runs the command, merges staged exports, sweeps.

If the command fails, a cache contains only what its client has written, and nothing is swept.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING, NamedTuple

from kitcache.errors import Busy, Cancelled, KitcacheError, NotACache
from kitcache.gc.values import ResetResult
from kitcache.oci.index import find_entry
from kitcache.options.caches import CacheImport
from kitcache.store.ioerrors import describe_unlocked
from kitcache.store.state import record_use
from kitcache.upkeep.jobcaches import (
    LockedCache,
    LockedCaches,
    LockOptions,
    ObjectTarget,
    merge_targets,
    sweep_after_export,
    sweep_objects_after_export,
)
from kitcache.wrap.argv import FILE_PLACEHOLDER, Rewritten
from kitcache.wrap.child import run_child
from kitcache.wrap.task import Export, Task, need_program

if TYPE_CHECKING:
    from kitcache.options.prunepolicy import PrunePolicy
    from kitcache.upkeep.results import PruneResult

_NOT_STARTED = "the command was not started"
_STAGED_HELPS = "another export was running in it; staged exports can run at the same time"


class ExecCacheResult(NamedTuple):
    """The result for one cache.

    Attributes:
        path: As the user wrote it first, or the short form of an object store's address.
        tags: The tags that were exported to it, or the names in an object store.
        linked, reused: Blobs of staged exports that are new to the cache, and that existed in it.
        problems: A sentence for each failure.
        failure_code: The exit code of these failures.
        reset: None if no reset was requested.
        prune: Set if there is a policy.
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
        """0 without a failure."""
        return max(self.failure_code, self.reset.export_code if self.reset else 0)


class ExecResult(NamedTuple):
    """The result of a command that has run."""

    command: tuple[str, ...]
    command_exit_code: int
    caches: tuple[ExecCacheResult, ...]

    @property
    def exit_code(self) -> int:
        """The command's own exit code; if it is 0, that of the caches."""
        return self.command_exit_code or max((c.exit_code for c in self.caches), default=0)


class _Target(NamedTuple):
    """A cache that the command exports to.

    Attributes:
        was_locked_elsewhere: Another process held its lock before the command ran.
        stages: A staging directory for each export. Empty: the client exports to the cache itself.
    """

    path: str
    cache: LockedCache
    exports: tuple[Export, ...]
    was_locked_elsewhere: bool
    stages: tuple[LockedCache, ...] = ()


def run_task(
    task: Task,
    environ: Mapping[str, str],
    options: LockOptions,
    *,
    policy: "PrunePolicy | None" = None,
) -> ExecResult:
    """Run a command under the locks of its caches; then merge staged exports, and sweep.

    Args:
        policy: Selects the tags to remove from the caches that are swept.

    Raises:
        KitcacheError: The command was not started.
    """
    program = need_program(task.job.argv[0], environ)
    with ExitStack() as stack:
        caches = LockedCaches(options, stack, _NOT_STARTED)
        targets = _open_targets(task, caches, options)
        imports = [(source, _open_import(source, caches, options)) for source in task.imports]
        targets = [_open_stages(target, options, stack) for target in targets]
        staged = {
            export.at: stage
            for target in targets
            for export, stage in zip(target.exports, target.stages, strict=False)
        }
        dests = {at: stage.real_path for at, stage in staged.items()}
        rewritten = task.job.rewrite(task.client_exports(dests))
        if options.cancel is not None and options.cancel.is_set():
            raise Cancelled("", effect=_NOT_STARTED)
        fds = [fd for cache in (*caches.all, *staged.values()) for fd in cache.lock_fds]
        command, code = _run(program, rewritten, environ, fds)
        objects = merge_targets(task.objects.values())
        if code:
            unswept = [ExecCacheResult(target.path, (), is_staged=False) for target in objects]
            return ExecResult(command, code, (*map(_after_failure, targets), *unswept))
        results = [_merge(t, options, must_find_all=task.job.builds_all) for t in targets]
        for target, result in zip(targets, results, strict=True):
            _record_export(target.cache, result.tags)
        for source, cache in imports:
            if cache is not None and os.access(cache.real_path, os.W_OK):
                record_use(cache.store, [source.tag], "imported", time.time_ns())
        swept = [
            _sweep(target, result, policy, options)
            for target, result in zip(targets, results, strict=True)
        ]
        swept += [_sweep_objects(target, policy, options) for target in objects]
        return ExecResult(command, code, tuple(swept))


def _open_targets(task: Task, caches: LockedCaches, options: LockOptions) -> list[_Target]:
    """Open the caches of the exports. If a directory cannot be a cache, warn and skip it."""
    exports_to: dict[LockedCache, list[Export]] = {}
    for export in task.exports:
        try:
            cache = caches.open_export(export.cache.directory)
        except (Busy, Cancelled):
            raise
        except KitcacheError as error:
            if export.cache.reset:
                raise
            options.warn(
                f"warning: {export.cache.dest}: the export is not guarded: {error.problem}"
            )
            continue
        exports_to.setdefault(cache, []).append(export)
    return [
        _Target(
            exports[0].cache.directory, cache, tuple(exports), cache.store.is_locked_elsewhere()
        )
        for cache, exports in exports_to.items()
    ]


def _open_import(
    source: CacheImport, caches: LockedCaches, options: LockOptions
) -> LockedCache | None:
    """Open a cache to import from; None if it cannot be opened, which the client reports."""
    try:
        return caches.open_import(source.directory)
    except NotACache:
        return None
    except (Busy, Cancelled):
        raise
    except KitcacheError as error:
        options.warn(describe_unlocked(source.directory, error))
        return None


def _open_stages(target: _Target, options: LockOptions, stack: ExitStack) -> _Target:
    """Make a staging directory for each export of a cache, if any of them is staged.

    If that fails, the client exports to the cache itself. If a reset needs the directories, raise.
    """
    several = len(target.exports) > 1
    if not (several or any(export.is_staged for export in target.exports)):
        return target
    from kitcache.wrap.staging import open_stage  # noqa: PLC0415 - as in task._make_job

    stages = []
    for export in target.exports:
        try:
            # An export that is alone in its build starts with the blobs of the cache.
            stages.append(open_stage(target.cache, options, stack, is_seeded=export.is_alone))
        except Cancelled:
            raise
        except KitcacheError as error:
            is_needed = several or not export.is_alone
            if is_needed and any(each.cache.reset for each in target.exports):
                raise
            options.warn(f"{target.path}: the export is not staged: {error.problem}")
            return target
    return target._replace(stages=tuple(stages))


def _run(
    program: str, rewritten: Rewritten, environ: Mapping[str, str], fds: Sequence[int]
) -> tuple[tuple[str, ...], int]:
    """Run the command, with its input and document in files. Return its argv and exit code."""
    argv, stdin_fd = rewritten.argv, None
    with suppress(OSError):
        os.write(2, rewritten.stderr)
    with ExitStack() as stack:
        if rewritten.stdin is not None:
            stdin_fd = stack.enter_context(_temporary_file(rewritten.stdin)).fileno()
        if rewritten.file is not None:
            path = stack.enter_context(_temporary_file(rewritten.file)).name
            argv = tuple(path if word == FILE_PLACEHOLDER else word for word in argv)
        return argv, run_child(program, argv, environ, inherited=fds, stdin_fd=stdin_fd)


@contextmanager
def _temporary_file(content: bytes) -> Iterator[IO[bytes]]:
    import tempfile  # noqa: PLC0415 - as in task._make_job

    with tempfile.NamedTemporaryFile(prefix="kitcache-exec-", suffix=".json") as file:
        file.write(content)
        file.seek(0)  # This also writes the buffer to the file.
        yield file


def _after_failure(target: _Target) -> ExecCacheResult:
    """Return the result of a cache after the command failed; hint at a concurrent export."""
    result = ExecCacheResult(target.path, (), bool(target.stages))
    if target.stages or not (
        target.was_locked_elsewhere or target.cache.store.is_locked_elsewhere()
    ):
        return result
    return result._replace(problems=(_STAGED_HELPS,))


def _merge(target: _Target, options: LockOptions, *, must_find_all: bool) -> ExecCacheResult:
    """Merge the staged exports of a cache. must_find_all: Report an empty staging directory."""
    tags = [] if target.stages else [export.cache.tag for export in target.exports]
    result = ExecCacheResult(target.path, (), bool(target.stages))
    for export, stage in zip(target.exports, target.stages, strict=False):
        from kitcache.wrap.staging import StagedMerge, merge  # noqa: PLC0415 - as in task._make_job

        problem = ""
        try:
            merged = merge(target.cache, stage, options)
        except KitcacheError as error:
            merged = StagedMerge(code=error.exit_code)
            problem = f"tag '{export.cache.tag}' was not published: {error.problem}"
        if merged.problem:
            problem = f"tag '{export.cache.tag}': {merged.problem}"
        elif not problem and must_find_all and not merged.tags:
            problem = f"nothing was exported to it; tag '{export.cache.tag}' is unchanged"
        tags += merged.tags
        result = result._replace(
            linked=result.linked + merged.linked.blobs,
            reused=result.reused + merged.reused.blobs,
            problems=(*result.problems, problem) if problem else result.problems,
            failure_code=max(result.failure_code, merged.code),
        )
    return result._replace(tags=tuple(dict.fromkeys(tags)))


def _record_export(cache: LockedCache, tags: Sequence[str]) -> None:
    """Record the export of these tags, with their digests if index.json can be read."""
    digests = {}
    with suppress(KitcacheError):
        entries = cache.store.read_roots(time.sleep).entries
        for tag in tags:
            entry = find_entry(entries, tag)
            if entry is not None and entry.descriptor:
                digests[tag] = str(entry.descriptor.digest)
    record_use(cache.store, tags, "exported", time.time_ns(), digests=digests)


def _sweep(
    target: _Target, result: ExecCacheResult, policy: "PrunePolicy | None", options: LockOptions
) -> ExecCacheResult:
    if not any(export.cache.reset for export in target.exports) or result.failure_code:
        return result
    target.cache.published.update(result.tags)
    reset, prune = sweep_after_export(target.cache, policy, options)
    return result._replace(reset=reset, prune=prune)


def _sweep_objects(
    target: ObjectTarget, policy: "PrunePolicy | None", options: LockOptions
) -> ExecCacheResult:
    reset, prune = sweep_objects_after_export(target, policy, options)
    return ExecCacheResult(target.path, target.names, is_staged=False, reset=reset, prune=prune)
