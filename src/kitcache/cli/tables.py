"""What people read of du, ls and why: lines, and tables that fit a terminal, whole in a pipe."""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

from kitcache.cli.terminal import terminal_width
from kitcache.cli.text import UNTAGGED, count, shorten, width_of
from kitcache.errors import printable
from kitcache.gc.refusals import describe_damage, describe_step
from kitcache.gc.results import BlobReferences, DiskUsage, ReferencePath, TagInfo, TagList, TagUsage
from kitcache.gc.values import DamagedPath
from kitcache.oci.digest import Digest
from kitcache.options.units import format_age, format_bytes
from kitcache.store.ioerrors import shell_words
from kitcache.store.scan import QUARANTINE

NOTED_USES = ("export", "import")


def damage_warnings(path: str, damage: Sequence[DamagedPath]) -> Iterator[str]:
    """Why the picture is incomplete: a line a damaged root."""
    for item in damage:
        yield printable(f"{path}: {item.root.label} cannot be read: {describe_damage(item)}")
    if damage:
        yield printable(
            f"{path}: what it reaches is not known: figures are incomplete, a reset would refuse"
        )


def usage_lines(usage: DiskUsage) -> Iterator[str]:
    """The figures of du: a line a kind, then a line a tag."""
    yield printable(usage.path)
    rows = [
        ("live", usage.live),
        ("not reached" if usage.damage else "reclaimable", usage.reclaimable),
        ("ingest", usage.ingest),
        ("foreign", usage.foreign),
    ]
    total = sum(tally.bytes for _, tally in rows)
    for name, tally in rows:
        share = f"{100 * tally.bytes / total:5.1f} %" if total else ""
        number = count(tally.blobs, _ITEM.get(name, "blob"))
        yield f"  {name:<12} {format_bytes(tally.bytes):>9}  {share:>7}  {number}"
    if usage.quarantine.blobs:
        size, number = format_bytes(usage.quarantine.bytes), count(usage.quarantine.blobs, "file")
        yield f"  {'quarantine':<12} {size:>9}  {'':>7}  {number} put aside by a repair"
        here = "./" if usage.path.startswith("-") else ""
        place = shell_words(f"{here}{usage.path}/.kitcache/{QUARANTINE}")
        yield f"  to be rid of them: rm -r {place}"
    if usage.skipped_sweeps:
        yield f"  {count(usage.skipped_sweeps, 'reset')} in a row left out: others were exporting"
    if usage.tags:
        yield ""
        yield from table(
            ("TAG", "UNIQUE", "SHARED", "BLOBS"),
            [_share_row(tag) for tag in usage.tags],
            right=(1, 2, 3),
        )


_ITEM = {"ingest": "upload", "foreign": "file"}


def _share_row(tag: TagUsage) -> tuple[str, ...]:
    return (
        tag_name(tag.ref_name, tag.digest),
        format_bytes(tag.unique.bytes),
        format_bytes(tag.shared.bytes),
        f"{tag.unique.plus(tag.shared).blobs:,}",
    )


def listing_lines(listing: TagList, now_ns: int) -> Iterator[str]:
    """The tags as a table."""
    if not listing.tags:
        yield printable(f"{listing.path}: no tags")
        return
    yield from table(
        ("TAG", "KIND", "AGE", "LAST USED", "SIZE", "LAYERS", "MISSING", "PLATFORMS"),
        [_tag_row(tag, now_ns) for tag in listing.tags],
        right=(2, 3, 4, 5, 6),
    )
    if any(tag.created_from == "manifest" for tag in listing.tags):
        yield "AGE ~: since the manifest was written here, not since a result was made"
    if any(tag.last_used_ns and tag.last_used_from not in NOTED_USES for tag in listing.tags):
        yield "LAST USED ~: no export and no import is noted, so it is the age"
    # Whatever has an age has a last use, unless there may be notes that say more.
    if any(tag.created_ns is not None and tag.last_used_ns is None for tag in listing.tags):
        yield "LAST USED -: the notes of it in .kitcache/ cannot be read"


def _tag_row(tag: TagInfo, now_ns: int) -> tuple[str, ...]:
    mark = "~" if tag.created_from == "manifest" else ""
    used_mark = "" if tag.last_used_from in NOTED_USES else "~"
    return (
        tag_name(tag.ref_name, tag.digest),
        tag.kind,
        mark + format_age(now_ns - tag.created_ns) if tag.created_ns is not None else "-",
        used_mark + format_age(now_ns - tag.last_used_ns) if tag.last_used_ns is not None else "-",
        format_bytes(tag.size.bytes),
        f"{tag.layers:,}",
        "damaged" if tag.problem else f"{tag.missing:,}",
        ",".join(map(printable, tag.platforms)) or "-",
    )


def why_lines(why: BlobReferences, now_ns: int) -> Iterator[str]:
    """Each path from a tag to the blob."""
    if why.written_ns is None:
        yield f"{why.digest}: missing here"
    else:
        age_ns = now_ns - why.written_ns
        when = f"written {format_age(age_ns)} ago" if age_ns >= 0 else f"dated {format_age(age_ns)}"
        yield f"{why.digest}: {format_bytes(why.size or 0)}, {when}"
    if why.is_unreachable:
        yield (
            "  garbage: no tag reaches it"
            if not why.damage
            else "  no tag that can be read reaches it"
        )
    for root, paths in groupby(why.paths, key=lambda path: path.root):
        yield printable(f"  {root.label}")
        for path in paths:
            yield from _path_lines(path)
    if why.has_more_paths:
        yield f"  and more than these {len(why.paths)} paths"


def _path_lines(path: ReferencePath) -> Iterator[str]:
    for depth, link in enumerate(path.links):
        role = "" if depth == 0 else f"{link.role} "
        yield printable(f"  {'  ' * depth}> {role}{describe_step(link.descriptor)}")


def tag_name(ref_name: str | None, digest: Digest | None) -> str:
    """What an entry goes by: its tag, or else its digest."""
    if ref_name is not None:
        return printable(ref_name)
    return digest.short if digest else UNTAGGED


def table(
    head: tuple[str, ...], rows: list[tuple[str, ...]], right: tuple[int, ...]
) -> Iterator[str]:
    """Columns two spaces apart; on a terminal the last gives way, then the first, until it fits."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(width_of, column)) for column in columns]
    excess = sum(widths) + 2 * (len(widths) - 1) - terminal_width(piped=sys.maxsize)
    last = len(widths) - 1
    for column, least in ((last, 16), (0, 16), (last, 9), (0, 13)):
        cut = min(max(excess, 0), max(widths[column] - least, 0))
        widths[column] -= cut
        excess -= cut
    for row in zip(*columns, strict=True):
        cells = [
            _cell(text, width, is_right=n in right)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _cell(text: str, width: int, *, is_right: bool) -> str:
    shown = shorten(text, width)
    padding = " " * (width - width_of(shown))
    return padding + shown if is_right else shown + padding
