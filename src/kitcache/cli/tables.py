"""Tables, which are shortened on a terminal but not in a pipe, and warnings about damage."""

import sys
from collections.abc import Iterator, Sequence

from kitcache.cli.terminal import terminal_width
from kitcache.cli.text import UNTAGGED, shorten, width_of
from kitcache.errors import printable
from kitcache.gc.refusals import describe_damage
from kitcache.gc.values import DamagedPath
from kitcache.oci.digest import Digest
from kitcache.options.units import format_age

SHORT_DIGEST = len("sha256:") + 12


def damage_warnings(path: str, damage: Sequence[DamagedPath]) -> Iterator[str]:
    """Yield one line per root that cannot be read."""
    for item in damage:
        yield printable(f"{path}: {item.root.label} cannot be read: {describe_damage(item)}")
    if damage:
        yield printable(
            f"{path}: reachability is unknown: sizes are incomplete, and a reset would refuse"
        )


def is_recorded(last_used_from: str) -> bool:
    """Return True if a last use was recorded, False if it is an estimate or unknown."""
    return last_used_from in ("export", "import")


def format_since(time_ns: int | None, now_ns: int) -> str:
    """Return the age of a time, "-" if the time is unknown."""
    return "-" if time_ns is None else format_age(now_ns - time_ns)


def tag_name(ref_name: str | None, digest: Digest | None) -> str:
    """Return the tag of an entry; without a tag, its short digest."""
    if ref_name is not None:
        return printable(ref_name)
    return digest.short if digest else UNTAGGED


def table(
    head: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: tuple[int, ...]
) -> Iterator[str]:
    """Yield a table. On a terminal the last column is shortened, then the first, until it fits.

    Args:
        right: Columns that are aligned to the right.
    """
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(width_of, column)) for column in columns]
    excess = sum(widths) + 2 * (len(widths) - 1) - terminal_width(piped=sys.maxsize)
    last = len(widths) - 1
    for column, least in ((last, 16), (0, 16), (last, 9), (0, 13)):
        cut = min(max(excess, 0), max(widths[column] - least, 0))
        widths[column] -= cut
        excess -= cut
    for row in zip(*columns, strict=True):
        cells = []
        for column, (text, width) in enumerate(zip(row, widths, strict=True)):
            shown = shorten(text, width)
            padding = " " * (width - width_of(shown))
            cells.append(padding + shown if column in right else shown + padding)
        yield "  ".join(cells).rstrip()
