"""kitcache untag: take entries out of index.json."""

import argparse

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.tagtext import untagged_lines
from kitcache.upkeep.naming.untag import untag

_DESCRIPTION = """\
Takes every entry with that ref name, or that whole digest, out of index.json:
in one step, under the locks. Removes no blob; the next reset does. Works for a
damaged tag too. A name with *, ? or [ that no entry has is a pattern, and all
tags that it matches are taken out: quote it. If one of the names is not there,
or one of the patterns matches no tag, nothing is changed."""

_EPILOG = """\
examples:
  kitcache untag ./cache feature-x       drop a tag, then reset
  kitcache untag ./cache 'pr-*' --dry-run
      which tags would go?
  kitcache untag ./cache sha256:9c1e6f…  an entry by its whole digest"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_dir(parser)
    names = parser.add_argument(
        "names", metavar="TAG|GLOB|DIGEST", nargs="+", help="what to take out"
    )
    options.complete_with(names, options.TAGS)
    options.add_dry_run(parser)
    options.add_lock_timeout(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Take the entries out of one DIR's index."""
    session = Console(wants_json=args.json, is_quiet=args.quiet)
    return max(session.each([args.dir], lambda path: _untag(session, args, path)))


def _untag(session: Console, args: argparse.Namespace, path: str) -> int:
    untagged = untag(
        path,
        args.names,
        dry_run=args.dry_run,
        lock_timeout_s=args.lock_timeout / 10**9,
        on_progress=session.on_progress,
        cancel=args.cancel,
    )
    session.print_result(untagged, untagged_lines(untagged))
    return 0
