"""kitcache exec: run the build command of another client, then sweep the caches it exported to."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.terminal import print_stdout
from kitcache.cli.text import missing_warnings, reset_lines, reset_notes
from kitcache.errors import printable
from kitcache.options.caches import NOTHING_TO_SWEEP
from kitcache.store.files import STATE_DIR
from kitcache.store.stages import STAGE_PREFIX
from kitcache.upkeep.jobcaches import LockOptions, merge_targets
from kitcache.wrap.argv import FILE_PLACEHOLDER, ClientFailed
from kitcache.wrap.cacheflags import show_word
from kitcache.wrap.run import ExecCacheResult, run_task
from kitcache.wrap.task import Task, make_task, need_program

_DESCRIPTION = """\
Runs a build command of docker, buildx, compose or buildctl, of any version.
If a cache export to type=local, s3 or azblob has reset=true, kitcache hides
that from the client and resets the cache itself after the command. The command
has the terminal, and its exit code is the result. kitcache writes to stderr
only."""

_EPILOG = """\
examples:
  kitcache exec -- docker buildx build \\
    --cache-to type=local,dest=../cache,mode=max,reset=true .
  kitcache exec -- docker buildx bake
  kitcache exec --reset -- docker compose build
  kitcache exec --prune-policy cache.toml -- docker buildx build \\
    --cache-to type=local,dest=../cache,mode=max .
  kitcache exec --dry-run -- docker build --cache-to type=local,dest=../cache ."""

COMMAND = options.Command(
    description=_DESCRIPTION,
    epilog=_EPILOG,
    usage="[OPTIONS] -- COMMAND ...",
    effect="nothing was run",
    signals=(signal.SIGINT, signal.SIGTERM),
    arguments=(
        options.switch(
            "--reset",
            "sweep after every export to type=local, s3 or azblob, not only after reset=true",
        ),
        options.switch(
            "--in-place",
            "let the client write into the cache itself, one export at a time; else it writes"
            " into a staging directory, which is merged into the cache after success",
        ),
        options.switch(
            "-n --dry-run", "print the command as it would be run, and the caches; run nothing"
        ),
        options.argument(
            "--metadata-file",
            "FILE",
            "write the results of the caches there, as JSON",
            completes="files",
        ),
        options.policy_file(
            "--prune-policy",
            "remove tags from every cache exported to (type=local, s3 or azblob), as this file says"
            " (see kitcache prune; - is stdin), and sweep it",
        ),
        options.refused_policy("write it after --, among the words of the client"),
        options.LOCK_TIMEOUT,
        options.QUIET,
        options.argument(
            "words", "COMMAND", "the build command, with its options", nargs=argparse.REMAINDER
        ),
    ),
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the command. Return its exit code; if that is 0, the exit code of the caches."""
    _occupy_standard_fds()
    return console.each([""], lambda _: _Command(args, console).run())


def _occupy_standard_fds() -> None:
    """Open the fds 0, 1 and 2 if they are closed, so that no lock file gets such a number.

    Children do not inherit fds that Python opens, so these fds are closed in the command.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


class _Command:
    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self._args = args
        self._console = console

    def run(self) -> int:
        args = self._args
        words = args.words[1:] if args.words[:1] == ["--"] else args.words
        environ = dict(os.environ)
        if options.STDIN in words:
            options.check_stdin(args, "the command")
        policy = options.read_policy_of(args)
        resets = args.reset or policy is not None
        if words and not args.dry_run:
            need_program(words[0], environ)  # A missing program is reported before any warning.
        try:
            task = make_task(
                words,
                environ,
                self._read_stdin,
                resets=resets,
                staged=not args.in_place,
                warn=self._warn,
                cancel=args.cancel,
            )
        except ClientFailed as error:
            self._pass_on(error)
            self._warn(f"nothing was run: a reset was requested, and {error.reason}")
            return error.exit_code
        if args.dry_run:
            if task.failure is not None:
                self._pass_on(task.failure)
                return task.failure.exit_code
            print_stdout("\n".join(_plan_lines(task, policy=args.policy)))
            return 0
        if policy is not None and not (task.exports or task.objects):
            self._warn(f"warning: the policy applies to no cache: {NOTHING_TO_SWEEP}")
        locks = LockOptions(args.lock_timeout_s, self._console.on_progress, self._warn, args.cancel)
        result = run_task(task, environ, locks, policy=policy)
        if task.unguarded and not result.command_exit_code:
            self._warn(f"warning: no cache of this command was guarded: {task.unguarded}")
        for cache in result.caches:
            self._console.print_note(_result_lines(cache))
            self._console.print_warning(_warning_lines(cache))
        if args.metadata_file:
            from kitcache.cli.jsonout import shape_document  # noqa: PLC0415 - seldom asked for
            from kitcache.cli.resultfile import write_result  # noqa: PLC0415

            shown = result._replace(command=tuple(map(show_word, result.command)))
            text = json.dumps(shape_document(shown), indent=2)
            write_result(args.metadata_file, text + "\n", "the command itself is done")
        return result.exit_code

    def _pass_on(self, failure: ClientFailed) -> None:
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.buffer.write(failure.stderr)
            sys.stderr.flush()

    def _warn(self, sentence: str) -> None:
        self._console.print_warning([sentence])

    def _read_stdin(self) -> bytes | None:
        options.check_stdin(self._args, "the command")
        from kitcache.cli.interrupt import open_stdin  # noqa: PLC0415 - seldom needed

        stdin = open_stdin(self._args.cancel)
        # If stdin cannot be read, the client reports that itself.
        with suppress(OSError):
            return None if stdin is None else stdin.read()
        return None


def _plan_lines(task: Task, *, policy: str | None) -> Iterator[str]:
    """Yield the rewritten command, and one line per cache."""
    import shlex  # noqa: PLC0415 - seldom needed

    stage_name = STAGE_PREFIX + "X" * 16
    staging = {
        export.at: os.path.join(export.cache.dest, STATE_DIR, stage_name)
        for export in task.exports
        if export.is_staged
    }
    argv = task.job.rewrite(task.client_exports(staging)).argv
    shown = ["resolved-project.json" if word == FILE_PLACEHOLDER else word for word in argv]
    yield printable(shlex.join(map(show_word, shown)))
    if task.unguarded:
        yield printable(f"# no cache is guarded: {task.unguarded}")
    for export in task.exports:
        cache = export.cache
        then = ", then a reset" if cache.reset else ""
        then += f", by the policy {policy}" if policy is not None else ""
        how = " staged," if export.is_staged else ""
        yield printable(f"# to {cache.dest}, tag '{cache.tag}':{how} under the shared lock{then}")
    for target in merge_targets(task.objects.values()):
        names = ", ".join(f"'{name}'" for name in target.names)
        then = f"a reset, by the policy {policy}" if policy is not None else "a reset"
        yield printable(f"# to {target.path}, {names}: without a lock, then {then}")
    for source in task.imports:
        name = source.digest or f"tag '{source.tag}'"
        yield printable(f"# from {source.src}, {name}: under the shared lock")


def _result_lines(cache: ExecCacheResult) -> Iterator[str]:
    if cache.is_staged and cache.tags:
        names = ", ".join(f"'{tag}'" for tag in cache.tags)
        yield printable(
            f"{cache.path}: merged {names}: {cache.linked:,} new blobs, {cache.reused:,} reused"
        )
    if cache.prune is not None:
        from kitcache.cli.cachetext import removed_tag_lines  # noqa: PLC0415 - seldom needed

        yield from removed_tag_lines(cache.prune)
    if cache.reset is not None:
        yield from reset_lines(cache.reset)
        yield from reset_notes(cache.reset)


def _warning_lines(cache: ExecCacheResult) -> Iterator[str]:
    for problem in cache.problems:
        from kitcache.cli.hints import add_options  # noqa: PLC0415 - seldom needed

        yield printable(f"{cache.path}: {add_options(problem)}")
    if cache.prune is not None:
        from kitcache.cli.cachetext import excess_lines  # noqa: PLC0415 - seldom needed

        yield from excess_lines(cache.prune)
    if cache.reset is not None:
        yield from missing_warnings(cache.path, cache.reset.missing_blobs)
