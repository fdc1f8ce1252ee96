"""kitcache ls: the tags of a cache."""

import argparse
import os
import time

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.tables import damage_warnings, listing_lines
from kitcache.errors import NotFound
from kitcache.gc.ls import ls

_DESCRIPTION = """\
Without TAG: lists the entries of index.json: tag, kind (cache, image,
artifact), age, last use, size of all that it reaches, number of layers, missing
blobs, platforms. The age is that of the newest cached result; marked ~ it is
the time since the manifest was written here. LAST USED is what prune goes by:
the last export or import by kitcache build or exec, or, marked ~, the age.
Entries without a tag show their digest. Takes no lock and changes nothing.

With TAG: lists the blobs that this tag reaches, largest first. UNIQUE is what
would be free without the tag: 0 B if another tag needs the blob too. A layer of
a build cache shows its step by the cache key (BuildKit records no names) and
when the step was made and last read; a layer of an image shows its command."""

_EPILOG = """\
examples:
  kitcache ls ./cache           which tags, of what age and size?
  kitcache ls ./cache main      which layers and steps of main are large?
  kitcache ls --json ./cache    with whole digests, for machines"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    options.add_dir(parser)
    tag = parser.add_argument(
        "tag", metavar="TAG", nargs="?", help="a tag, or the whole digest of an entry"
    )
    options.complete_with(tag, options.TAGS)
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """List one DIR."""
    session = Console(wants_json=args.json, is_quiet=args.quiet, only_reads=True)
    work = _ls if args.tag is None else _ls_tag
    return max(session.each([args.dir], lambda path: work(session, args, path)))


def _ls(session: Console, args: argparse.Namespace, path: str) -> int:
    listing = ls(path, cancel=args.cancel)
    session.print_result(listing, listing_lines(listing, time.time_ns()))
    session.warn(damage_warnings(path, listing.damage))
    return listing.exit_code


def _ls_tag(session: Console, args: argparse.Namespace, path: str) -> int:
    from kitcache.cli.contentstext import contents_lines  # noqa: PLC0415 - reads cacheconfigs
    from kitcache.upkeep.contents import ls_tag  # noqa: PLC0415

    try:
        contents = ls_tag(path, args.tag, cancel=args.cancel)
    except NotFound as error:
        if os.path.isdir(args.tag):
            error.hints = ("ls takes one DIR; kitcache du takes several",)
        raise
    session.print_result(contents, contents_lines(contents, time.time_ns()))
    session.warn(damage_warnings(path, contents.damage))
    return contents.exit_code
