"""The console script: one command line, its exit code, and failures that are bugs."""

import errno
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from kitcache.cli import COMPLETE_CALL, PLUGIN_CALL
from kitcache.cli.terminal import StdoutError, print_stderr, print_stdout, writing_stdout
from kitcache.errors import NOTHING_MORE, Cancelled, KitcacheError, UsageError

WINDOWS = "kitcache needs flock and openat, which Windows does not have: run it inside WSL"


def run() -> NoReturn:
    """Run the command line of this process and exit."""
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:  # The handler was not installed yet, so nothing had begun.
        code = Cancelled.exit_code
    with suppress(OSError):
        if sys.stderr:
            sys.stderr.flush()
    # All output is written and no thread runs. Finalizing the interpreter takes half a start-up.
    os._exit(code)


def main(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    if sys.platform == "win32":
        print_stderr(WINDOWS)
        return 1
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(list(argv))
        if sys.stdout:
            with writing_stdout():
                sys.stdout.flush()
    except StdoutError as error:
        if error.errno != errno.EPIPE:  # With EPIPE, the reader has closed the pipe.
            print_stderr(f"kitcache: cannot write the result: {error.strerror}")
        # Without this the flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        _print_bug(error, wants_json=_wants_json(argv))
        return 1
    return code


def _run(words: list[str]) -> int:
    if words[:1] == [COMPLETE_CALL]:
        completed: int = import_module("kitcache.cli.complete").run(words[1:])
        return completed
    program = "kitcache"
    try:
        if words[:1] == [PLUGIN_CALL]:
            from kitcache.cli import plugincall  # noqa: PLC0415 - only docker needs it

            call = plugincall.answer(words[1:])
            if call is None:
                return 0
            words, program = list(call), plugincall.PROGRAM
        return run_words(words, program)
    except UsageError as error:
        from kitcache.cli.console import Console  # noqa: PLC0415 - Windows cannot import it

        Console(wants_json=_wants_json(words)).print_error(error)
        return error.exit_code


def run_words(words: Sequence[str], program: str) -> int:
    """Run one command line. Raises UsageError if it is not valid."""
    # Imported late: docker's request for the plugin's metadata does not need these modules.
    from kitcache.cli.console import Console  # noqa: PLC0415
    from kitcache.cli.parser import load_command, make_top_parser, parse_words  # noqa: PLC0415
    from kitcache.cli.signals import cancel_on_signals  # noqa: PLC0415

    if not words:
        make_top_parser(program).print_help(sys.stderr)
        return UsageError.exit_code
    args = parse_words(words, program)
    if args is None:
        return 0
    module = load_command(args.command)
    args.cancel = cancel_on_signals(module.COMMAND.signals)
    console = Console(
        wants_json=getattr(args, "json", False),
        is_quiet=getattr(args, "quiet", False),
        effect=module.COMMAND.effect,
    )
    code: int = module.run(args, console)
    return code


def _wants_json(words: Sequence[str]) -> bool:
    """Return True if --json is an option of kitcache: words after `--` are another command."""
    return "--json" in words[: words.index("--") if "--" in words else None]


def _shortage_of(error: Exception) -> KitcacheError | None:
    """Return the error for a shortage of memory or files; None if the failure is a bug.

    It must not import a module: an import needs a file and memory.
    """
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or code == errno.ENOMEM:
        problem = "there is not enough memory"
        remedy = "allow more memory (ulimit -v), or end other programs"
    elif code in (errno.EMFILE, errno.ENFILE) or os.strerror(errno.EMFILE) in str(error):
        problem = "there are too many open files"
        remedy = "allow more open files (ulimit -n), or end other programs"
    elif isinstance(error, OverflowError) and not _has_clock():
        problem = "the clock of this machine is beyond the year 2262"
        remedy = "set the clock: times of files cannot be compared with it"
    else:
        return None
    hints = (remedy, "run the same command again")
    return KitcacheError("", problem, effect=NOTHING_MORE, hints=hints)


def _has_clock() -> bool:
    """Return True if Python can read the clock: it counts nanoseconds in 64 bits."""
    try:
        time.time_ns()
    except OverflowError:
        return False
    return True


def _print_bug(error: Exception, *, wants_json: bool) -> None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code if trace else None
    place = f" ({os.path.basename(code.co_filename)}, {code.co_name})" if code else ""
    bug = _shortage_of(error) or KitcacheError(
        "",
        f"this is a bug in kitcache: {type(error).__name__}: {error}{place}",
        effect=NOTHING_MORE,
        hints=("report it with the command that you ran",),
    )
    print_stderr(f"kitcache: {bug}")
    if wants_json:
        with suppress(Exception):  # Memory or files may run out again.
            print_stdout(import_module("kitcache.cli.jsonout").encode_error(bug))
