"""kitcache du: an answer for each DIR, and a warning where the picture is incomplete."""

from tests.hostile.build import Sample
from tests.hostile.command import run


def test_each_dir_has_its_figures(sample: Sample) -> None:
    answer = run(sample.box.top, "du", "cache", "nowhere", "./cache")
    assert answer.code == 10
    assert answer.out.count("  reclaimable     1.4 kB   42.2 %  4 blobs\n") == 2
    assert answer.err.startswith("kitcache: nowhere: not a cache")


def test_damage_is_told_and_the_figures_all_the_same(sample: Sample) -> None:
    sample.box.damage(sample.main["digest"], None)
    answer = run(sample.box.top, "du", "cache")
    assert answer.code == 12
    assert "  live " in answer.out
    first, second = answer.err.splitlines()
    assert first.startswith("kitcache: cache: tag 'main' cannot be read: manifest sha256:")
    assert second.endswith("sizes are incomplete, and a reset would refuse")
    value = run(sample.box.top, "du", "--json", "cache").value
    assert (value["exit_code"], value["damage"][0]["ref_name"]) == (12, "main")


def test_missing_layers_are_told(sample: Sample) -> None:
    sample.box.damage(sample.layers[1]["digest"], None)
    answer = run(sample.box.top, "du", "--quiet", "cache")
    assert (answer.code, answer.out) == (0, "")
    assert "1 blob missing or incomplete" in answer.err
