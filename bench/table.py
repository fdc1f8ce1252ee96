"""A row of the table: name, two medians, the ratio or value with its spread, goal, verdict."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from bench.clock import ratios

HEADINGS = ("what", "kitcache", "peer", "result", "min to max", "goal", "verdict")


class Row(NamedTuple):
    """One line of the table; the goal applies to `result`."""

    what: str
    ours: str
    theirs: str
    result: str
    spread: str
    goal: str
    verdict: str


def ratio_row(
    what: str, ours: Sequence[float], peer: str, theirs: Sequence[float], goal: float | None
) -> Row:
    """Compare with a peer, in multiples of it; without a goal if that is None."""
    middle, least, most = ratios(ours, theirs)
    return Row(
        what,
        _seconds(statistics.median(ours)),
        f"{peer} {_seconds(statistics.median(theirs))}",
        f"{middle:.2f} x",
        f"{least:.2f} to {most:.2f}",
        "" if goal is None else f"<= {goal} x",
        "" if goal is None else ("met" if middle <= goal else f"missed by {middle - goal:.2f}"),
    )


def value_row(what: str, values: Sequence[float], unit: str, goal: float) -> Row:
    """Return a row without a peer: the median must be below the goal."""
    middle = statistics.median(values)
    return Row(
        what,
        f"{middle:.1f} {unit}",
        "",
        f"{middle:.1f} {unit}",
        f"{min(values):.1f} to {max(values):.1f}",
        f"< {goal:g} {unit}",
        "met" if middle < goal else f"missed by {middle - goal:.1f}",
    )


def skipped_row(what: str, reason: str) -> Row:
    return Row(what, "", "", "", "", "", f"not measured: {reason}")


def text_table(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    lines = [HEADINGS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the table for a page."""
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value >= 0.1 else f"{value * 1000:.1f} ms"
