"""kitcache why: which tags keep a blob."""

import argparse
import time

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.tables import damage_warnings, why_lines
from kitcache.gc.why import why

_DESCRIPTION = """\
Shows each path from a tag to a blob, or that it is garbage, and when it was
written. Takes no lock and changes nothing."""

_EPILOG = """\
examples:
  kitcache why ./cache sha256:9c1e6f…   a digest, or the beginning of one
  kitcache why ./cache 9c1e             at least four digits
  kitcache why ./cache ./cache/blobs/sha256/9c1e6f…"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_dir(parser)
    blob = parser.add_argument("blob", metavar="DIGEST|PREFIX|PATH", help="the blob to explain")
    options.complete_with(blob, options.FILES)
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Explain one blob."""
    session = Console(wants_json=args.json, is_quiet=args.quiet, only_reads=True)
    return max(session.each([args.dir], lambda path: _why(session, args, path)))


def _why(session: Console, args: argparse.Namespace, path: str) -> int:
    answer = why(path, args.blob, cancel=args.cancel)
    session.print_result(answer, why_lines(answer, time.time_ns()))
    session.warn(damage_warnings(path, answer.damage))
    return 0
