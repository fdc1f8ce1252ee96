"""The lines of a failed build and of its warnings, as buildx prints them.

Source: BuildKit, solver/errdefs/source.go; buildx, commands/build.go.
"""

from collections.abc import Iterator, Sequence

from kitcache.buildkit.solveerror import source_lines
from kitcache.buildkit.status import BuildWarning
from kitcache.cli.hints import make_hints
from kitcache.cli.steptext import clean, clean_log
from kitcache.cli.text import count
from kitcache.errors import BuildFailed

LOG_LINES = 20
_RULE = "------"


def failure_lines(
    error: BuildFailed, *, colour: bool, log_lines: int | None = LOG_LINES
) -> Iterator[str]:
    """Yield the failed step with the end of its log, the lines of the Dockerfile, and the message.

    Args:
        log_lines: The most lines of the log; None for all known ones.
    """
    if error.step:
        yield _RULE
        yield f" > {clean(error.step)}:"
        skipped = 0 if log_lines is None else max(0, len(error.log) - log_lines)
        for line in error.log[skipped:]:
            yield clean_log(line, colour=colour)
        yield _RULE
    for source in error.locations:
        for line in source_lines(source):
            yield clean_log(line, colour=False)
    first, *more = error.headline.split("\n")
    yield f"kitcache: {clean(first)}"
    for line in more:
        yield f"  {clean(line)}"
    for hint in make_hints(error):
        yield f"  hint: {clean(hint)}"


def warning_lines(warnings: Sequence[BuildWarning]) -> Iterator[str]:
    """Yield the warnings, each with its line in the Dockerfile."""
    if warnings:
        yield f"{count(len(warnings), 'warning')} found:"
    for warning in warnings:
        place = f" (line {warning.ranges[0].start_line})" if warning.ranges else ""
        yield f" - {clean(warning.short)}{place}"
