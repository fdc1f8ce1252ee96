"""cli/commands/{tag,untag,merge}.py: what people read of them."""

from kitcache.cli.commands.merge import merge_lines
from kitcache.cli.commands.tag import tag_lines
from kitcache.cli.commands.untag import untag_lines
from kitcache.gc.values import Tally
from kitcache.upkeep.results import MergedTag, MergeResult, TagResult, UntagResult

EVIL = "\x1b[31m\u202e"
MOVED = TagResult("c", "done", "main", "dev", "sha256:a", ("sha256:b",))
MERGED = MergeResult("all", "done", ("a", "b"), (), Tally(), Tally(), Tally(), (), 1.25)
TAKEN = MergedTag("a", "main", "main", ("sha256:1",), "new")


def test_a_name_that_moved() -> None:
    assert list(tag_lines(MOVED)) == [
        "c: dev is sha256:a, as main",
        "c: dev was sha256:b",
        "c: no blob was deleted; kitcache reset does that",
    ]
    assert list(tag_lines(MOVED._replace(outcome="dry-run"))) == [
        "c: dev would be sha256:a, as main",
        "c: dev is now sha256:b",
    ]


def test_a_new_name_and_one_that_is_there() -> None:
    new = MOVED._replace(previous_digests=())
    assert list(tag_lines(new)) == ["c: dev is sha256:a, as main"]
    assert list(tag_lines(new._replace(source="sha256:a"))) == ["c: dev is sha256:a"]
    there = list(tag_lines(new._replace(outcome="unchanged")))
    assert there == ["c: dev is sha256:a already: nothing to change"]


def test_each_tag_that_came_and_what_it_took() -> None:
    tags = (
        TAKEN,
        TAKEN._replace(
            target_name="b-main", source="b", state="moved", previous_digests=("sha256:0",)
        ),
        TAKEN._replace(source_name=None, target_name=None, digests=("sha256:2", "sha256:3")),
        TAKEN._replace(state="unchanged"),
    )
    merged = MERGED._replace(tags=tags, linked=Tally(3, 1500), copied=Tally(1, 10))
    assert list(merge_lines(merged)) == [
        "all: added main of a, sha256:1",
        "all: added main of b as b-main, sha256:1, in place of sha256:0",
        "all: added (no tag) of a, sha256:2, sha256:3",
        "all: 3 tags, 1 unchanged; 3 blobs, 1.5 kB linked; 1 blob, 10 B copied (1.2 s)",
        "all: no blob was deleted; kitcache reset does that",
    ]
    dry = list(merge_lines(merged._replace(outcome="dry-run")))
    assert [line[:14] for line in dry[:3]] == ["all: would add"] * 3
    assert dry[3].endswith("; 3 blobs, 1.5 kB to link; 1 blob, 10 B to copy (1.2 s)")
    assert len(dry) == 4


def test_nothing_is_an_answer() -> None:
    assert list(merge_lines(MERGED)) == ["all: 0 tags; no blobs (1.2 s)"]
    there = MERGED._replace(tags=(TAKEN._replace(state="unchanged"),), reused=Tally(2, 20))
    assert list(merge_lines(there)) == ["all: 1 unchanged; 2 blobs, 20 B reused (1.2 s)"]


def test_what_was_taken_out() -> None:
    untagged = UntagResult("c", "done", (("main", "sha256:a"), (None, "sha256:b")))
    assert list(untag_lines(untagged)) == [
        "c: untagged main, sha256:a",
        "c: untagged (no tag), sha256:b",
        "c: no blob was deleted; kitcache reset does that",
    ]
    assert list(untag_lines(untagged._replace(outcome="dry-run"))) == [
        "c: would untag main, sha256:a",
        "c: would untag (no tag), sha256:b",
    ]


def test_names_from_a_disk_are_made_printable() -> None:
    tagged = TagResult(EVIL, "done", EVIL, EVIL, EVIL, (EVIL, EVIL))
    taken = MergedTag(EVIL, EVIL, f"{EVIL}!", (EVIL,), "moved", (EVIL,))
    lines = [
        *tag_lines(tagged),
        *tag_lines(tagged._replace(outcome="unchanged")),
        *merge_lines(MERGED._replace(path=EVIL, tags=(taken,))),
        *untag_lines(UntagResult(EVIL, "done", ((EVIL, EVIL),))),
    ]
    assert all(line.isprintable() for line in lines)
