"""kitcache ls: one DIR, a line a tag."""

from tests.hostile.build import Sample
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
    assert run(sample.box.top, "ls", "cache", "cache").code == 2
