"""kitcache build: build with BuildKit, export the cache, sweep it."""

import argparse
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.client import Client, RunningBuild
from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.daemon.config import config_directory
from kitcache.buildkit.request import read_proxies
from kitcache.buildkit.result import BuildResult
from kitcache.buildkit.session.registry import DockerConfig
from kitcache.cli import buildoptions, options
from kitcache.cli.buildrequest import find_address, make_request
from kitcache.cli.cachetext import cache_lines, excess_lines
from kitcache.cli.console import Console
from kitcache.cli.display import Guarded, choose_mode, make_display, showing
from kitcache.cli.failures import LOG_LINES, failure_lines, warning_lines
from kitcache.cli.hints import add_options
from kitcache.cli.interrupt import GLANCE_S, open_stdin, unless_cancelled
from kitcache.cli.jsonout import shape_metadata
from kitcache.cli.resultfile import write_result
from kitcache.cli.steptext import wants_colour
from kitcache.cli.terminal import is_terminal, print_stderr, print_stdout
from kitcache.cli.text import waiting_line
from kitcache.errors import BuildFailed, Cancelled, UsageError, printable
from kitcache.gc.values import Progress
from kitcache.store.ioerrors import io_error
from kitcache.store.values import Waiting

if TYPE_CHECKING:  # most builds name no policy
    from kitcache.options.prunepolicy import PrunePolicy

COMMAND = buildoptions.COMMAND

_DONE = "the build itself is done"
_CANCEL_TIMEOUT_S = 10.0
_CANCELLING = "cancelling the build on the daemon; Ctrl-C again leaves at once"


def run(args: argparse.Namespace, console: Console) -> int:
    """Build; the exit code is the highest of the build's and its caches'."""
    return console.each([""], lambda _: _Command(args, console).run())


class _Command:
    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self._args = args
        self._console = console
        self._mode = choose_mode(args.progress, sys.stderr, os.environ, is_quiet=args.quiet)
        self._config = config_directory(os.environ)

    def run(self) -> int:
        args = self._args
        if args.context is None:
            raise UsageError(
                "CONTEXT is missing: a directory such as . (this one), a URL, or - for stdin",
                hints=("kitcache build --help",),
            )
        request = make_request(args, os.environ)
        if options.STDIN in (args.context, args.file):
            options.check_stdin(args, "the build")
        policy = options.read_policy_of(args)
        address = find_address(args, os.environ)
        display = make_display(self._mode, sys.stderr, os.environ)
        if args.iidfile:
            _remove_stale(args.iidfile)
        try:
            connected = unless_cancelled(lambda: Client(address), args.cancel)
            with connected as client, showing(display) as shown:
                shown.note(f"building on {address.url} ({address.origin})")
                build = client.start(request, self._options(address, shown, policy))
                self._follow(build, shown)
                result = build.result()
        except BuildFailed as error:
            self._print(failure_lines(error, colour=_colour(), log_lines=self._log_lines()))
            return error.exit_code
        return self._finish(result)

    def _options(
        self, address: Address, shown: Guarded, policy: "PrunePolicy | None"
    ) -> BuildOptions:
        def on_progress(event: Progress | Waiting) -> None:
            if isinstance(event, Waiting):
                shown.note(f"kitcache: {waiting_line(event)}")

        def on_notice(sentence: str) -> None:
            sentence = add_options(sentence)
            if self._mode == "quiet":
                self._console.print_warning([f"warning: {sentence}"])
            shown.note(f"kitcache: warning: {printable(sentence)}")

        return BuildOptions(
            on_notice=on_notice,
            on_progress=on_progress,
            cancel=self._args.cancel,
            credentials=DockerConfig(self._config, on_notice, cancel=self._args.cancel).credentials,
            stdin=open_stdin(self._args.cancel),
            stdout=_stdout(),
            proxy_args=read_proxies(self._config, address.url),
            lock_timeout_s=self._args.lock_timeout_s,
            prune_policy=policy,
        )

    def _follow(self, build: RunningBuild, shown: Guarded) -> None:
        ends_s = None
        while not build.is_over:
            update = build.next_update(GLANCE_S)
            if update is not None:
                shown.update(update)
            if ends_s is None and self._args.cancel.is_set():
                ends_s = time.monotonic() + _CANCEL_TIMEOUT_S
                shown.note(_CANCELLING)
            if ends_s is not None and time.monotonic() >= ends_s:
                raise Cancelled("", problem="the build was cancelled, and does not end")

    def _finish(self, result: BuildResult) -> int:
        try:
            self._write_files(result)
        finally:  # stdout is last: its reader may have closed it, or may not read.
            self._report(result)
        if self._args.quiet and result.image_id:
            print_stdout(result.image_id)
        return result.exit_code

    def _write_files(self, result: BuildResult) -> None:
        if self._args.iidfile:
            write_result(self._args.iidfile, result.image_id or "", _DONE)
        if self._args.metadata_file:
            text = json.dumps(shape_metadata(result), indent=2)
            write_result(self._args.metadata_file, text + "\n", _DONE)

    def _report(self, result: BuildResult) -> None:
        if self._mode in ("plain", "tty"):
            self._print(warning_lines(result.warnings))
        if not self._args.quiet:
            self._print(cache_lines(result.caches))
        for cache in result.caches:
            if cache.outcome == "failed":
                self._console.print_warning([f"{cache.path}: tag '{cache.tag}': {cache.problem}"])
            if cache.prune is not None:
                self._console.print_warning(excess_lines(cache.prune))

    def _log_lines(self) -> int | None:
        """Return the limit of log lines: None (all lines) if the display has shown only a few."""
        return None if self._mode == "tty" else LOG_LINES

    def _print(self, lines: Iterator[str]) -> None:
        for line in lines:
            print_stderr(line)


def _colour() -> bool:
    return is_terminal(sys.stderr) and wants_colour(os.environ.get("NO_COLOR"))


def _stdout() -> BinaryIO | None:
    """Return the stream of `-o -`; None for a terminal, which cannot show an archive."""
    return None if sys.stdout is None or is_terminal(sys.stdout) else sys.stdout.buffer


def _remove_stale(path: str) -> None:
    """Delete the file of an earlier build, as buildx does; a symlink or a device is kept."""
    try:
        if stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise io_error(
            path, "the old image digest cannot be removed", error, effect="nothing was built"
        ) from None
