"""What a command means for the caches here: its local exports and imports, and which are staged.

Nothing is touched for that; bake and compose are asked what they would build.
"""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Event
from typing import NamedTuple

from kitcache.errors import NotExecutable, NotInstalled, UsageError
from kitcache.options.caches import CacheExport, CacheImport
from kitcache.wrap.argv import (
    ClientFailed,
    DirectJob,
    Job,
    Recognized,
    builds_nothing,
    direct_job,
    recognize,
)
from kitcache.wrap.cacheflags import (
    asks_for_reset,
    read_export,
    read_import,
    returns_digest,
    with_dest,
    without_reset,
)
from kitcache.wrap.child import find_program
from kitcache.wrap.contexts import warn_of_caches
from kitcache.wrap.flags import NotUnderstood

_UNGUARDED = "no cache of this command is guarded"


class Export(NamedTuple):
    """A local export of the command. at: which of the job's exports.

    is_alone: no other export of its build is answered with a root. is_staged: it goes to a
    directory of its own first.
    """

    at: int
    cache: CacheExport
    is_alone: bool = True
    is_staged: bool = False


class Task(NamedTuple):
    """A command: nothing has been touched yet.

    exports: the local ones, with `reset` as it is to be. unguarded: why nothing is known of them, a
    clause; then it is run as it is, and its client judges it. refusal: of the client, where it was
    asked.
    """

    job: Job
    exports: tuple[Export, ...] = ()
    imports: tuple[CacheImport, ...] = ()
    unguarded: str = ""
    refusal: ClientFailed | None = None

    def texts(self, dests: Mapping[int, str]) -> tuple[str, ...]:
        """All exports as the client is to see them. dests: where those that are staged go."""
        texts = list(self.job.exports)
        for export in self.exports:
            texts[export.at] = without_reset(texts[export.at])
            if export.at in dests:
                texts[export.at] = with_dest(texts[export.at], dests[export.at])
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
    """Understand a command; one that is not understood is run as it is, unless it asks for a reset.

    resets: every local export is to be swept after. staged: each goes to a staging directory, not
    only those that have to. cancel: a client that is asked is ended then.
    Raises UsageError (not understood, or caches that the client would not take), NotInstalled,
    NotExecutable, Refused, Cancelled, KitcacheError.
    """
    stdin = _Stdin(read_stdin)
    try:
        job = _job_of(recognize(argv), environ, stdin.read, cancel)
    except (NotUnderstood, ClientFailed) as error:
        if resets or asks_for_reset(argv):
            raise
        as_it_is = Task(DirectJob(tuple(argv), stdin=stdin.data))
        if isinstance(error, ClientFailed):
            return as_it_is._replace(unguarded=error.reason, refusal=error)
        warn(f"warning: {_UNGUARDED}: {_in_one_line(error)}")
        return as_it_is
    try:
        read = [(at, read_export(text)) for at, text in enumerate(job.exports)]
        exports = {at: cache for at, cache in read if cache is not None}
        imports = tuple(cache for text in job.imports if (cache := read_import(text)) is not None)
    except UsageError as error:
        if resets or any("reset" in text.lower() for text in job.exports):
            raise
        return Task(DirectJob(tuple(argv), stdin=stdin.data), unguarded=_in_one_line(error))
    warnings = [warning for cache in exports.values() for warning in cache.warnings]
    warnings += [warning for cache in imports for warning in cache.warnings]
    warnings += _repeated(exports.values())
    warnings += warn_of_caches(job.contexts, [cache.dest for cache in exports.values()])
    for sentence in dict.fromkeys(warnings):
        warn(f"warning: {sentence}")
    if resets:
        exports = {at: cache._replace(reset=True) for at, cache in exports.items()}
    return Task(job, plan_exports(job, exports, staged=staged), imports)


def _in_one_line(error: UsageError) -> str:
    return "; ".join((error.problem, *error.hints))


class _Stdin:
    """What a client is to read twice: as it is asked what it would do, and as it does it."""

    def __init__(self, read: Callable[[], bytes | None]) -> None:
        self._read = read
        self.data: bytes | None = None

    def read(self) -> bytes | None:
        self.data = self._read()
        return self.data


def plan_exports(
    job: Job, exports: Mapping[int, CacheExport], *, staged: bool
) -> tuple[Export, ...]:
    """The local exports of a job, with what has to be staged. staged: all of them.

    Clients keep one tag a directory, and write the last root that a build is answered with into all
    its directories: several in one build or for one directory each need one of their own.
    Source: BuildKit client/solve.go, cacheExporter responses.
    """
    answered = Counter(
        solve for solve, text in zip(job.solves, job.exports, strict=True) if returns_digest(text)
    )
    writers = Counter(os.path.realpath(cache.dest) for cache in exports.values())
    found = []
    for at, cache in exports.items():
        is_alone = answered[job.solves[at]] == 1
        is_shared = writers[os.path.realpath(cache.dest)] > 1
        found.append(Export(at, cache, is_alone, staged or is_shared or not is_alone))
    return tuple(found)


def _repeated(exports: Iterable[CacheExport]) -> Iterator[str]:
    seen = set()
    for cache in exports:
        place = os.path.realpath(cache.dest), cache.tag
        if place in seen:
            yield (
                f"{cache.dest}: the tag {cache.tag!r} is exported to more than once: the last one"
                " counts"
            )
        seen.add(place)


def _job_of(
    found: Recognized,
    environ: Mapping[str, str],
    read_stdin: Callable[[], bytes | None],
    cancel: Event | None,
) -> Job:
    # Only what the command needs is imported: start-up is part of the product.
    if found.kind in ("bake", "compose"):
        need_program(found.argv[0], environ)
    if found.kind == "bake":
        from kitcache.wrap.bake import bake_job  # noqa: PLC0415

        return bake_job(found, environ, read_stdin, cancel)
    if found.kind == "compose":
        from kitcache.wrap.compose import compose_job  # noqa: PLC0415

        return compose_job(found, environ, read_stdin, cancel)
    if builds_nothing(found):
        return DirectJob(found.argv)
    return direct_job(found)


def need_program(name: str, environ: Mapping[str, str]) -> str:
    """The file that a command's first word names. Raises NotInstalled, NotExecutable."""
    program = find_program(name, environ)
    if program is None:
        raise NotInstalled(name)
    if not os.access(program, os.X_OK) or os.path.isdir(program):
        code = errno.EISDIR if os.path.isdir(program) else errno.EACCES
        raise NotExecutable(name, os.strerror(code))
    return program
