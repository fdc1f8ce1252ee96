"""kitcache tag: a further name for what a tag or a digest names."""

import argparse

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.tagtext import tagged_lines
from kitcache.upkeep.naming.tag import tag

_DESCRIPTION = """\
Makes the tag NEW name what OLD names, as `docker tag` does: in one step, under
the locks, and without a copy. OLD stays. If NEW is there already, it moves, and
its old digest is printed. If OLD is damaged or lacks a blob, nothing is
changed."""

_EPILOG = """\
examples:
  kitcache tag ./cache main release-1.4          keep what main is today
  kitcache tag ./cache sha256:9c1e6f… rescued    name an entry without a tag
  kitcache tag ./cache pr-7 main && kitcache untag ./cache pr-7       rename"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_dir(parser)
    source = parser.add_argument(
        "source", metavar="SOURCE", help="a tag, or the whole digest of an entry"
    )
    target = parser.add_argument("target", metavar="TARGET", help="the further name")
    for argument in (source, target):
        options.complete_with(argument, options.TAGS)
    options.add_dry_run(parser)
    options.add_lock_timeout(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Name an entry of one DIR."""
    session = Console(wants_json=args.json, is_quiet=args.quiet)
    return max(session.each([args.dir], lambda path: _tag(session, args, path)))


def _tag(session: Console, args: argparse.Namespace, path: str) -> int:
    tagged = tag(
        path,
        args.source,
        args.target,
        dry_run=args.dry_run,
        lock_timeout_s=args.lock_timeout / 10**9,
        on_progress=session.on_progress,
        cancel=args.cancel,
    )
    session.print_result(tagged, tagged_lines(tagged))
    return 0
