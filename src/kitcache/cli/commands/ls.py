"""kitcache ls: the tags of a cache."""

import argparse
import time

from kitcache.cli import options
from kitcache.cli.session import Session
from kitcache.cli.tables import damage_warnings, listing_lines
from kitcache.gc.tags import ls

_DESCRIPTION = """\
Lists the entries of index.json: tag, kind (cache, image, artifact), age, size
of all that it reaches, number of layers, missing blobs, platforms. The age is
that of the newest cached result; marked ~ it is the time at which the manifest
was written here. Entries without a tag show their digest. Takes no lock and
changes nothing."""

_EPILOG = """\
examples:
  kitcache ls ./cache           which tags, of what age and size?
  kitcache ls --json ./cache    with whole digests, for machines"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_dir(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """List one DIR."""
    session = Session(wants_json=args.json, is_quiet=args.quiet)
    return max(session.each([args.dir], lambda path: _ls(session, args, path)))


def _ls(session: Session, args: argparse.Namespace, path: str) -> int:
    listing = ls(path, cancel=args.cancel)
    session.answer(listing, listing_lines(listing, time.time_ns()))
    session.warn(damage_warnings(path, listing.damage))
    return listing.exit_code
