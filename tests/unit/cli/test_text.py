"""cli/text.py: the words of a reset and of waiting."""

import hashlib

import pytest

from kitcache.cli.text import (
    missing_warnings,
    progress_line,
    reset_lines,
    reset_notes,
    shorten,
    waiting_line,
    width_of,
)
from kitcache.gc.values import MissingBlob, Progress, ResetResult, Tally
from kitcache.oci.digest import Digest
from kitcache.store.values import LockHolder, Waiting

EVIL = "\x1b[31m\u202e"
NOTHING = ResetResult(
    "./cache",
    "done",
    0,
    *[Tally()] * 4,
    (),
    (),
    0,
    (),
    0,
    (),
    0.04,  # type: ignore[arg-type]
)


def digest(word: str) -> Digest:
    return Digest("sha256", hashlib.sha256(word.encode()).hexdigest())


def line(**changes: object) -> str:
    (only,) = reset_lines(NOTHING._replace(**changes))
    return only


def notes(**changes: object) -> list[str]:
    return list(reset_notes(NOTHING._replace(**changes)))


def test_zero_is_an_answer() -> None:
    assert line() == "./cache: nothing to delete; kept 0, 0 B, for 0 tags (0.0 s)"
    assert line(outcome="dry-run") == line()
    assert notes() == []


def test_the_closing_line_says_freed_kept_how_many_how_long() -> None:
    assert (
        line(
            deleted=Tally(9959, 343_400_000_000),
            kept=Tally(41, 603_000_000),
            entry_count=3,
            seconds=1.26,
        )
        == "./cache: deleted 9,959 blobs, 343 GB; kept 41, 603 MB, for 3 tags (1.3 s)"
    )


def test_one_is_one() -> None:
    assert (
        line(deleted=Tally(1, 1), kept=Tally(1, 1000), entry_count=1, ingests_deleted=Tally(1, 7))
        == "./cache: deleted 1 blob, 1 B and 1 unfinished upload, 7 B;"
        " kept 1, 1.0 kB, for 1 tag (0.0 s)"
    )


def test_a_dry_run_would() -> None:
    assert line(outcome="dry-run", deleted=Tally(2, 9)).startswith("./cache: would delete 2 blobs")


def test_uploads_alone_are_something_to_remove() -> None:
    words = line(ingests_deleted=Tally(2, 1_500_000))
    assert "2 unfinished uploads, 1.5 MB" in words
    assert "nothing to delete" not in words


def test_what_was_left_alone_and_why() -> None:
    kept = (("a" * 64, "last written 10 min ago"), ("b" * 64, "dated 1 h in the future"))
    assert notes(
        too_young=Tally(3, 4500),
        ingests_kept=kept,
        foreign=("notes.txt",),
        foreign_count=1,
    ) == [
        "./cache: 3 blobs, 4.5 kB of them kept: too young to delete",
        "./cache: kept 2 uploads: ingest/aaaaaaaaaaaa (last written 10 min ago),"
        " ingest/bbbbbbbbbbbb (dated 1 h in the future)",
        "./cache: kept 1 foreign file: notes.txt",
    ]


@pytest.mark.parametrize(
    ("total", "says"),
    [
        (1, "kept 1 foreign file: f0"),
        (3, "kept 3 foreign files: f0, f1, f2"),
        (4, "kept 4 foreign files: f0, f1, f2 and 1 more"),
        (12_345, "kept 12,345 foreign files: f0, f1, f2 and 12,342 more"),
    ],
)
def test_three_are_named_and_the_rest_is_counted(total: int, says: str) -> None:
    names = tuple(f"f{n}" for n in range(min(total, 100)))
    assert notes(foreign=names, foreign_count=total) == [f"./cache: {says}"]


def test_missing_blobs_are_told_with_their_tags() -> None:
    assert list(missing_warnings("c", ())) == []
    one = MissingBlob(digest("a"), "main")
    assert list(missing_warnings("c", [one])) == [
        "c: 1 blob missing or incomplete,"
        f" first reached by tag 'main': {digest('a').short}"
        " is missing",
        "c: hint: kitcache verify c --repair",
    ]
    two = MissingBlob(digest("b"), None, "is truncated (1 of 2 bytes)")
    assert list(missing_warnings("c", [one, two])) == [
        "c: 2 blobs missing or incomplete,"
        " first reached by tag 'main', an entry without a tag:"
        f" {digest('a').short} is missing, {digest('b').short} is truncated (1 of 2 bytes)",
        "c: hint: kitcache verify c --repair",
    ]


def test_how_far_a_long_call_is() -> None:
    assert progress_line("c", Progress("survey", 1234, 0)) == "c: 1,234 live blobs read"
    assert (
        progress_line("c", Progress("sweep", 1234, 5_600_000))
        == "c: 1,234 unreachable blobs, 5.6 MB"
    )
    merging = Progress("merge", 7, 1_000_000, 5_000_000, 2.0)
    assert progress_line("c", merging) == "c: merged 1.0 MB of 5.0 MB, 500 kB/s, 8 s left"


def test_whom_we_wait_for() -> None:
    held = Waiting("c", "kitcache.lock", LockHolder(7, "rsync"), 30.0)
    assert (
        waiting_line(held)
        == "c: waiting up to 30 s for process 7 (rsync), which holds kitcache.lock"
    )
    assert "up to 1 s for" in waiting_line(held._replace(seconds=0.9998))
    assert "up to less than 1 s for" in waiting_line(held._replace(seconds=0.3))
    unknown = held._replace(holder=LockHolder(None, None))
    assert "for another process, which" in waiting_line(unknown)
    export = held._replace(waiting_for="export", seconds=4.2)
    assert waiting_line(export) == "c: an upload has just ended; waiting 4 s for its tag"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdefghij", 10, "abcdefghij"),
        ("abcdefghij", 5, "ab…ij"),
        ("東京東京", 8, "東京東京"),
        ("東京東京", 7, "東…京"),
        ("東京東京", 4, "東…"),
    ],
)
def test_a_name_is_cut_by_the_columns_that_it_takes(text: str, width: int, shown: str) -> None:
    assert shorten(text, width) == shown
    assert width_of(shown) <= width


@pytest.mark.parametrize("width", [0, 1])
def test_where_there_is_no_column_to_spare_it_ends_all_the_same(width: int) -> None:
    assert shorten("abc", width) == "…"


def test_why_nothing_was_reset() -> None:
    assert line(outcome="skipped", reason="others export") == "./cache: not reset: others export"
    assert line(outcome="refused", reason="wrong-size") == "./cache: not reset: wrong-size"
    assert line(outcome="damaged", reason="a hole") == "./cache: reset failed: a hole"
    assert "\\x1b" in line(outcome="skipped", reason=EVIL)


def test_nothing_is_printed_raw() -> None:
    leaf = MissingBlob(digest("a"), EVIL)
    lines = [
        line(path=EVIL),
        *notes(
            path=EVIL,
            too_young=Tally(1, 1),
            foreign=(EVIL,),
            foreign_count=1,
            ingests_kept=((EVIL, EVIL),),
        ),
        *missing_warnings(EVIL, [leaf]),
        waiting_line(Waiting(EVIL, EVIL, LockHolder(7, EVIL), 1)),
        waiting_line(Waiting(EVIL, "export", LockHolder(7, EVIL), 1)),
    ]
    assert len(lines) == 8
    assert all(text.isprintable() and "\\x1b" in text for text in lines)
