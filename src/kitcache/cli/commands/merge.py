"""kitcache merge: several caches into one."""

import argparse

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.tagtext import merged_lines
from kitcache.upkeep.naming.merge import merge

_DESCRIPTION = """\
Adds all tags of the caches SRC to the cache DST, which is made if it is not
there. Blobs become hard links if both caches are on one file system, else
copies whose digest is checked. Then all tags are added in one step. The sources
stay as they are. If a source is damaged, no tag is changed.

If two of the caches have one tag with different digests, nothing is changed
either, unless --rename gives them different names, or --replace lets a tag of
DST move."""

_EPILOG = """\
examples:
  kitcache merge ./a ./b ./all                          a's tags and b's tags
  kitcache merge --rename '{dir}-{tag}' ./a ./b ./all   a-main, b-main, …
  kitcache merge --rename 'main={dir}' ./a ./b ./all    main becomes a, and b
  kitcache merge --dry-run --replace ./new ./all        what would move?"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    sources = parser.add_argument(
        "sources", metavar="SRC", nargs="+", help="the caches to merge from"
    )
    target = parser.add_argument("target", metavar="DST", help="the cache to merge into")
    for argument in (sources, target):
        options.complete_with(argument, options.DIRECTORIES)
    parser.add_argument(
        "--rename",
        metavar="[GLOB=]NAME",
        action="append",
        default=[],
        help="call the tags that GLOB matches (without it: all) NAME in DST; in NAME {tag} stands"
        " for the tag, {dir} for the name of SRC; can be given again: the first GLOB that matches"
        " counts",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="let a tag of DST move if a source has another digest by that name",
    )
    options.add_dry_run(parser)
    options.add_lock_timeout(parser)
    options.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Merge into one DST."""
    session = Console(wants_json=args.json, is_quiet=args.quiet)
    return max(session.each([args.target], lambda path: _merge(session, args, path)))


def _merge(session: Console, args: argparse.Namespace, path: str) -> int:
    merged = merge(
        args.sources,
        path,
        rename=args.rename,
        replace=args.replace,
        dry_run=args.dry_run,
        lock_timeout_s=args.lock_timeout / 10**9,
        on_progress=session.on_progress,
        cancel=args.cancel,
    )
    session.print_result(merged, merged_lines(merged))
    session.warn(merged.warnings)
    return 0
