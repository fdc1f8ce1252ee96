"""kitcache trim: make a tag smaller."""

import argparse
import time
from collections.abc import Iterator

from kitcache.cli import options
from kitcache.cli.cachetext import trim_line
from kitcache.cli.console import Console
from kitcache.cli.tables import SHORT_DIGEST, format_since, table
from kitcache.cli.text import reset_lines
from kitcache.errors import printable
from kitcache.options.units import format_bytes, parse_bytes
from kitcache.store.open import StoreAddress
from kitcache.upkeep.results import TrimResult
from kitcache.upkeep.trimming.trim import trim

_MAX_SHOWN = 20


def _parse_size(text: str) -> int:
    if text.strip().endswith("%"):
        raise ValueError(
            f"{text[:40]!r} is a part of the disk, which only prune takes; for example, use 5GB"
        )
    return parse_bytes(text)


COMMAND = options.Command(
    description="""\
Removes the least recently used steps of a build cache from a tag, until all
blobs that the tag reaches fit the limit, then sweeps as reset does. The last
use of a step is its last read by an import of kitcache build; without a record,
the time when it was created. A step is removed before the steps it was built
from, so the kept steps hit as before, and the removed steps run again. The tag
moves to its new manifest in one step, under the locks. Other tags and their
blobs are not changed. If the tag fits already, nothing is changed, but
--dry-run shows its steps. If its last step alone is larger, nothing is changed
(exit code 14).""",
    epilog="""\
examples:
  kitcache trim ./cache main --max-used-space 5GB --dry-run
      which steps would be removed, and how much does each free?
  kitcache trim ./cache main --max-used-space 5GB
  kitcache prune ./cache --max-used-space 20GB --trim
      all tags together: remove some, and trim the kept tags""",
    arguments=(
        options.DIR,
        options.argument(
            "tag", "TAG", "the tag of a build cache, as ls shows it", completes="tags"
        ),
        options.argument(
            "--max-used-space",
            "SIZE",
            "the most that TAG may hold: 5GB (10^9 bytes each), 5GiB (2^30); not a part of the"
            " disk such as 10%, which only prune takes",
            type=options.converter(_parse_size),
            required=True,
        ),
        options.EXPORT_TIME,
        options.YES,
        *options.CHANGES,
    ),
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Trim the tag of one DIR."""

    def trim_tag(address: StoreAddress) -> int:
        result = trim(
            address,
            args.tag,
            args.max_used_space,
            options=options.sweep_options(args),
            dry_run=args.dry_run,
            lock_timeout_s=args.lock_timeout_s,
            on_progress=console.on_progress,
            cancel=args.cancel,
        )
        lines = trim_lines(result, time.time_ns(), with_steps=args.dry_run)
        console.print_result(result, lines)
        if result.reset is not None:
            console.print_reset(result.reset)
        return result.exit_code

    return console.each([args.dir], trim_tag)


def trim_lines(result: TrimResult, now_ns: int, *, with_steps: bool = True) -> Iterator[str]:
    """Yield the old and the new size, a table of the steps, and the result of the sweep.

    Args:
        with_steps: Show the steps also if the tag is unchanged.
    """
    yield trim_line(result)
    if result.outcome == "unchanged" and not with_steps:
        return
    steps = [(step, "remove") for step in result.removed_steps]
    steps += [(step, "keep") for step in result.kept_steps]
    rows = [
        (
            printable(step.cache_key[:SHORT_DIGEST]),
            format_since(step.created_ns, now_ns),
            format_since(step.last_read_ns, now_ns),
            format_bytes(step.bytes),
            format_bytes(step.unique_bytes),
            decision,
        )
        for step, decision in steps[:_MAX_SHOWN]
    ]
    yield from table(("STEP", "CREATED", "LAST READ", "SIZE", "UNIQUE", ""), rows, (1, 2, 3, 4))
    if len(steps) > _MAX_SHOWN:
        yield f"and {len(steps) - _MAX_SHOWN:,} more; --json has all"
    if not any(step.last_read_ns for step, _ in steps):
        yield "no import is recorded: the oldest step that no other step needs is removed first"
    if result.reset is not None:
        yield from reset_lines(result.reset)
