"""What people read of a trim: from how much to how much, a table of the steps, what was swept."""

from collections.abc import Iterator

from kitcache.cli.tables import table, tag_name
from kitcache.cli.text import count, report_lines
from kitcache.errors import printable
from kitcache.options.units import format_age, format_bytes
from kitcache.upkeep.results import CachedStep, TrimResult

_SHOWN = 20
_SHORT = len("sha256:") + 12


def trimmed_lines(trimmed: TrimResult, now_ns: int, *, with_steps: bool = True) -> Iterator[str]:
    """The tag, its steps, coldest first, and what the sweep did.

    with_steps: show the steps of a tag that fits, too.
    """
    yield headline(trimmed)
    if trimmed.outcome == "unchanged" and not with_steps:
        return
    yield from _step_lines(trimmed, now_ns)
    if trimmed.reset is not None:
        yield from report_lines(trimmed.reset)


def headline(trimmed: TrimResult) -> str:
    """From how much to how much, in one line."""
    name = f"{trimmed.path}: {tag_name(trimmed.ref_name, trimmed.before)}"
    before, after = (format_bytes(t.bytes) for t in (trimmed.before_size, trimmed.after_size))
    if trimmed.outcome == "unchanged":
        allowed = format_bytes(trimmed.limit_bytes)
        return printable(f"{name} holds {before} of at most {allowed}: nothing was changed")
    verb = "would shrink" if trimmed.outcome == "dry-run" else "shrank"
    dropped = count(len(trimmed.removed_steps), "step")
    return printable(f"{name} {verb} from {before} to {after}: {dropped} of {_all(trimmed)} cut")


def _all(trimmed: TrimResult) -> str:
    return f"{len(trimmed.removed_steps) + len(trimmed.kept_steps):,}"


def _step_lines(trimmed: TrimResult, now_ns: int) -> Iterator[str]:
    steps = [(step, "drop") for step in trimmed.removed_steps] + [
        (s, "keep") for s in trimmed.kept_steps
    ]
    rows = [(*_cells(step, now_ns), verdict) for step, verdict in steps[:_SHOWN]]
    yield from table(("STEP", "MADE", "LAST READ", "ALONE", ""), rows, right=(1, 2, 3))
    if len(steps) > _SHOWN:
        yield f"and {len(steps) - _SHOWN:,} more; --json has all"
    if not any(step.last_read_ns for step, _ in steps):
        yield "no import is noted; of steps that nothing came from, the oldest go first"


def _cells(step: CachedStep, now_ns: int) -> tuple[str, ...]:
    return (
        printable(step.cache_key[:_SHORT]),
        _age(step.created_ns, now_ns),
        _age(step.last_read_ns, now_ns),
        format_bytes(step.bytes),
    )


def _age(at_ns: int | None, now_ns: int) -> str:
    return "-" if at_ns is None else format_age(now_ns - at_ns)
