"""Lines that several commands print: resets, progress, waiting; plain text without colour.

Every name from a disk passes through `printable`.
"""

from collections.abc import Iterable, Iterator, Sequence

from kitcache.errors import CONFIRM, printable
from kitcache.gc.values import MissingBlob, Progress, ResetResult, Tally
from kitcache.options.units import format_age, format_bytes
from kitcache.store.ioerrors import command_line
from kitcache.store.locks import describe_holder
from kitcache.store.values import RequestCounts, Waiting

UNTAGGED = "(no tag)"
NO_BLOB_DELETED = "no blob was deleted; kitcache reset does that"
_MAX_NAMES = 3
_SHORT_DIGEST = len("sha256:") + 12
_VERBS = {"verify": "hashed", "merge": "merged", "copy": "copied"}


def reset_lines(result: ResetResult) -> Iterator[str]:
    """Yield the summary of a reset: deleted, kept, duration; or the reason why it did nothing."""
    if result.reason and not result.needs_confirmation:
        prefixes = {"skipped": "not reset: ", "refused": "not reset: ", "damaged": "reset failed: "}
        yield printable(f"{result.path}: {prefixes.get(result.outcome, '')}{result.reason}")
        if result.reason.endswith(CONFIRM):
            yield printable(f"{result.path}: hint: {command_line('reset', result.path, '--yes')}")
        return
    deleted = [blobs_of(result.deleted)] if result.deleted.blobs else []
    if result.ingests_deleted.blobs:
        uploads = count(result.ingests_deleted.blobs, "unfinished upload")
        deleted.append(f"{uploads}, {format_bytes(result.ingests_deleted.bytes)}")
    verb = "would delete" if result.outcome == "dry-run" else "deleted"
    summary = f"{verb} {' and '.join(deleted)}" if deleted else "nothing to delete"
    if result.not_deleted_count and not deleted:
        summary = "deleted nothing"
    kept = f"kept {result.kept.blobs:,}, {format_bytes(result.kept.bytes)}"
    tags = count(result.entry_count, "tag")
    failed = f"; {result.not_deleted_count:,} not deleted" if result.not_deleted_count else ""
    seconds = f"{result.seconds:.1f} s"
    yield printable(f"{result.path}: {summary}; {kept}, for {tags}{failed} ({seconds})")
    if result.freed is not None and result.unreachable_before.blobs:
        before = blobs_of(result.unreachable_before)
        yield printable(f"{result.path}: {before} of them were unreachable before")


def request_notes(path: str, requests: RequestCounts | None) -> Iterator[str]:
    """Yield a line with the requests to an object store, by kind."""
    if requests is not None:
        kinds = [f"{number:,} {kind}" for kind, number in requests._asdict().items() if number]
        yield f"{path}: {count(sum(requests), 'request')}: {', '.join(kinds) or 'none'}"


def reset_notes(result: ResetResult) -> Iterator[str]:
    """Yield one line per reason for which a reset kept blobs, uploads or files."""
    path = result.path
    if not result.entry_count and result.deleted.blobs:
        yield printable(f"{path}: index.json has no entries, so every blob is unreachable")
    if result.too_young.blobs:
        yield printable(f"{path}: {blobs_of(result.too_young)} of them kept: too young to delete")
    if result.ingests_kept:
        uploads = some(f"{_upload_name(name)} ({r})" for name, r in result.ingests_kept)
        yield printable(f"{path}: kept {count(len(result.ingests_kept), 'upload')}: {uploads}")
    if result.foreign_count:
        files = some(result.foreign, result.foreign_count)
        yield printable(f"{path}: kept {count(result.foreign_count, 'foreign file')}: {files}")


def _upload_name(name: str) -> str:
    """Return a short name of an upload: its directory, or the blob that an object store gets."""
    key, query, _ = name.partition("?uploadId=")
    return key.rpartition("/")[2][:_SHORT_DIGEST] if query else f"ingest/{name[:12]}"


def missing_warnings(path: str, blobs: Sequence[MissingBlob]) -> Iterator[str]:
    """Yield the missing and incomplete blobs that tags reach, and a hint."""
    if blobs:
        tags = dict.fromkeys(
            "an entry without a tag" if blob.ref_name is None else f"tag '{blob.ref_name}'"
            for blob in blobs
        )
        problems = some(f"{blob.digest.short} {blob.problem}" for blob in blobs)
        number = count(len(blobs), "blob")
        yield printable(
            f"{path}: {number} missing or incomplete, first reached by {some(tags)}: {problems}"
        )
        yield printable(f"{path}: hint: {command_line('verify', path, '--repair')}")


def progress_line(path: str, event: Progress) -> str:
    """Return the progress of a long call, in one short line."""
    if event.phase == "survey":
        return f"{path}: {event.blobs:,} live blobs read"
    if event.phase == "sweep":
        return f"{path}: {event.blobs:,} unreachable blobs, {format_bytes(event.bytes)}"
    rate = event.bytes / event.seconds if event.seconds else 0.0
    words = [_VERBS[event.phase], format_bytes(event.bytes)]
    if event.total_bytes:
        words += ["of", format_bytes(event.total_bytes)]
    line = f"{path}: {' '.join(words)}"
    if rate:
        line += f", {format_bytes(round(rate))}/s"
        if event.total_bytes:
            rest_s = max(0, event.total_bytes - event.bytes) / rate
            line += f", {format_age(round(rest_s) * 10**9)} left"
    return line


def waiting_line(event: Waiting) -> str:
    """Return a line about the lock or upload that a command waits for, with the time."""
    seconds = f"{event.seconds:.0f} s" if event.seconds >= 0.5 else "less than 1 s"
    if event.waiting_for == "roots":
        time = format_age(round(event.seconds * 10**9))
        return printable(
            f"{event.path}: waiting {time} for the roots of exports that ran during the sweep"
        )
    if event.waiting_for == "export":
        return printable(f"{event.path}: an upload has just ended; waiting {seconds} for its tag")
    holder = describe_holder(event.holder)
    return printable(
        f"{event.path}: waiting up to {seconds} for {holder}, which holds {event.waiting_for}"
    )


def count(number: int, item: str) -> str:
    """Return a number with its item: 1 blob, 9,959 blobs."""
    return f"{number:,} {item}{'' if number == 1 else 's'}"


def blobs_of(tally: Tally) -> str:
    """Return a tally as text: 3 blobs, 1.2 kB."""
    return f"{count(tally.blobs, 'blob')}, {format_bytes(tally.bytes)}"


def some(names: Iterable[str], total: int | None = None) -> str:
    """Return the first three names, and the number of the other names."""
    shown = list(names)
    rest = (total or len(shown)) - _MAX_NAMES
    return ", ".join(shown[:_MAX_NAMES]) + (f" and {rest:,} more" if rest > 0 else "")


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
    """Return the beginning of a text that fits into `width` columns."""
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
