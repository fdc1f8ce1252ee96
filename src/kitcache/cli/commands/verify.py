"""kitcache verify: rehash every blob, judge every tag; with --repair mend what is broken."""

import argparse

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.verifytext import (
    nameless_warnings,
    repaired_lines,
    verified_lines,
    verified_warnings,
)
from kitcache.errors import UsageError
from kitcache.upkeep.health.verify import verify

_DESCRIPTION = """\
Hashes every blob, on all cores, and walks every tag the way BuildKit would
import it: its size caps, media types, cacheconfig and layers. Says of each
tag: imports fully, imports with misses (and which steps), or does not import
(and why). Exit code 12 if anything is wrong. Changes nothing.

With --repair it then changes as little as possible, so that every tag imports
or is gone: it moves bad blobs to DIR/.kitcache/quarantine (du counts it), cuts
the steps that need them, and drops a tag only if nothing of it can be saved. A
tag that imports fully is not touched."""

_EPILOG = """\
examples:
  kitcache verify ./cache                     after a crash, a full disk, a copy
  kitcache verify --repair --dry-run ./cache  what would a repair do?
  kitcache verify --repair --from ../copy ./cache
                                              take lost blobs from another copy"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_dirs(parser)
    parser.add_argument("--repair", action="store_true", help="repair what is found")
    source = parser.add_argument(
        "--from",
        metavar="OTHER",
        action="append",
        default=[],
        dest="sources",
        help="with --repair: another copy of the cache to take lost blobs from; can be given again",
    )
    options.complete_with(source, options.DIRECTORIES)
    options.add_dry_run(parser, "with --repair: say what it would do, change nothing, take no lock")
    options.add_lock_timeout(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Verify, or repair, each DIR; the worst exit code counts."""
    session = Console(wants_json=args.json, is_quiet=args.quiet, only_reads=not args.repair)
    if not args.repair and (args.sources or args.dry_run):
        option = "--from" if args.sources else "--dry-run"
        error = UsageError(
            f"{option} goes with --repair: without it nothing is changed",
            hints=("kitcache verify --help",),
        )
        session.print_error(error)
        return error.exit_code
    work = _repair if args.repair else _verify
    return max(session.each(args.dirs, lambda path: work(session, args, path)))


def _verify(session: Console, args: argparse.Namespace, path: str) -> int:
    found = verify(
        path,
        lock_timeout_s=args.lock_timeout / 10**9,
        on_progress=session.on_progress,
        cancel=args.cancel,
    )
    session.print_result(found, verified_lines(found))
    session.warn(verified_warnings(found))
    return found.exit_code


def _repair(session: Console, args: argparse.Namespace, path: str) -> int:
    from kitcache.upkeep.health.repair import repair  # noqa: PLC0415 - to look costs less than to mend

    repaired = repair(
        path,
        sources=tuple(args.sources),
        dry_run=args.dry_run,
        lock_timeout_s=args.lock_timeout / 10**9,
        on_progress=session.on_progress,
        cancel=args.cancel,
    )
    session.print_result(repaired, repaired_lines(repaired))
    if args.quiet and repaired.actions:
        # What a tag has lost is nothing to be silent about.
        session.warn(repaired_lines(repaired))
    session.warn(nameless_warnings(repaired))
    if repaired.outcome == "done":
        session.warn(verified_warnings(repaired.verification, was_repaired=True))
    return repaired.exit_code
