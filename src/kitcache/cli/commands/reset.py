"""kitcache reset: delete every blob that no entry of index.json reaches."""

import argparse

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.text import missing_warnings, report_lines, report_notes
from kitcache.errors import Incomplete
from kitcache.gc.reset import reset
from kitcache.options.sweep import SweepOptions

_DESCRIPTION = """\
Deletes every blob that no entry of index.json reaches, and unfinished uploads.
What a tag reaches is never touched. Waits for exporters that hold
kitcache.lock. Changes nothing while another export runs (exit 11), or if a tag
cannot be read (exit 12)."""

_EPILOG = """\
examples:
  kitcache reset ./cache                 after a build, in CI
  kitcache reset --min-age 1h ./cache    from cron, beside builds without a lock
  kitcache reset --dry-run --json a b    what would go, for machines"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_dirs(parser)
    options.add_ages(parser)
    options.add_dry_run(parser)
    options.add_lock_timeout(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Reset each DIR on its own; the worst exit code counts."""
    session = Console(wants_json=args.json, is_quiet=args.quiet)
    policy = SweepOptions(args.min_age, args.ingest_age)
    return max(session.each(args.dirs, lambda path: _reset(session, args, path, policy)))


def _reset(session: Console, args: argparse.Namespace, path: str, options: SweepOptions) -> int:
    report = reset(
        path,
        options=options,
        dry_run=args.dry_run,
        lock_timeout_s=args.lock_timeout / 10**9,
        on_progress=session.on_progress,
        cancel=args.cancel,
    )
    session.print_result(report, report_lines(report))
    session.print_note(report_notes(report))
    session.warn(missing_warnings(path, report.missing_blobs))
    if report.not_deleted_count and not args.json:
        session.print_error(
            Incomplete(
                path, not_deleted=report.not_deleted, not_deleted_count=report.not_deleted_count
            )
        )
    return report.exit_code
