"""What people read of a reset and of waiting: plain lines without colour.

Every name that came from a disk passes through `printable` on its way.
"""

from collections.abc import Iterable, Iterator, Sequence

from kitcache.errors import printable
from kitcache.gc.values import MissingBlob, Progress, ResetResult, Tally
from kitcache.options.units import format_age, format_bytes
from kitcache.store.ioerrors import command_line
from kitcache.store.locks import describe_holder
from kitcache.store.protocol import Waiting

_NAMED = 3
UNTAGGED = "(no tag)"


def report_lines(report: ResetResult) -> Iterator[str]:
    """The closing line of a reset: freed, kept, how many, how long; or why it did nothing."""
    if report.reason and report.outcome in ("done", "dry-run"):
        yield printable(f"{report.path}: {report.reason}")
        return
    if report.reason:
        what = "its reset failed" if report.outcome == "damaged" else "not reset"
        yield printable(f"{report.path}: {what}: {report.reason}")
        return
    parts = [blobs_of(report.deleted)] if report.deleted.blobs else []
    if report.ingests_deleted.blobs:
        parts.append(_uploads(report.ingests_deleted))
    would = "would remove" if report.outcome == "dry-run" else "removed"
    removed = f"{would} {' and '.join(parts)}" if parts else "nothing to remove"
    if report.not_deleted_count and not parts:
        removed = "removed nothing"
    kept = f"kept {report.kept.blobs:,}, {format_bytes(report.kept.bytes)}"
    tags = count(report.entry_count, "tag")
    yield printable(f"{report.path}: {removed}; {kept}, for {tags} ({report.seconds:.1f} s)")


def report_notes(report: ResetResult) -> Iterator[str]:
    """What was left alone, and why: a line a reason."""
    if not report.entry_count and report.deleted.blobs:
        yield printable(f"{report.path}: index.json has no entries, so every blob is garbage")
    if report.too_young.blobs:
        yield printable(f"{report.path}: {blobs_of(report.too_young)} of them too young to go")
    if report.ingests_kept:
        yield printable(
            f"{report.path}: {count(len(report.ingests_kept), 'upload')} left alone:"
            f" {some(f'ingest/{name[:12]} ({reason})' for name, reason in report.ingests_kept)}"
        )
    if report.foreign_count:
        yield printable(
            f"{report.path}: {count(report.foreign_count, 'foreign file')} left alone:"
            f" {some(report.foreign, report.foreign_count)}"
        )


def missing_warnings(path: str, leaves: Sequence[MissingBlob]) -> Iterator[str]:
    """Leaves that a tag names and that are not there, or not whole."""
    if leaves:
        tags = dict.fromkeys(
            "an entry without a tag" if leaf.ref_name is None else f"tag '{leaf.ref_name}'"
            for leaf in leaves
        )
        yield printable(
            f"{path}: {count(len(leaves), 'blob')} that tags name"
            f" {'is' if len(leaves) == 1 else 'are'} not there or not whole,"
            f" first named by {some(tags)}:"
            f" {some(f'{leaf.digest.short} {leaf.problem}' for leaf in leaves)}"
        )
        yield printable(f"{path}: hint: {command_line('verify', path, '--repair')}")


def progress_line(path: str, event: Progress) -> str:
    """How far a long call is, in one short line."""
    if event.phase == "survey":
        return f"{path}: {event.blobs:,} live blobs seen"
    if event.phase == "verify":
        return f"{path}: {_paced('rehashed', event)}"
    if event.phase == "merge":
        return f"{path}: {_paced('merged', event)}"
    return f"{path}: {event.blobs:,} unreferenced blobs, {format_bytes(event.bytes)}"


def _paced(verb: str, event: Progress) -> str:
    """So far, of how much, how fast, and how long it will take at that rate."""
    rate = event.bytes / event.seconds if event.seconds else 0.0
    words = [f"{verb} {format_bytes(event.bytes)}"]
    if event.total_bytes:
        words[0] += f" of {format_bytes(event.total_bytes)}"
    if rate:
        words.append(f"{format_bytes(round(rate))}/s")
    if rate and event.total_bytes:
        left_s = max(0, event.total_bytes - event.bytes) / rate
        words.append(f"{format_age(round(left_s) * 10**9)} left")
    return ", ".join(words)


def waiting_line(event: Waiting) -> str:
    """Whom we wait for."""
    if event.waiting_for == "export":
        return printable(
            f"{event.path}: an upload has just ended; waiting {event.seconds:.0f} s for its tag"
        )
    holder = describe_holder(event.holder)
    return printable(
        f"{event.path}: waiting up to {event.seconds:.0f} s for {holder},"
        f" which holds {event.waiting_for}"
    )


def count(number: int, what: str) -> str:
    """A number of things: 1 blob, 9,959 blobs."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def blobs_of(tally: Tally) -> str:
    """A tally in words: 3 blobs, 1.2 kB."""
    return f"{count(tally.blobs, 'blob')}, {format_bytes(tally.bytes)}"


def _uploads(tally: Tally) -> str:
    return f"{count(tally.blobs, 'upload')} left behind, {format_bytes(tally.bytes)}"


def some(names: Iterable[str], total: int | None = None) -> str:
    """The first few names, and how many more there are."""
    shown = list(names)
    rest = (total or len(shown)) - _NAMED
    return ", ".join(shown[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def width_of(text: str) -> int:
    """Return the columns of a terminal that a text takes.

    Wide characters, such as Chinese ones, take two columns and combining marks none.
    """
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width  # noqa: PLC0415 - most names are ASCII

    marks = sum(category(character) in ("Mn", "Me") for character in text)
    return len(text) - marks + sum(east_asian_width(character) in "WF" for character in text)


def crop(text: str, width: int) -> str:
    """Return as much of the beginning of a text as fits into `width` columns."""
    if width_of(text) <= width:
        return text
    for end, character in enumerate(text):
        width -= width_of(character)
        if width < 0:
            return text[:end]
    return text


def shorten(text: str, width: int) -> str:
    """Return a text that fits into `width` columns, with an ellipsis in place of its middle."""
    if width_of(text) <= width:
        return text
    half = (width - 1) // 2
    end = crop(text[::-1], half)[::-1]
    return f"{crop(text, width - 1 - half)}…{end}"
