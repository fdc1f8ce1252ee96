"""kitcache trim: make a tag smaller."""

import argparse
import time

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.text import missing_warnings, report_notes
from kitcache.cli.trimtext import trimmed_lines
from kitcache.errors import Incomplete
from kitcache.upkeep.trimming.trim import trim

_DESCRIPTION = """\
Cuts the coldest steps of a build cache out of a tag, until all that the tag
reaches fits the limit, then sweeps as reset does. The coldest step is the one
whose last use was the longest ago: a read by an import of kitcache build, or
else when it was made. A step is cut before the steps that it was made from, so
the kept steps hit as before, and the others run again. The tag moves to its new
manifest in one step, under the locks. Other tags, and what they reach, stay.
If the tag fits already, nothing is changed; --dry-run shows its steps all the
same. If its last step alone is larger, nothing is changed (exit 14)."""

_EPILOG = """\
examples:
  kitcache trim ./cache main --max-used-space 5GB --dry-run
      which steps would go, and what does each hold alone?
  kitcache trim ./cache main --max-used-space 5GB
  kitcache prune ./cache --max-used-space 20GB --trim
      all tags together: drop some, and trim what stays"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_dir(parser)
    tag = parser.add_argument("tag", metavar="TAG", help="the tag of a build cache, as ls shows it")
    options.complete_with(tag, options.TAGS)
    parser.add_argument(
        "--max-used-space",
        metavar="SIZE",
        type=_size,
        required=True,
        help="the most that TAG may hold: 5GB (10^9 bytes each), 5GiB (2^30); not a part of the"
        " disk such as 10%%, which only prune takes",
    )
    options.add_dry_run(parser)
    options.add_lock_timeout(parser)
    options.add_output(parser)


def _size(text: str) -> int:
    if text.strip().endswith("%"):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is a part of the disk, which prune alone takes; say 5GB, for one"
        )
    return options.size(text)


def run(args: argparse.Namespace) -> int:
    """Trim the tag of one DIR."""
    session = Console(wants_json=args.json, is_quiet=args.quiet)
    return max(session.each([args.dir], lambda path: _trim(session, args, path)))


def _trim(session: Console, args: argparse.Namespace, path: str) -> int:
    trimmed = trim(
        path,
        args.tag,
        args.max_used_space,
        dry_run=args.dry_run,
        lock_timeout_s=args.lock_timeout / 10**9,
        on_progress=session.on_progress,
        cancel=args.cancel,
    )
    lines = trimmed_lines(trimmed, time.time_ns(), with_steps=args.dry_run)
    session.print_result(trimmed, lines)
    report = trimmed.reset
    if report is not None:
        session.print_note(report_notes(report))
        session.warn(missing_warnings(path, report.missing_blobs))
        if report.not_deleted_count and not args.json:
            session.print_error(
                Incomplete(
                    path, not_deleted=report.not_deleted, not_deleted_count=report.not_deleted_count
                )
            )
    return trimmed.exit_code
