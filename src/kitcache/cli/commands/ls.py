"""kitcache ls: the tags of a cache, or the blobs of one tag."""

import argparse
import os
import time
from collections.abc import Iterator

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.tables import damage_warnings, is_recorded, table, tag_name
from kitcache.errors import NotFound, printable
from kitcache.gc.ls import ls
from kitcache.gc.results import TagInfo, TagList
from kitcache.options.units import format_age, format_bytes
from kitcache.store.open import StoreAddress

COMMAND = options.Command(
    description="""\
Without TAG: lists the entries of index.json: tag, kind (cache, image,
artifact), age, last use, size of all blobs that it reaches, number of layers,
missing blobs, platforms. AGE is the age of the newest cached result; with the
mark ~, the time since the manifest was written here. LAST USED is the time that
prune uses: the last export or import by kitcache build or exec; with the mark
~, the age. Entries without a tag show their digest. Acquires no lock and
changes nothing.

With TAG: lists the blobs that this tag reaches, largest first. UNIQUE is the
space that would be free without the tag: 0 B if another tag needs the blob too.
A layer of a build cache shows the cache key of its step (BuildKit records no
names), and when the step was created and last read. A layer of an image shows
its command.""",
    epilog="""\
examples:
  kitcache ls ./cache           which tags, of what age and size?
  kitcache ls ./cache main      which layers and steps of main are large?
  kitcache ls --json ./cache    with full digests, for programs""",
    arguments=(
        options.DIR,
        options.argument(
            "tag", "TAG", "a tag, or the full digest of an entry", nargs="?", completes="tags"
        ),
        options.JSON,
        options.QUIET,
    ),
    effect="",
)


def run(args: argparse.Namespace, console: Console) -> int:
    """List one DIR."""

    def list_tags(address: StoreAddress) -> int:
        tags = ls(address, cancel=args.cancel)
        console.print_result(tags, tag_list_lines(tags, time.time_ns()))
        console.print_warning(damage_warnings(tags.path, tags.damage))
        return tags.exit_code

    def list_blobs(address: StoreAddress) -> int:
        # These read cacheconfigs.
        from kitcache.cli.contentstext import contents_lines  # noqa: PLC0415
        from kitcache.upkeep.contents import ls_tag  # noqa: PLC0415

        try:
            contents = ls_tag(address, args.tag, cancel=args.cancel)
        except NotFound as error:
            if os.path.isdir(args.tag):
                error.hints = ("ls takes one DIR; kitcache du takes several",)
            raise
        console.print_result(contents, contents_lines(contents, time.time_ns()))
        console.print_warning(damage_warnings(contents.path, contents.damage))
        return contents.exit_code

    return console.each([args.dir], list_tags if args.tag is None else list_blobs)


def tag_list_lines(tags: TagList, now_ns: int) -> Iterator[str]:
    """Yield the table of the tags, and the meaning of its marks."""
    if not tags.tags:
        yield printable(f"{tags.path}: no tags")
        return
    yield from table(
        ("TAG", "KIND", "AGE", "LAST USED", "SIZE", "LAYERS", "MISSING", "PLATFORMS"),
        [_row(tag, now_ns) for tag in tags.tags],
        right=(2, 3, 4, 5, 6),
    )
    if any(tag.created_from == "manifest" for tag in tags.tags):
        yield "AGE ~: since the manifest was written here, not since a result was created"
    if any(tag.last_used_ns and not is_recorded(tag.last_used_from) for tag in tags.tags):
        yield "LAST USED ~: no export and no import is recorded, so it is the age"
    # A tag with an age has a last use, unless its records cannot be read.
    if any(tag.created_ns is not None and tag.last_used_ns is None for tag in tags.tags):
        yield "LAST USED -: its records in .kitcache/ cannot be read"


def _row(tag: TagInfo, now_ns: int) -> tuple[str, ...]:
    age, last_used = "-", "-"
    if tag.created_ns is not None:
        mark = "~" if tag.created_from == "manifest" else ""
        age = mark + format_age(now_ns - tag.created_ns)
    if tag.last_used_ns is not None:
        mark = "" if is_recorded(tag.last_used_from) else "~"
        last_used = mark + format_age(now_ns - tag.last_used_ns)
    return (
        tag_name(tag.ref_name, tag.digest),
        tag.kind,
        age,
        last_used,
        format_bytes(tag.size.bytes),
        f"{tag.layers:,}",
        "damaged" if tag.problem else f"{tag.missing:,}",
        ",".join(map(printable, tag.platforms)) or "-",
    )
