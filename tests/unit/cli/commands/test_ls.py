"""kitcache ls: one DIR, a line a tag."""

from tests.hostile.build import IMAGE_CONFIG, Sample
from tests.hostile.command import run


def test_a_line_a_tag(sample: Sample) -> None:
    answer = run(sample.box.top, "ls", "cache")
    assert (answer.code, answer.err) == (0, "")
    head, main, dev, footnote = answer.out.splitlines()
    assert head.split() == ["TAG", "KIND", "AGE", "SIZE", "LAYERS", "MISSING", "PLATFORMS"]
    assert main.split()[:2] == ["main", "cache"]
    assert dev.split()[:2] == ["dev", "cache"]
    assert footnote.startswith("~ ")


def test_a_damaged_tag_is_listed_and_told(sample: Sample) -> None:
    sample.box.damage(sample.main["digest"], None)
    answer = run(sample.box.top, "ls", "cache")
    assert answer.code == 12
    assert "damaged" in answer.out.splitlines()[1]
    assert "tag 'main' cannot be read" in answer.err


def test_one_dir_only(sample: Sample) -> None:
    answer = run(sample.box.top, "ls", "cache", "cache")
    assert answer.code == 1
    assert answer.err.splitlines()[1:] == ["  next: ls takes one DIR; kitcache du takes several"]


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
