"""What people read: lines, tables, sizes. Plain text without colour, at most 80 columns wide.

Every name that came from a disk passes through `printable` on its way.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from kitcache.cli.terminal import terminal_width
from kitcache.errors import printable
from kitcache.gc.refusals import describe_damage, describe_step
from kitcache.gc.values import (
    BlobPath,
    Damage,
    Listing,
    MissingLeaf,
    Progress,
    Report,
    Tag,
    TagUsage,
    Tally,
    Untagged,
    Usage,
    Why,
)
from kitcache.oci.digest import Digest
from kitcache.options.units import format_age, format_bytes
from kitcache.store.locks import Waiting, describe_holder

_NAMED = 3
_UNTAGGED = "(no tag)"


def report_lines(report: Report) -> Iterator[str]:
    """The closing line of a reset: freed, kept, how many, how long."""
    would = "would remove" if report.outcome == "dry-run" else "removed"
    removed = f"{would} {_blobs(report.removed)}" if report.removed.blobs else "nothing to remove"
    if report.ingests_removed.blobs:
        removed += f" and {_uploads(report.ingests_removed)}"
    kept = f"kept {report.kept.blobs:,}, {format_bytes(report.kept.bytes)}"
    tags = _count(report.tags, "tag")
    yield printable(f"{report.path}: {removed}; {kept}, for {tags} ({report.seconds:.1f} s)")


def report_warnings(report: Report) -> Iterator[str]:
    """What was left alone, and why: a line a reason."""
    if report.spared.blobs:
        yield printable(f"{report.path}: {_blobs(report.spared)} of them spared by --min-age")
    if report.ingests_kept:
        yield printable(
            f"{report.path}: {_count(len(report.ingests_kept), 'upload')} left alone:"
            f" {_some(f'ingest/{name[:12]} ({reason})' for name, reason in report.ingests_kept)}"
        )
    if report.foreign_count:
        yield printable(
            f"{report.path}: {_count(report.foreign_count, 'foreign file')} left alone:"
            f" {_some(report.foreign, report.foreign_count)}"
        )
    yield from missing_warnings(report.path, report.missing_leaves)


def missing_warnings(path: str, leaves: Sequence[MissingLeaf]) -> Iterator[str]:
    """Layers that a tag names and that are not there."""
    if leaves:
        tags = dict.fromkeys(leaf.ref_name or _UNTAGGED for leaf in leaves)
        yield printable(
            f"{path}: {_count(len(leaves), 'blob')} that tags name"
            f" {'is' if len(leaves) == 1 else 'are'} missing here (tag {_some(tags)}):"
            f" {_some(leaf.digest.short for leaf in leaves)}"
        )


def damage_warnings(path: str, damage: Sequence[Damage]) -> Iterator[str]:
    """Why the picture is incomplete: a line a damaged root."""
    for item in damage:
        yield printable(f"{path}: {item.root.label} cannot be read: {describe_damage(item)}")
    if damage:
        yield printable(
            f"{path}: what it reaches is not known: figures are incomplete, a reset would refuse"
        )


def usage_lines(usage: Usage) -> Iterator[str]:
    """The figures of du: a line a kind, then a line a tag."""
    yield printable(usage.path)
    rows = [
        ("live", usage.live),
        ("reclaimable", usage.reclaimable),
        ("ingest", usage.ingest),
        ("foreign", usage.foreign),
    ]
    total = sum(tally.bytes for _, tally in rows)
    for name, tally in rows:
        share = f"{100 * tally.bytes / total:5.1f} %" if total else ""
        count = _count(tally.blobs, "blob" if name in ("live", "reclaimable") else _ITEM[name])
        yield f"  {name:<12} {format_bytes(tally.bytes):>9}  {share:>7}  {count}".rstrip()
    if usage.tags:
        yield ""
        yield from _table(
            ("TAG", "UNIQUE", "SHARED", "BLOBS"),
            [_share_row(tag) for tag in usage.tags],
            right=(1, 2, 3),
        )


_ITEM = {"ingest": "upload", "foreign": "file"}


def _share_row(tag: TagUsage) -> tuple[str, ...]:
    return (
        _tag_name(tag.ref_name, tag.digest),
        format_bytes(tag.unique.bytes),
        format_bytes(tag.shared.bytes),
        f"{tag.unique.plus(tag.shared).blobs:,}",
    )


def listing_lines(listing: Listing, now_ns: int) -> Iterator[str]:
    """The tags as a table."""
    if not listing.tags:
        yield printable(f"{listing.path}: no tags")
        return
    yield from _table(
        ("TAG", "KIND", "AGE", "SIZE", "LAYERS", "MISSING", "PLATFORMS"),
        [_tag_row(tag, now_ns) for tag in listing.tags],
        right=(2, 3, 4, 5),
    )
    if any(tag.created_from == "manifest" for tag in listing.tags):
        yield "~ age of the manifest's file here; the others are those of the newest cached result"


def _tag_row(tag: Tag, now_ns: int) -> tuple[str, ...]:
    mark = "~" if tag.created_from == "manifest" else ""
    return (
        _tag_name(tag.ref_name, tag.digest),
        tag.kind,
        mark + format_age(now_ns - tag.created_ns) if tag.created_ns is not None else "-",
        format_bytes(tag.size.bytes),
        f"{tag.layers:,}",
        "damaged" if tag.problem else f"{tag.missing:,}",
        ",".join(map(printable, tag.platforms)) or "-",
    )


def why_lines(why: Why, now_ns: int) -> Iterator[str]:
    """Each path from a tag to the blob."""
    if why.written_ns is None:
        yield f"{why.digest}: missing here"
    else:
        age = format_age(now_ns - why.written_ns)
        yield f"{why.digest}: {format_bytes(why.size or 0)}, written {age} ago"
    if why.is_garbage:
        yield (
            "  garbage: no tag reaches it"
            if not why.damage
            else "  no tag that can be read reaches it"
        )
    for root, paths in groupby(why.paths, key=lambda path: path.root):
        yield printable(f"  {root.label}")
        for path in paths:
            yield from _path_lines(path)
    if why.more_paths:
        yield f"  and more than these {len(why.paths)} paths"


def _path_lines(path: BlobPath) -> Iterator[str]:
    for depth, link in enumerate(path.links):
        role = "" if depth == 0 else f"{link.role} "
        yield printable(f"  {'  ' * depth}> {role}{describe_step(link.descriptor)}")


def untagged_lines(untagged: Untagged) -> Iterator[str]:
    """What was taken out."""
    would = "would take out" if untagged.outcome == "dry-run" else "took out"
    for ref_name, digest in untagged.entries:
        yield printable(f"{untagged.path}: {would} {ref_name or _UNTAGGED}, {digest}")
    if untagged.outcome == "done":
        yield printable(f"{untagged.path}: no blob was removed; kitcache reset does that")


def progress_line(path: str, event: Progress) -> str:
    """How far a long call is, in one short line."""
    if event.phase == "survey":
        return f"{path}: {event.blobs:,} live blobs seen"
    return f"{path}: {event.blobs:,} unreferenced blobs, {format_bytes(event.bytes)}"


def waiting_line(event: Waiting) -> str:
    """Whom we wait for."""
    if event.what == "export":
        return printable(
            f"{event.path}: an upload has just ended; waiting {event.seconds:.0f} s for its tag"
        )
    holder = describe_holder(event.holder)
    return printable(
        f"{event.path}: waiting up to {event.seconds:.0f} s for {holder}, which holds {event.what}"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _blobs(tally: Tally) -> str:
    return f"{_count(tally.blobs, 'blob')}, {format_bytes(tally.bytes)}"


def _uploads(tally: Tally) -> str:
    return f"{_count(tally.blobs, 'upload')} left behind, {format_bytes(tally.bytes)}"


def _some(names: Iterable[str], count: int | None = None) -> str:
    shown = list(names)
    rest = (count or len(shown)) - _NAMED
    return ", ".join(shown[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def _tag_name(ref_name: str | None, digest: Digest | None) -> str:
    if ref_name is not None:
        return printable(ref_name)
    return digest.short if digest else _UNTAGGED


def _table(
    head: tuple[str, ...], rows: list[tuple[str, ...]], right: tuple[int, ...]
) -> Iterator[str]:
    """Columns two spaces apart; the first gives way, then the last, until a line fits."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    excess = sum(widths) + 2 * (len(widths) - 1) - terminal_width()
    for column in (0, len(widths) - 1):
        cut = min(max(excess, 0), max(widths[column] - 16, 0))
        widths[column] -= cut
        excess -= cut
    for row in zip(*columns, strict=True):
        cells = [
            _shorten(cell, width).rjust(width) if n in right else _shorten(cell, width).ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _shorten(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[: width - 1 - half]}…{text[len(text) - half :]}"
