"""Find, lock, run, merge, sweep: what `kitcache exec` does, in this order.

A command that fails changes no store beyond what its client did, and nothing is swept after it.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from kitcache.errors import Cancelled, KitcacheError, NotInstalled
from kitcache.gc.reset import reset_after_export
from kitcache.gc.values import Report
from kitcache.oci.document import DocumentError
from kitcache.oci.index import find_entry
from kitcache.options.caches import CacheExport, CacheImport
from kitcache.store.index import read_settled_index
from kitcache.store.layout import Layout
from kitcache.store.notes import note_use
from kitcache.wrap.argv import PLACE_OF_FILE, Job, Recognized, Rewritten, direct_job, recognize
from kitcache.wrap.cachewords import read_export, read_import, with_dest, without_reset
from kitcache.wrap.child import find_program, run_child
from kitcache.wrap.stores import Store, Stores, Terms, has_neighbour

if TYPE_CHECKING:
    from kitcache.options.retention import Retention
    from kitcache.upkeep.answers import Pruned
    from kitcache.wrap.staging import Stage

_STAGED_HELPS = "another export was under way in it; with --staged several can export at once"


class Export(NamedTuple):
    """A local export of the command. at: which of the job's exports."""

    at: int
    cache: CacheExport


class Task(NamedTuple):
    """A command that was understood: nothing has been touched yet.

    exports: the local ones, with `reset` as it is to be.
    """

    job: Job
    exports: tuple[Export, ...]
    imports: tuple[CacheImport, ...]

    def texts(self, dests: Mapping[int, str]) -> tuple[str, ...]:
        """All exports as the client is to see them. dests: where those that are staged go."""
        texts = list(self.job.exports)
        for at, _ in self.exports:
            texts[at] = without_reset(texts[at])
            if at in dests:
                texts[at] = with_dest(texts[at], dests[at])
        return tuple(texts)


def staged_exports(task: Task, *, staged: bool) -> frozenset[int]:
    """Which exports go to staging directories. staged: all of them."""
    stores = [os.path.realpath(export.cache.dest) for export in task.exports]
    return frozenset(
        export.at
        for export, store in zip(task.exports, stores, strict=True)
        if staged or stores.count(store) > 1 or not _is_alone(task, export)
    )


class StoreResult(NamedTuple):
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
    code: int = 0
    report: Report | None = None
    pruned: "Pruned | None" = None

    @property
    def exit_code(self) -> int:
        """0 where all is well."""
        return max(self.code, self.report.exit_code if self.report else 0)


class ExecResult(NamedTuple):
    """How it ended. command: what was run. code: the command's own exit code."""

    command: tuple[str, ...]
    code: int
    stores: tuple[StoreResult, ...]

    @property
    def exit_code(self) -> int:
        """The command's own, or that of the stores where the command was fine."""
        return self.code or max((store.exit_code for store in self.stores), default=0)


def make_task(
    argv: Sequence[str],
    environ: Mapping[str, str],
    read_stdin: Callable[[], bytes],
    *,
    resets: bool,
    warn: Callable[[str], None],
) -> Task:
    """Understand a command; bake and compose are asked what they would build.

    resets: every local export is to be swept after. Raises UsageError (not understood, or caches
    that the client would not take), NotInstalled, Refused, KitcacheError.
    """
    found = recognize(argv)
    job = _job_of(found, environ, read_stdin)
    read = [(at, read_export(text)) for at, text in enumerate(job.exports)]
    exports = [Export(at, cache) for at, cache in read if cache is not None]
    imports = tuple(cache for text in job.imports if (cache := read_import(text)) is not None)
    warnings = [warning for export in exports for warning in export.cache.warnings]
    warnings += [warning for cache in imports for warning in cache.warnings]
    for sentence in dict.fromkeys(warnings):
        warn(f"warning: {sentence}")
    if resets:
        exports = [Export(at, cache._replace(reset=True)) for at, cache in exports]
    return Task(job, tuple(exports), imports)


def _job_of(found: Recognized, environ: Mapping[str, str], read_stdin: Callable[[], bytes]) -> Job:
    # Only what the command needs is imported: start-up is part of the product.
    if found.kind in ("bake", "compose"):
        _find(found.argv[0], environ)
    if found.kind == "bake":
        from kitcache.wrap.bake import bake_job  # noqa: PLC0415

        return bake_job(found, environ, read_stdin)
    if found.kind == "compose":
        from kitcache.wrap.compose import compose_job  # noqa: PLC0415

        return compose_job(found, environ, read_stdin)
    return direct_job(found)


def _find(name: str, environ: Mapping[str, str]) -> str:
    program = find_program(name, environ)
    if program is None:
        raise NotInstalled(name)
    return program


class _Target(NamedTuple):
    """A store that is exported to. had_neighbour: others were at work in it at the beginning."""

    path: str
    store: Store
    exports: tuple[Export, ...]
    had_neighbour: bool
    is_staged: bool


def _is_alone(task: Task, export: Export) -> bool:
    """Whether it is the only local export of its build.

    Clients keep one tag a directory and one root a build, so several need directories of their own.
    """
    solves = task.job.solves
    return sum(solves[at] == solves[export.at] for at, _ in task.exports) == 1


def run_task(
    task: Task,
    environ: Mapping[str, str],
    terms: Terms,
    *,
    staged: bool,
    policy: "Retention | None" = None,
) -> ExecResult:
    """Run the command under the locks, then bring in what was staged, and sweep what asked for it.

    staged: all exports; several of one build, or to one store, always are. policy: which tags go
    from the stores that are swept.
    Raises what stops it before the command was started.
    """
    program = _find(task.job.argv[0], environ)
    with ExitStack() as stack:
        stores = Stores(terms, stack)
        targets = _open_targets(task, stores, staged=staged)
        sources = [(cache, stores.to_read(cache.src)) for cache in task.imports]
        stages = _Stages(terms, stack)
        for target in targets:
            if target.is_staged:
                stages.open(target, {e.at for e in target.exports if _is_alone(task, e)})
        rewritten = task.job.rewrite(task.texts(stages.dests))
        if terms.cancel is not None and terms.cancel.is_set():
            raise Cancelled("", untouched="the command was not started")
        fds = [fd for store in stores.all for fd in store.lock_fds] + stages.lock_fds
        command, code = _run(program, rewritten, environ, fds)
        if code:
            return ExecResult(command, code, tuple(map(_after_failure, targets)))
        merged = [stages.merge(target) for target in targets]
        _note(targets, [(cache, store) for cache, store in sources if store is not None])
        results = [_sweep(t, r, terms, policy) for t, r in zip(targets, merged, strict=True)]
        return ExecResult(command, code, tuple(results))


def _open_targets(task: Task, stores: Stores, *, staged: bool) -> list[_Target]:
    staging = staged_exports(task, staged=staged)
    found: dict[str, tuple[Store, list[Export]]] = {}
    for export in task.exports:
        store = stores.to_write(export.cache.dest)
        found.setdefault(store.real_path, (store, []))[1].append(export)
    return [
        _Target(
            exports[0].cache.dest,
            store,
            tuple(exports),
            has_neighbour(store.layout),
            len(exports) > 1 or any(export.at in staging for export in exports),
        )
        for store, exports in found.values()
    ]


def _run(
    program: str, rewritten: Rewritten, environ: Mapping[str, str], fds: Sequence[int]
) -> tuple[tuple[str, ...], int]:
    """Run it, with what it reads in files; the command, and its exit code."""
    argv = rewritten.argv
    with ExitStack() as stack:
        stdin_fd = None
        if rewritten.stdin is not None:
            import tempfile  # noqa: PLC0415 - as in _job_of

            file = stack.enter_context(tempfile.TemporaryFile())
            file.write(rewritten.stdin)
            file.seek(0)
            stdin_fd = file.fileno()
        if rewritten.file is not None:
            import tempfile  # noqa: PLC0415 - as in _job_of

            named = stack.enter_context(
                tempfile.NamedTemporaryFile(prefix="kitcache-compose-", suffix=".json")
            )
            named.write(rewritten.file)
            named.flush()
            argv = tuple(named.name if word == PLACE_OF_FILE else word for word in argv)
        return argv, run_child(program, argv, environ, inherited=fds, stdin_fd=stdin_fd)


def _after_failure(target: _Target) -> StoreResult:
    """Nothing is done to the store; where a neighbour may have been the reason it is said."""
    result = StoreResult(target.path, (), target.is_staged)
    if target.is_staged or not (target.had_neighbour or has_neighbour(target.store.layout)):
        return result
    return result._replace(problems=(_STAGED_HELPS,))


class _Stages:
    """The staging directories of one command."""

    def __init__(self, terms: Terms, stack: ExitStack) -> None:
        self._terms = terms
        self._stack = stack
        self._all: dict[int, Stage] = {}

    def open(self, target: _Target, seeded: AbstractSet[int]) -> None:
        """seeded: the exports whose directories begin with the blobs of the store."""
        from kitcache.wrap.staging import open_stage  # noqa: PLC0415 - as in _job_of

        for export in target.exports:
            self._all[export.at] = open_stage(
                target.store, self._terms, self._stack, is_seeded=export.at in seeded
            )

    @property
    def dests(self) -> dict[int, str]:
        """Where each staged export goes."""
        return {at: stage.path for at, stage in self._all.items()}

    @property
    def lock_fds(self) -> list[int]:
        """What the command inherits."""
        return [fd for stage in self._all.values() for fd in stage.lock_fds]

    def merge(self, target: _Target) -> StoreResult:
        """Bring in what was staged for a store."""
        tags = tuple(dict.fromkeys(export.cache.tag for export in target.exports))
        result = StoreResult(target.path, tags, target.is_staged)
        if not target.is_staged:
            return result
        from kitcache.wrap.staging import merge  # noqa: PLC0415 - as in _job_of

        merged_tags: list[str] = []
        for export in target.exports:
            try:
                merged = merge(target.store, self._all[export.at], self._terms)
            except KitcacheError as error:
                problem = f"tag '{export.cache.tag}' was not published: {error.problem}"
                code = error.exit_code
            else:
                merged_tags += merged.tags
                result = result._replace(
                    linked=result.linked + merged.linked.blobs,
                    reused=result.reused + merged.reused.blobs,
                )
                problem, code = merged.problem, merged.code
                problem = f"tag '{export.cache.tag}': {problem}" if problem else ""
            if problem:
                result = result._replace(
                    problems=(*result.problems, problem), code=max(result.code, code)
                )
        return result._replace(tags=tuple(dict.fromkeys(merged_tags)))


def _note(targets: Sequence[_Target], sources: Sequence[tuple[CacheImport, Store]]) -> None:
    """What was used now, for those who retire tags by age."""
    for target in targets:
        layout, tags = target.store.layout, [export.cache.tag for export in target.exports]
        note_use(layout, tags, "exported", time.time_ns(), digests=_digests_of(layout, tags))
    for cache, store in sources:
        if os.access(store.real_path, os.W_OK):
            note_use(store.layout, [cache.tag], "imported", time.time_ns())


def _digests_of(layout: Layout, tags: Sequence[str]) -> dict[str, str]:
    """What index.json says that these tags are, as far as it can be read."""
    try:
        _, entries = read_settled_index(layout, time.sleep)
    except (KitcacheError, DocumentError):
        return {}
    found = [(tag, find_entry(entries, tag)) for tag in tags]
    return {tag: str(e.descriptor.digest) for tag, e in found if e is not None and e.descriptor}


def _sweep(
    target: _Target, result: StoreResult, terms: Terms, policy: "Retention | None"
) -> StoreResult:
    if not any(export.cache.reset for export in target.exports) or result.code:
        return result
    if policy is None:
        report = reset_after_export(
            target.store.layout,
            target.store.give_back,
            result.tags,
            lock_timeout_s=terms.lock_timeout_s,
            on_progress=terms.on_progress,
            cancel=terms.cancel,
        )
        return result._replace(report=report)
    from kitcache.upkeep.pruning.prune import prune_after_export  # noqa: PLC0415 - as in _job_of

    pruned = prune_after_export(
        target.store.layout,
        target.store.give_back,
        result.tags,
        policy,
        lock_timeout_s=terms.lock_timeout_s,
        on_progress=terms.on_progress,
        cancel=terms.cancel,
    )
    return result._replace(report=pruned.report, pruned=pruned)
