"""kitcache copy: copy tags between directories and object stores."""

import argparse
from collections.abc import Iterator

from kitcache.cli import options
from kitcache.cli.commands.merge import RENAME, REPLACE, merge_lines
from kitcache.cli.console import Console
from kitcache.cli.text import UNTAGGED, count
from kitcache.errors import printable
from kitcache.store.open import StoreAddress
from kitcache.upkeep.copying.copy import copy
from kitcache.upkeep.results import CopyResult

COMMAND = options.Command(
    description="""\
Copies the tags of the caches SRC to the cache DST. Each can be a directory, S3
or Azure Blob Storage, named as --cache-to names it; the tags get the form that
DST needs. Blobs that DST has are not sent again, all others are verified while
they are copied. A tag is published after all its blobs, so an interrupted copy
leaves each tag as it was or complete; run it again to send what is missing.

A directory that does not exist is created; a bucket is not. The sources are not
changed. If a tag of a source is damaged, no tag is changed. Images and
artifacts are copied between directories only.""",
    epilog="""\
examples:
  kitcache copy ./cache type=s3,region=eu-west-1,bucket=caches,prefix=ci/
  kitcache copy --tag 'release-*' s3://caches/ci/?region=eu-west-1 ./cache
  kitcache copy --rename 'main=main-of-ci' s3://caches/ci/ azblob://caches/ci/
  kitcache copy --dry-run s3://caches/ci/ ./cache     how much would be sent?""",
    arguments=(
        options.argument("sources", "SRC", "the caches to copy from", nargs="+", completes="dirs"),
        options.argument("target", "DST", "the cache to copy to", completes="dirs"),
        options.listed(
            "--tag", "GLOB", "copy only these tags: main, 'release-*'; can be given again"
        ),
        RENAME,
        REPLACE,
        options.switch(
            "--trim",
            "if a tag is too large for BuildKit to import it from the directory DST, copy it"
            " without its least recently used steps",
        ),
        *options.CHANGES,
    ),
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Copy into one DST."""

    def copy_into(target: StoreAddress) -> int:
        result = copy(
            [console.resolve(source) for source in args.sources],
            target,
            tags=args.tag,
            rename=args.rename,
            replace=args.replace,
            trim=args.trim,
            dry_run=args.dry_run,
            lock_timeout_s=args.lock_timeout_s,
            on_progress=console.on_progress,
            cancel=args.cancel,
        )
        console.print_result(result, merge_lines(result))
        console.print_note(_note_lines(result))
        console.print_warning(result.warnings)
        return 0

    return console.each([args.target], copy_into)


def _note_lines(result: CopyResult) -> Iterator[str]:
    """Yield a line for each tag that was copied in part or not at all."""
    for trimmed in result.trimmed:
        steps = f"{trimmed.removed_steps:,} of {count(trimmed.steps, 'step')}"
        yield printable(
            f"{trimmed.source}: {trimmed.ref_name}: removed {steps}, so that BuildKit imports it"
        )
    for skipped in result.skipped:
        name = UNTAGGED if skipped.ref_name is None else skipped.ref_name
        yield printable(f"{skipped.source}: skipped {name}: it {skipped.reason}")
