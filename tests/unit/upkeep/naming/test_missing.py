"""naming/holes.py: what stands against one root, also where another one was walked first."""

from kitcache.gc.control import Control
from kitcache.gc.survey import take_survey
from kitcache.gc.values import DamagedPath, MissingBlob
from kitcache.store.layout import Layout
from kitcache.upkeep.naming.missing import find_missing
from tests.hostile.build import Sample


def holes(layout: Layout, control: Control) -> list[list[str]]:
    survey = take_survey(layout, control)
    shown = []
    for root in survey.roots:
        found = find_missing(survey, root)
        shown.append(
            [f"{h.chain[-1].digest if isinstance(h, DamagedPath) else h.digest}" for h in found]
        )
        assert all(isinstance(hole, DamagedPath | MissingBlob) for hole in found)
    return shown


def test_a_whole_root_has_none(layout: Layout, control: Control) -> None:
    assert holes(layout, control) == [[], []]


def test_a_layer_is_a_hole_of_each_that_needs_it(
    sample: Sample, layout: Layout, control: Control
) -> None:
    shared, own = sample.layers[1]["digest"], sample.layers[2]["digest"]
    sample.box.damage(shared, None)
    sample.box.damage(own, b"")
    assert [set(found) for found in holes(layout, control)] == [{shared}, {shared, own}]


def test_damage_below_two_roots_is_of_both(
    sample: Sample, layout: Layout, control: Control
) -> None:
    """A survey tells it of the first one alone."""
    for n in range(2):
        sample.box.tag(f"index {n}", sample.box.index_of([sample.main, sample.dev], note=n))
    sample.box.damage(sample.dev["digest"], b"{")
    dev = sample.dev["digest"]
    assert holes(layout, control) == [[], [dev], [dev], [dev]]


def test_an_entry_that_cannot_be_read_is_its_own_hole_alone(
    sample: Sample, layout: Layout, control: Control
) -> None:
    for digest in ("sha256:x", "sha256:y"):
        sample.box.entries.append({"digest": digest, "size": 7})
    sample.box.tag("more", sample.main)
    survey = take_survey(layout, control)
    found = [find_missing(survey, root) for root in survey.roots]
    assert [len(one) for one in found] == [0, 0, 1, 1, 0]
    (hole,) = found[3]
    assert isinstance(hole, DamagedPath)
    assert "sha256:y" in hole.problem


def test_a_subject_may_be_absent_but_not_torn(
    sample: Sample, layout: Layout, control: Control
) -> None:
    subject = sample.box.manifest([sample.layers[0]], note=1)
    sample.box.tag("signature", sample.box.manifest([sample.layers[1]], subject=subject))
    sample.box.damage(subject["digest"], b"{")
    assert holes(layout, control) == [[], [], [subject["digest"]]]
    sample.box.damage(subject["digest"], None)
    assert holes(layout, control) == [[], [], []]
