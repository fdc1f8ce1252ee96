"""The caches of a command: its exports and imports, and the exports to stage.

It changes nothing. For bake and compose it runs the client to print the builds.
"""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Event
from typing import NamedTuple

from kitcache.errors import NotExecutable, NotInstalled, UsageError
from kitcache.options.attributes import Pairs
from kitcache.options.caches import (
    OBJECT_KINDS,
    CacheExport,
    CacheImport,
    parse_cache_export,
    parse_cache_import,
)
from kitcache.upkeep.jobcaches import ObjectTarget, object_target
from kitcache.wrap.argv import ClientFailed, Job, direct_job, recognize, unchanged_job
from kitcache.wrap.cacheflags import asks_for_reset, read_cache, rewrite_export
from kitcache.wrap.child import find_program
from kitcache.wrap.contexts import warn_of_caches
from kitcache.wrap.flags import NotUnderstood

_WITHOUT_ROOT = ("inline", "gha", "s3", "azblob")
"""Exports for which the daemon reports no root. Source: BuildKit cache/remotecache, Finalize."""


class Export(NamedTuple):
    """A local export of a command.

    Attributes:
        at: Its position in the job's exports.
        is_alone: True if the daemon reports only this export's root for its build.
        is_staged: True if the client exports to a staging directory.
    """

    at: int
    cache: CacheExport
    is_alone: bool = True
    is_staged: bool = False


class Task(NamedTuple):
    """A command, and its caches.

    Attributes:
        exports: The local exports. `reset` is True if kitcache will reset the cache.
        objects: The caches in object stores that kitcache will sweep, by the position of their
            export in the job's exports.
        unguarded: Why its caches are unknown, a clause. The command then runs unchanged.
        failure: The client's failure when it was queried.
    """

    job: Job
    exports: tuple[Export, ...] = ()
    objects: Mapping[int, ObjectTarget] = {}
    imports: tuple[CacheImport, ...] = ()
    unguarded: str = ""
    failure: ClientFailed | None = None

    def client_exports(self, dests: Mapping[int, str]) -> tuple[str, ...]:
        """Return all exports as the client gets them. dests: The directories of staged exports."""
        texts = list(self.job.exports)
        for export in self.exports:
            texts[export.at] = rewrite_export(texts[export.at], dests.get(export.at))
        for at in self.objects:
            texts[at] = rewrite_export(texts[at])
        return tuple(texts)


def make_task(
    argv: Sequence[str],
    environ: Mapping[str, str],
    read_stdin: Callable[[], bytes | None],
    *,
    resets: bool,
    staged: bool,
    warn: Callable[[str], None],
    cancel: Event | None = None,
) -> Task:
    """Find the caches of a command. If that fails and no reset is requested, it runs unchanged.

    Args:
        resets: Reset after every export for which kitcache can.
        staged: Stage every export, not only those that need it.

    Raises:
        UsageError: The command is not understood, or its client would refuse its caches.
        NotInstalled, NotExecutable, ClientFailed, Cancelled, KitcacheError: As named.
    """
    # A client reads its input twice, in the query and in the run, so keep it.
    stdin: list[bytes | None] = [None]

    def keep_stdin() -> bytes | None:
        stdin[0] = read_stdin()
        return stdin[0]

    try:
        job = _make_job(argv, environ, keep_stdin, cancel)
    except (NotUnderstood, ClientFailed) as error:
        if resets or asks_for_reset(argv):
            raise
        unchanged = Task(unchanged_job(argv, stdin[0]))
        if isinstance(error, ClientFailed):
            return unchanged._replace(unguarded=error.reason, failure=error)
        warn(f"warning: no cache of this command is guarded: {_in_one_line(error)}")
        return unchanged
    try:
        written = [read_cache(text) for text in job.exports]
        exports = {
            at: parse_cache_export(pairs)
            for at, (kind, pairs) in enumerate(written)
            if kind == "local"
        }
        imports = tuple(
            parse_cache_import(pairs)
            for kind, pairs in map(read_cache, job.imports)
            if kind == "local"
        )
    except UsageError as error:
        if resets or any("reset" in text.lower() for text in job.exports):
            raise
        return Task(unchanged_job(argv, stdin[0]), unguarded=_in_one_line(error))
    objects, warnings = _find_objects(written, resets=resets)
    warnings += [warning for export in exports.values() for warning in export.warnings]
    warnings += [warning for source in imports for warning in source.warnings]
    warnings += _warn_of_repeated(exports.values())
    warnings += warn_of_caches(job.contexts, [cache.directory for cache in exports.values()])
    for sentence in dict.fromkeys(warnings):
        warn(f"warning: {sentence}")
    if resets:
        exports = {at: cache._replace(reset=True) for at, cache in exports.items()}
    kinds = [kind for kind, _ in written]
    return Task(job, _plan_exports(job, kinds, exports, staged=staged), objects, imports)


def _find_objects(
    written: Sequence[tuple[str | None, Pairs]], *, resets: bool
) -> tuple[dict[int, ObjectTarget], list[str]]:
    """Return the caches in object stores to sweep, and warnings. Other exports are not changed.

    BuildKit ignores `reset` there, so an export that kitcache does not understand is not an error.
    """
    objects: dict[int, ObjectTarget] = {}
    warnings: list[str] = []
    for at, (kind, pairs) in enumerate(written):
        if kind not in OBJECT_KINDS or not (resets or "reset" in dict(pairs)):
            continue
        try:
            export = parse_cache_export(pairs)
            if export.reset or resets:
                objects[at] = object_target(export)
                warnings += export.warnings
        except UsageError as error:
            warnings.append(f"the cache of type={kind} is not swept: {_in_one_line(error)}")
    return objects, warnings


def _in_one_line(error: UsageError) -> str:
    return "; ".join((error.problem, *error.hints))


def _plan_exports(
    job: Job, kinds: Sequence[str | None], exports: Mapping[int, CacheExport], *, staged: bool
) -> tuple[Export, ...]:
    """Select the local exports to stage.

    Clients keep one tag per directory, and write the root of a build's last export to all of its
    directories. So each export needs its own directory if a build, or a directory, has several.
    Source: BuildKit client/solve.go, cacheExporter responses.
    """
    roots = Counter(
        solve
        for solve, kind, text in zip(job.solves, kinds, job.exports, strict=True)
        if text and kind not in _WITHOUT_ROOT
    )
    writers = Counter(os.path.realpath(cache.dest) for cache in exports.values())
    planned = []
    for at, cache in exports.items():
        is_alone = roots[job.solves[at]] == 1
        is_shared = writers[os.path.realpath(cache.dest)] > 1
        planned.append(Export(at, cache, is_alone, staged or is_shared or not is_alone))
    return tuple(planned)


def _warn_of_repeated(exports: Iterable[CacheExport]) -> Iterator[str]:
    seen = set()
    for cache in exports:
        place = os.path.realpath(cache.dest), cache.tag
        if place in seen:
            yield (
                f"{cache.dest}: the tag {cache.tag!r} is exported to more than once:"
                " the last export counts"
            )
        seen.add(place)


def _make_job(
    argv: Sequence[str],
    environ: Mapping[str, str],
    read_stdin: Callable[[], bytes | None],
    cancel: Event | None,
) -> Job:
    command = recognize(argv)
    if command.kind not in ("bake", "compose"):
        return direct_job(command)
    need_program(argv[0], environ)
    # Only the module that the command needs is imported, to start fast.
    if command.kind == "bake":
        from kitcache.wrap.bake import bake_job as make_job  # noqa: PLC0415
    else:
        from kitcache.wrap.compose import compose_job as make_job  # noqa: PLC0415
    return make_job(command, environ, read_stdin, cancel)


def need_program(name: str, environ: Mapping[str, str]) -> str:
    """Return the file that a command's first word names. Raises NotInstalled, NotExecutable."""
    program = find_program(name, environ)
    if program is None:
        raise NotInstalled(name)
    if not os.access(program, os.X_OK) or os.path.isdir(program):
        code = errno.EISDIR if os.path.isdir(program) else errno.EACCES
        raise NotExecutable(name, os.strerror(code))
    return program
