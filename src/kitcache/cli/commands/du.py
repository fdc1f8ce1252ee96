"""kitcache du: where a cache's bytes are."""

import argparse

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.tables import damage_warnings, usage_lines
from kitcache.cli.text import missing_warnings
from kitcache.gc.du import du

_DESCRIPTION = """\
Shows what is live (reached by a tag), reclaimable (a reset would delete it), in
ingest/ (unfinished uploads), foreign (not a blob), and in the quarantine of a
repair; and for each tag what only it reaches, and what other tags reach too.
Sizes are file sizes. Takes no lock and changes nothing."""

_EPILOG = """\
examples:
  kitcache du ./cache                        how much of it is garbage?
  kitcache du --json /var/cache/buildkit/*   one object a cache, for machines"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_dirs(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Weigh each DIR; the worst exit code counts."""
    session = Console(wants_json=args.json, is_quiet=args.quiet, only_reads=True)
    return max(session.each(args.dirs, lambda path: _du(session, args, path)))


def _du(session: Console, args: argparse.Namespace, path: str) -> int:
    usage = du(path, on_progress=session.on_progress, cancel=args.cancel)
    session.print_result(usage, usage_lines(usage))
    session.warn(missing_warnings(path, usage.missing_blobs))
    session.warn(damage_warnings(path, usage.damage))
    return usage.exit_code
