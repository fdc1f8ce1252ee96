"""cli/cachetext.py: the words of a cache export."""

from kitcache.buildkit.publish import CacheResult
from kitcache.cli.cachetext import cache_lines
from kitcache.gc.values import MissingBlob, ResetResult, Tally
from kitcache.oci.digest import Digest

NONE = Tally(0, 0)
RESULT = CacheResult(
    "./cache", "main", "published", "sha256:0", Tally(2, 3000), Tally(1234, 9), None
)
REPORT = ResetResult(
    "./cache", "done", 1, Tally(9, 90), NONE, Tally(4, 40), NONE, (), (), 0, (), 0, (), 0.04
)
EVIL = "\x1b[31m\u202e\n"


def lines(**changes: object) -> list[str]:
    return list(cache_lines([RESULT._replace(**changes)]))  # type: ignore[arg-type]


def test_what_was_written_and_what_was_there() -> None:
    assert lines() == ["./cache: exported tag 'main': wrote 2 blobs, 3.0 kB; reused 1,234"]


def test_nothing_to_export() -> None:
    assert lines(outcome="empty") == ["./cache: nothing to export; tag 'main' is unchanged"]
    assert lines(outcome="empty", problem="it ended early") == [
        "./cache: nothing to export (it ended early); tag 'main' is unchanged"
    ]


def test_a_failure_is_told_elsewhere() -> None:
    assert lines(outcome="failed", problem="a hole") == []


def test_a_reset_has_its_line_and_its_remarks() -> None:
    assert lines(reset=REPORT)[1:] == [
        "./cache: deleted 4 blobs, 40 B; kept 9, 90 B, for 1 tag (0.0 s)"
    ]
    hole = MissingBlob(Digest("sha256", "0" * 64), "main")
    report = REPORT._replace(
        too_young=Tally(3, 30),
        missing_blobs=(hole,),
        not_deleted=(("a", "busy"),),
        not_deleted_count=1,
    )
    found = lines(reset=report)
    assert len(found) > 3
    assert [line for line in found if "too young to delete" in line]
    assert [line for line in found if "main" in line and "000000" in line]


def test_a_reset_that_did_nothing_says_why() -> None:
    report = REPORT._replace(outcome="skipped", reason="others are exporting")
    assert lines(reset=report)[1] == "./cache: not reset: others are exporting"


def test_no_name_reaches_the_terminal_as_it_is() -> None:
    for outcome in ("published", "empty"):
        for line in lines(outcome=outcome, path=EVIL, tag=EVIL, problem=EVIL):
            assert line.isprintable(), line


def test_each_export_in_turn() -> None:
    both = [RESULT, RESULT._replace(tag="dev")]
    assert ["'main'" in line for line in cache_lines(both)] == [True, False]
    assert list(cache_lines([])) == []
