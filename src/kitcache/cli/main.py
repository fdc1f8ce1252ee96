"""The argument tree, Ctrl-C, and exceptions turned into exit codes.

Only the command that was asked for is imported: start-up is part of the product.
"""

import argparse
import errno
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from kitcache import __version__
from kitcache.cli.terminal import StdoutError, writing_stdout, print_stdout, print_stderr, terminal_width
from kitcache.errors import NOTHING_MORE, Cancelled, KitcacheError, UsageError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

COMMANDS = {
    "build": "build with BuildKit, export the cache, and sweep it",
    "exec": "run a build command of docker or buildctl, and sweep the caches that it exported",
    "reset": "delete every blob that no entry of index.json reaches",
    "prune": "drop tags by a policy, then delete what only they reached",
    "trim": "make a tag smaller: cut its coldest steps",
    "du": "show what is live, what is reclaimable, and each tag's share",
    "ls": "list the tags of a cache, or what one tag holds",
    "why": "show which tags keep a blob, and by which path",
    "untag": "take entries out of index.json",
    "verify": "hash every blob, show what no build could import, repair it",
    "tag": "give an entry of index.json a further tag",
    "merge": "copy all tags of several caches into one",
    "plugin": "make `docker kitcache` work, or show whether it does",
    "completion": "print a completion script for a shell",
}

_DESCRIPTION = """\
BuildKit from Python, with local caches (--cache-to type=local,dest=DIR) that do
not grow. build talks to a docker engine or a buildkitd. The other commands need
no daemon: they delete what no tag reaches, and show what is live, what is not,
and why, in caches of every BuildKit version and in any other OCI image layout."""

_EPILOG = """\
examples:
  kitcache build --cache-to type=local,dest=cache,mode=max,reset=true .
  kitcache du ./cache               how much of it is garbage?
  kitcache reset --dry-run ./cache  what would go?
  kitcache reset ./cache            delete what no tag reaches
  kitcache prune --max-used-space 5GB --keep-tag main ./cache
  kitcache COMMAND --help           more about one command

exit codes: 0 done, 1 failed, 2 usage, 3 done in part, 10 not a cache,
11 busy, 12 damaged, 13 unsafe, 14 limit not reached, 20 no daemon,
21 build failed, 126 not executable, 127 not installed, 130 interrupted"""

_CODES = "exit codes:\n  kitcache --help lists them"

PROGRAM = "kitcache"
_GLANCE_S = 0.05
# What the launcher `docker-kitcache` says first: docker's own words follow.
PLUGIN_CALL = "docker-cli-plugin"
# What a completion script says first, as those of docker and kubectl do.
COMPLETE_CALL = "__complete"

WINDOWS = "kitcache needs flock and openat, which Windows does not have: run it inside WSL"


def run() -> NoReturn:
    """The console script."""
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:  # before the handler was in place: nothing had begun
        code = Cancelled.exit_code
    with suppress(OSError):
        if sys.stderr:
            sys.stderr.flush()
    # All is written and no thread runs; taking the interpreter apart would cost half a start-up.
    os._exit(code)


def main(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    if sys.platform == "win32":
        print_stderr(WINDOWS)
        return 1
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")
    try:
        if argv and argv[0] == PLUGIN_CALL:
            code: int = import_module("kitcache.cli.plugincall").run(argv[1:])
        elif argv and argv[0] == COMPLETE_CALL:
            code = import_module("kitcache.cli.complete").run(argv[1:])
        else:
            code = run_words(argv)
        if sys.stdout:
            with writing_stdout():
                sys.stdout.flush()
    except StdoutError as error:
        if error.errno != errno.EPIPE:  # a reader that has gone away knows it
            print_stderr(f"kitcache: cannot write the answer: {error.strerror}")
        _drop_stdout()
        return 1
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        _tell_bug(error, as_json=_wants_json(argv))
        return 1
    return code


def run_words(argv: Sequence[str], program: str = PROGRAM) -> int:
    """Run the words of one command line, as `program` has it in its usage."""
    if argv and argv[0] == "help":
        argv = [*argv[1:2], "--help"]
    parser = make_parser(argv[0] if argv and argv[0] in COMMANDS else None, program)
    if not argv:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    try:
        args = parser.parse_args(argv)
    except SystemExit:  # --help and --version have been printed
        return 0
    except UsageError as error:
        if argv[0] in COMMANDS and not error.hints:
            error.hints = (f"{program} {argv[0]} --help",)
        from kitcache.cli.console import Console  # noqa: PLC0415 - Windows cannot import it

        Console(wants_json=_wants_json(argv), is_quiet=False).print_error(error)
        return error.exit_code
    args.cancel = _cancel_on_interrupt()
    code: int = import_module(f"kitcache.cli.commands.{args.command}").run(args)
    return code


def _drop_stdout() -> None:
    """Let the flush at exit write to nowhere, for it would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wants_json(argv: Sequence[str]) -> bool:
    """Whether --json is among the options; what stands behind -- is none."""
    return "--json" in argv[: argv.index("--") if "--" in argv else None]


def _shortage_of(error: Exception) -> KitcacheError | None:
    """Return the error for what the machine lacks; None where the failure is a bug of ours.

    Imports nothing: that takes a file and memory.
    """
    code = error.errno if isinstance(error, OSError) else None
    problem, remedy = "", ""
    if isinstance(error, MemoryError) or code == errno.ENOMEM:
        problem = "there is not enough memory"
        remedy = "allow more memory (ulimit -v), or end other programs"
    elif code in (errno.EMFILE, errno.ENFILE) or os.strerror(errno.EMFILE) in str(error):
        problem = "there are too many open files"
        remedy = "allow more open files (ulimit -n), or end other programs"
    elif isinstance(error, OverflowError) and not _has_a_clock():
        problem = "the clock of this machine is beyond the year 2262"
        remedy = "set the clock: times of files cannot be compared with it"
    steps = (remedy, "run the same command again")
    return KitcacheError("", problem, effect=NOTHING_MORE, hints=steps) if problem else None


def _has_a_clock() -> bool:
    """Return True if Python can read the clock: it counts nanoseconds in 64 bits."""
    try:
        time.time_ns()
    except OverflowError:
        return False
    return True


def _tell_bug(error: Exception, *, as_json: bool) -> None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code if trace else None
    where = f" ({os.path.basename(code.co_filename)}, {code.co_name})" if code else ""
    bug = _shortage_of(error) or KitcacheError(
        "",
        f"this is a bug in kitcache: {type(error).__name__}: {error}{where}",
        effect=NOTHING_MORE,
        hints=("report it with the command that you ran",),
    )
    print_stderr(f"kitcache: {bug}")
    if as_json:
        with suppress(Exception):  # what has failed once may fail again
            print_stdout(import_module("kitcache.cli.jsonout").encode_error(bug))


def make_parser(asked: str | None, program: str = PROGRAM) -> argparse.ArgumentParser:
    """The argument tree: of the command asked for alone, with None of every one."""
    parser = _Parser(
        prog=program,
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_name_program(_EPILOG, program),
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"kitcache {__version__}")
    commands = parser.add_subparsers(prog=program, dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS if asked is None else (asked,):
        sub = commands.add_parser(
            name, help=COMMANDS[name], allow_abbrev=False, formatter_class=_Help
        )
        import_module(f"kitcache.cli.commands.{name}").configure(sub)
        sub.epilog = _name_program(f"{sub.epilog}\n\n{_CODES}", program)
    return parser


def _name_program(epilog: str | None, program: str) -> str | None:
    """The examples, as they are typed where kitcache is called by another name."""
    return epilog and epilog.replace(f"\n  {PROGRAM} ", f"\n  {program} ")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as kitcache says everything: one sentence, and what to do next."""

    def error(self, message: str) -> NoReturn:
        from kitcache.cli.usage import describe_error  # noqa: PLC0415 - seldom needed

        raise UsageError(describe_error(message), hints=(f"{self.prog} --help",))

    def parse_known_args(  # type: ignore[override] # of the overloads one is used
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        # argparse's own leaves what is unknown to the parser above, which cannot guess.
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            from kitcache.cli.usage import describe_unknown  # noqa: PLC0415 - seldom needed

            self.error(describe_unknown(unknown, self._option_string_actions))
        return found, unknown

    def _print_message(self, message: str, file: "SupportsWrite[str] | None" = None) -> None:
        # argparse's own is silent where help cannot be written.
        if file is not None:
            with writing_stdout():
                file.write(message)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal. Asking for the width here spares argparse to import shutil."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22, width=terminal_width() - 2)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """-f, --file PATH: older Pythons name the PATH twice."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        default = self._get_default_metavar_for_optional(action)
        return f"{', '.join(action.option_strings)} {self._format_args(action, default)}"


class Interrupt(Event):
    """An Event for a signal handler to set, which runs in the very thread that may wait for it.

    Event.set takes a lock that Event.wait holds for moments, and would wait for it for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._has_come = False

    def set(self) -> None:
        """Whoever waits sees it a twentieth of a second later."""
        self._has_come = True

    def is_set(self) -> bool:
        return self._has_come

    def wait(self, timeout: float | None = None) -> bool:
        ends = None if timeout is None else time.monotonic() + timeout
        while not self._has_come:
            left_s = _GLANCE_S if ends is None else min(_GLANCE_S, ends - time.monotonic())
            if left_s <= 0:
                break
            time.sleep(left_s)
        return self._has_come


def _cancel_on_interrupt() -> Event:
    """An event that the first Ctrl-C sets; the second one ends the process at once.

    Where whoever started us had SIGINT ignored, it stays ignored, here and in what we start.
    """
    cancel = Interrupt()

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        cancel.set()

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    return cancel
