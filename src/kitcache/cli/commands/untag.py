"""kitcache untag: remove entries from index.json."""

import argparse
from collections.abc import Iterator

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.text import NO_BLOB_DELETED, UNTAGGED
from kitcache.errors import printable
from kitcache.store.open import StoreAddress
from kitcache.upkeep.naming.untag import untag
from kitcache.upkeep.results import UntagResult

COMMAND = options.Command(
    description="""\
Removes every entry with that tag, or that full digest, from index.json: in one
step, under the locks. Deletes no blob; the next reset does. Works for a damaged
tag too. A name with *, ? or [ that is not the tag of an entry is a pattern, and
all tags that it matches are removed: quote it. If one of the names does not
exist, or one of the patterns matches no tag, nothing is changed.""",
    epilog="""\
examples:
  kitcache untag ./cache feature-x       remove a tag, then reset
  kitcache untag ./cache 'pr-*' --dry-run
      which tags would be removed?
  kitcache untag ./cache sha256:9c1e6f…  an entry by its full digest""",
    arguments=(
        options.DIR,
        options.argument(
            "names", "TAG|GLOB|DIGEST", "the entries to remove", nargs="+", completes="tags"
        ),
        *options.CHANGES,
    ),
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Remove entries from the index of one DIR."""

    def remove(address: StoreAddress) -> int:
        result = untag(
            address,
            args.names,
            dry_run=args.dry_run,
            lock_timeout_s=args.lock_timeout_s,
            on_progress=console.on_progress,
            cancel=args.cancel,
        )
        console.print_result(result, untag_lines(result))
        return 0

    return console.each([args.dir], remove)


def untag_lines(result: UntagResult) -> Iterator[str]:
    """Yield one line per entry that was removed."""
    verb = "would untag" if result.outcome == "dry-run" else "untagged"
    for ref_name, digest in result.entries:
        yield printable(f"{result.path}: {verb} {ref_name or UNTAGGED}, {digest or 'no digest'}")
    if result.outcome == "done":
        yield printable(f"{result.path}: {NO_BLOB_DELETED}")
