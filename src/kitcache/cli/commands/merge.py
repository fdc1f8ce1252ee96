"""kitcache merge: copy the tags of several caches into one."""

import argparse
from collections.abc import Iterator

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.text import NO_BLOB_DELETED, UNTAGGED, blobs_of, count
from kitcache.errors import printable
from kitcache.store.open import StoreAddress, directory_path
from kitcache.upkeep.naming.merge import merge
from kitcache.upkeep.results import CopyResult, MergedTag, MergeResult

RENAME = options.listed(
    "--rename",
    "[GLOB=]NAME",
    "give the tags that GLOB matches (without it: all) the name NAME in DST; in NAME,"
    " {tag} is the tag and {dir} the name of SRC; can be given again: the first GLOB"
    " that matches counts",
)
REPLACE = options.switch(
    "--replace", "let a tag of DST move if a source has another digest by that name"
)
COMMAND = options.Command(
    description="""\
Adds all tags of the caches SRC to the cache DST, which is created if it does
not exist. Blobs become hard links if both caches are on one file system, else
copies whose digest is verified. Then all tags are added in one step. The
sources are not changed. If a source is damaged, no tag is changed.

If two of the caches have one tag with different digests, nothing is changed
either, unless --rename gives them different names, or --replace lets a tag of
DST move.""",
    epilog="""\
examples:
  kitcache merge ./a ./b ./all                          a's tags and b's tags
  kitcache merge --rename '{dir}-{tag}' ./a ./b ./all   a-main, b-main, …
  kitcache merge --rename 'main={dir}' ./a ./b ./all    main becomes a, and b
  kitcache merge --dry-run --replace ./new ./all        what would move?""",
    arguments=(
        options.argument("sources", "SRC", "the caches to merge from", nargs="+", completes="dirs"),
        options.argument("target", "DST", "the cache to merge into", completes="dirs"),
        RENAME,
        REPLACE,
        *options.CHANGES,
    ),
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Merge into one DST."""

    def merge_into(address: StoreAddress) -> int:
        result = merge(
            args.sources,
            directory_path(address),
            rename=args.rename,
            replace=args.replace,
            dry_run=args.dry_run,
            lock_timeout_s=args.lock_timeout_s,
            on_progress=console.on_progress,
            cancel=args.cancel,
        )
        console.print_result(result, merge_lines(result))
        console.print_warning(result.warnings)
        return 0

    return console.each([args.target], merge_into)


def merge_lines(result: MergeResult | CopyResult) -> Iterator[str]:
    """Yield one line per tag that was added or moved, then the number of blobs."""
    is_dry = result.outcome == "dry-run"
    verb = "would add" if is_dry else "added"
    new = [tag for tag in result.tags if tag.state != "unchanged"]
    for tag in new:
        yield printable(f"{result.path}: {verb} {_tag_text(tag)}")
    unchanged = len(result.tags) - len(new)
    tags = [count(len(new), "tag")] if new or not unchanged else []
    tags += [f"{unchanged:,} unchanged"] if unchanged else []
    methods = (
        ("to link" if is_dry else "linked", result.linked),
        ("to copy" if is_dry else "copied", result.copied),
        ("reused", result.reused),
    )
    blobs = [f"{blobs_of(tally)} {method}" for method, tally in methods if tally.blobs]
    yield printable(
        f"{result.path}: {', '.join(tags)}; {'; '.join(blobs) or 'no blobs'}"
        f" ({result.seconds:.1f} s)"
    )
    if any(tag.previous_digests for tag in new) and not is_dry:
        yield printable(f"{result.path}: {NO_BLOB_DELETED}")


def _tag_text(tag: MergedTag) -> str:
    source = UNTAGGED if tag.source_name is None else tag.source_name
    target = "" if tag.target_name == tag.source_name else f" as {tag.target_name}"
    previous = ", ".join(tag.previous_digests)
    moved = f", in place of {previous}" if previous else ""
    return f"{source} of {tag.source}{target}, {', '.join(tag.digests)}{moved}"
