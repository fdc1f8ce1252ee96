"""kitcache tag: add a tag to the entry that a tag or a digest names."""

import argparse
from collections.abc import Iterator

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.text import NO_BLOB_DELETED
from kitcache.errors import printable
from kitcache.store.open import StoreAddress
from kitcache.upkeep.naming.tag import tag
from kitcache.upkeep.results import TagResult

COMMAND = options.Command(
    description="""\
Makes the tag TARGET name the digest of SOURCE, as `docker tag` does: in one
step, under the locks, and without a copy. SOURCE is not changed. If TARGET
exists, it moves, and its previous digest is printed. If SOURCE is damaged or
lacks a blob, nothing is changed.""",
    epilog="""\
examples:
  kitcache tag ./cache main release-1.4          a second tag for main
  kitcache tag ./cache sha256:9c1e6f… rescued    name an entry without a tag
  kitcache tag ./cache pr-7 main && kitcache untag ./cache pr-7       rename""",
    arguments=(
        options.DIR,
        options.argument(
            "source", "SOURCE", "a tag, or the full digest of an entry", completes="tags"
        ),
        options.argument("target", "TARGET", "the tag to add", completes="tags"),
        *options.CHANGES,
    ),
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Add a tag in one DIR."""

    def add(address: StoreAddress) -> int:
        result = tag(
            address,
            args.source,
            args.target,
            dry_run=args.dry_run,
            lock_timeout_s=args.lock_timeout_s,
            on_progress=console.on_progress,
            cancel=args.cancel,
        )
        console.print_result(result, tag_lines(result))
        return 0

    return console.each([args.dir], add)


def tag_lines(result: TagResult) -> Iterator[str]:
    """Yield the digest that a tag names now, and the digests that it named before."""
    path, target, digest = result.path, result.target, result.digest
    if result.outcome == "unchanged":
        yield printable(f"{path}: {target} is {digest} already: nothing to change")
        return
    is_dry = result.outcome == "dry-run"
    origin = "" if result.source == digest else f", as {result.source}"
    yield printable(f"{path}: {target} {'would be' if is_dry else 'is'} {digest}{origin}")
    for previous in result.previous_digests:
        yield printable(f"{path}: {target} {'is now' if is_dry else 'was'} {previous}")
    if result.previous_digests and not is_dry:
        yield printable(f"{path}: {NO_BLOB_DELETED}")
