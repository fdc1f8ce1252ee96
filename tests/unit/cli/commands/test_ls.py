"""kitcache ls: one DIR, a line a tag."""

import time

from kitcache.store.open import open_store
from kitcache.store.state import record_use
from tests.hostile.build import IMAGE_CONFIG, Sample, make_sample
from tests.hostile.command import run
from tests.hostile.privilege import NOBODY, needs_root, reachable_box, run_as


def test_a_line_a_tag(sample: Sample) -> None:
    answer = run(sample.box.top, "ls", "cache")
    assert (answer.code, answer.err) == (0, "")
    head, main, dev, *footnotes = answer.out.splitlines()
    columns = ["TAG", "KIND", "AGE", "LAST", "USED", "SIZE", "LAYERS", "MISSING", "PLATFORMS"]
    assert head.split() == columns
    assert main.split()[:2] == ["main", "cache"]
    assert dev.split()[:2] == ["dev", "cache"]
    assert [line.split(": ")[0] for line in footnotes] == ["AGE ~", "LAST USED ~"]


def test_a_damaged_tag_is_listed_and_told(sample: Sample) -> None:
    sample.box.damage(sample.main["digest"], None)
    answer = run(sample.box.top, "ls", "cache")
    assert answer.code == 12
    assert "damaged" in answer.out.splitlines()[1]
    assert "tag 'main' cannot be read" in answer.err


def test_when_a_tag_was_last_used(sample: Sample) -> None:
    now_ns = time.time_ns()
    with open_store(sample.dir) as layout:
        record_use(layout, ["main"], "imported", now_ns - 600 * 10**9)
    main, dev = run(sample.box.top, "ls", "--json", "cache").value["tags"]
    assert main["last_used_from"] == "import"
    assert main["last_used"] == time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_ns // 10**9 - 600)
    )
    assert (dev["last_used"], dev["last_used_from"]) == (dev["created"], "manifest")
    _, line, other, *footnotes = run(sample.box.top, "ls", "cache").out.splitlines()
    assert " 10 min " in line
    assert other.count("~") == 2
    assert len(footnotes) == 2
    dry = run(sample.box.top, "prune", "--dry-run", "--json", "cache").value["tags"]
    assert [(tag["last_used"], tag["last_used_from"]) for tag in dry] == [
        (tag["last_used"], tag["last_used_from"]) for tag in (main, dev)
    ]


def test_notes_that_cannot_be_read_are_not_taken_for_none() -> None:
    """With a guess in its place a tag that is in use would look old."""
    needs_root()
    with reachable_box() as top:
        sample = make_sample(top)
        with open_store(sample.dir) as layout:
            record_use(layout, ["main"], "imported", time.time_ns())
        (sample.dir / ".kitcache").chmod(0o700)
        answer = run_as(NOBODY, top, "ls", "--json", "cache")
        assert answer.code == 0
        *_, footnote = run_as(NOBODY, top, "ls", "cache").out.splitlines()
        assert footnote == "LAST USED -: its records in .kitcache/ cannot be read"
        assert {tag["last_used_from"] for tag in answer.value["tags"]} == {"unknown"}
        assert run_as(NOBODY, top, "ls", "cache", "main").code == 0


def test_one_dir_only(sample: Sample) -> None:
    answer = run(sample.box.top, "ls", "cache", "cache")
    assert answer.code == 1
    assert answer.err.splitlines()[1:] == ["  hint: ls takes one DIR; kitcache du takes several"]


def test_what_one_tag_holds(sample: Sample) -> None:
    answer = run(sample.box.top, "ls", "cache", "main")
    assert (answer.code, answer.err) == (0, "")
    first, head, *rows = answer.out.splitlines()
    assert first.startswith("cache: main is a build cache: ")
    assert head.split() == ["BLOB", "SIZE", "UNIQUE", "WHAT"]
    assert len(rows) == run(sample.box.top, "ls", "--json", "cache").value["tags"][0]["blobs"]


def test_a_tag_that_is_not_there(sample: Sample) -> None:
    answer = run(sample.box.top, "ls", "cache", "mian")
    assert (answer.code, answer.out) == (1, "")
    assert "did you mean 'main'?" in answer.err


def test_of_many_blobs_the_largest_are_shown(sample: Sample) -> None:
    layers = [sample.box.blob(b"x" * (n + 1000)) for n in range(30)]
    sample.box.tag("many", sample.box.manifest(layers, sample.box.document({}, IMAGE_CONFIG)))
    *rows, last = run(sample.box.top, "ls", "cache", "many").out.splitlines()
    assert len(rows) == 22
    assert last.startswith("and 12 more, ")
