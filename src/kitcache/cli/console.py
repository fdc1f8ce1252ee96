"""The output of one command line: results on stdout, all other text on stderr."""

import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from kitcache.cli.terminal import (
    WIDTH,
    StdoutError,
    columns_of,
    is_terminal,
    print_stderr,
    print_stdout,
)
from kitcache.cli.text import (
    missing_warnings,
    progress_line,
    request_notes,
    reset_notes,
    shorten,
    waiting_line,
    width_of,
)
from kitcache.errors import (
    NOTHING_CHANGED,
    NOTHING_DELETED,
    NOTHING_MORE,
    Cancelled,
    Incomplete,
    KitcacheError,
    NotConfirmed,
    UsageError,
    printable,
)
from kitcache.gc.values import Progress, ResetResult
from kitcache.masking import hide_password
from kitcache.store.ioerrors import io_error
from kitcache.store.open import StoreAddress, address_text, find_object_cache
from kitcache.store.values import StoreReport, Waiting

_FIRST_DRAW_S = 1.0
_REDRAW_S = 0.1
_WITH_YES = "check the numbers, then run the same command with --yes"


class Console:
    """Prints the result, the progress and the errors of one command.

    Attributes:
        effect: The effect of a UsageError. "" if the command only reads: then errors do not state
            that nothing was changed.
    """

    def __init__(
        self, *, wants_json: bool = False, is_quiet: bool = False, effect: str = NOTHING_CHANGED
    ) -> None:
        self.effect = effect
        self._wants_json = wants_json
        self._is_quiet = is_quiet
        self._path = ""
        self._warned: set[str] = set()
        self._draws = not is_quiet and is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
        self._next_draw_s = 0.0
        self._drawn_columns = 0

    def each(self, addresses: Iterable[str], work: Callable[[StoreAddress], int]) -> int:
        """Do the work for each cache, and return the highest exit code.

        A KitcacheError is printed, and the work continues with the next cache. Ctrl-C ends it.
        """
        code = 0
        for address in addresses:
            self._path = ""
            self._next_draw_s = time.monotonic() + _FIRST_DRAW_S
            try:
                resolved = self.resolve(address)
                self._path = address_text(resolved)
                code = max(code, work(resolved))
            except Cancelled as error:
                self.print_error(error)
                return error.exit_code
            except KitcacheError as error:
                if isinstance(error, UsageError):
                    error.effect = error.effect or self.effect
                self.print_error(error)
                code = max(code, error.exit_code)
            except StdoutError:
                raise
            except OSError as error:
                failure = io_error(self._path, "failed", error, effect=NOTHING_MORE)
                self.print_error(failure)
                code = max(code, failure.exit_code)
            finally:
                self._erase()
        return code

    def resolve(self, address: str) -> StoreAddress:
        """Return a path as it is, and the address of an object store parsed.

        Warnings about the address go to stderr, with --json too: few results have a field for them.
        """
        cache = find_object_cache(address)
        if cache is None:
            return address
        from kitcache.cli.objects import secret_warnings  # noqa: PLC0415 - only for object stores

        warnings = (*cache.warnings, *secret_warnings(cache))
        for line in self._new_warnings(cache.address, warnings):
            print_stderr(f"kitcache: {printable(hide_password(line))}")
        return cache

    def print_result(self, value: object, lines: Iterable[str]) -> None:
        """Print a result to stdout: one JSON object, or lines of text."""
        self._erase()
        if self._wants_json:
            from kitcache.cli.jsonout import encode_value  # noqa: PLC0415 - text output starts faster

            print_stdout(encode_value(value))
        elif not self._is_quiet:
            print_stdout("\n".join(lines))

    def print_note(self, lines: Iterable[str]) -> None:
        """Print remarks to stderr; --quiet and --json suppress them."""
        if not self._is_quiet:
            self.print_warning(lines)

    def print_warning(self, lines: Iterable[str]) -> None:
        """Print warnings to stderr, escaped. With --json they are in the object instead."""
        if not self._wants_json:
            for line in lines:
                print_stderr(f"kitcache: {printable(hide_password(line))}")

    def print_reset(self, result: ResetResult) -> None:
        """Print the files that a reset kept or could not delete, and the blobs that tags lack."""
        self.print_note(reset_notes(result))
        self.print_report(result.path, StoreReport(result.requests, result.warnings))
        self.print_warning(missing_warnings(result.path, result.missing_blobs))
        if result.needs_confirmation and not self._wants_json:
            self.print_error(NotConfirmed(result.path, result.reason, hints=(_WITH_YES,)))
        if result.not_deleted_count and not self._wants_json:
            self.print_error(
                Incomplete(
                    result.path,
                    not_deleted=result.not_deleted,
                    not_deleted_count=result.not_deleted_count,
                    deleted_count=result.deleted.blobs + result.ingests_deleted.blobs,
                )
            )

    def print_report(self, path: str, report: StoreReport) -> None:
        """Print the number of requests to an object store, and its warnings."""
        self.print_note(request_notes(path, report.requests))
        self.print_warning(self._new_warnings(path, report.warnings))

    def _new_warnings(self, path: str, warnings: Iterable[str]) -> list[str]:
        """Return the warnings about a cache that were not printed before."""
        lines = dict.fromkeys(f"{path}: {warning}" for warning in warnings)
        new = [line for line in lines if line not in self._warned]
        self._warned.update(new)
        return new

    def print_error(self, error: KitcacheError) -> None:
        """Print an error with hints: to stderr, or as JSON to stdout."""
        self._erase()
        if not self.effect and error.effect in (NOTHING_CHANGED, NOTHING_DELETED):
            error.effect = ""
        from kitcache.cli.hints import make_hints  # noqa: PLC0415 - most commands do not fail

        error.hints = make_hints(error)
        if self._wants_json:
            from kitcache.cli.jsonout import encode_error  # noqa: PLC0415 - text output starts faster

            print_stdout(encode_error(error))
        else:
            print_stderr(f"kitcache: {error}")

    def on_progress(self, event: Progress | Waiting) -> None:
        """Print the awaited lock or upload; draw the progress on a terminal after one second."""
        if isinstance(event, Waiting):
            if not self._is_quiet:
                self._erase()
                print_stderr(f"kitcache: {waiting_line(event)}")
        elif self._draws and time.monotonic() >= self._next_draw_s:
            self._next_draw_s = time.monotonic() + _REDRAW_S
            # Keep one column free: a full line wraps, and each redraw would leave a line on screen.
            columns = (columns_of(sys.stderr) or WIDTH) - 1
            self._draw(shorten(printable(progress_line(self._path, event)), columns))

    def _draw(self, line: str) -> None:
        width = width_of(line)
        _write("\r" + line + " " * (self._drawn_columns - width))
        self._drawn_columns = width

    def _erase(self) -> None:
        if self._drawn_columns:
            _write("\r" + " " * self._drawn_columns + "\r")
            self._drawn_columns = 0


def _write(text: str) -> None:
    with suppress(OSError):  # If the terminal was closed, the work continues.
        sys.stderr.write(text)
        sys.stderr.flush()
