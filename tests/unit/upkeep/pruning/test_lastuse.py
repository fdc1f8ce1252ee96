"""pruning/uses.py: when each tag was last used, by clocks that may lie."""

import os
import time

import pytest

from kitcache.gc.control import Control
from kitcache.gc.lastuse import last_use
from kitcache.gc.survey import take_survey
from kitcache.gc.values import UsedFrom
from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from kitcache.store.state import record_use
from kitcache.upkeep.pruning.decisions import TagFacts
from kitcache.upkeep.pruning.lastuse import read_uses
from tests.hostile.build import CACHECONFIG, Box, Json, encode

MINUTE_NS = 60 * 10**9
NOW_NS = 1_800_000_000 * 10**9
MADE_NS = 1_700_000_000 * 10**9


def facts(box: Box, now_ns: int = NOW_NS) -> list[TagFacts]:
    with open_store(box.dir) as layout:
        survey = take_survey(layout, Control("cache", None, None))
        return list(read_uses(layout, survey, now_ns))


def noted(box: Box, tag: str, how: str, at_ns: int) -> None:
    with open_store(box.dir) as layout:
        record_use(layout, [tag], "exported" if how == "export" else "imported", at_ns)


def dated(box: Box, *times_ns: int, name: bytes = b"layer") -> Json:
    """A cache with a result that was made at each of these times."""
    layer = box.blob(name)
    stamps = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t // 10**9)) for t in times_ns]
    records = [{"layers": [{"layer": 0, "createdAt": stamp}]} for stamp in stamps]
    config = {"layers": [{"blob": layer["digest"], "parent": -1}], "records": records}
    return box.manifest([layer], box.document(config, CACHECONFIG))


def written_ns(box: Box, what: Json) -> int:
    return os.stat(box.path_of(what["digest"])).st_mtime_ns


@pytest.mark.parametrize(
    ("uses", "expected"),
    [
        ([(5, "import"), (9, "export"), (7, "cacheconfig")], (9, "export")),
        ([(NOW_NS + MINUTE_NS, "export"), (5, "import")], (NOW_NS + MINUTE_NS, "export")),
        ([(NOW_NS + MINUTE_NS + 1, "export"), (5, "import")], (5, "import")),
        ([(NOW_NS + 2 * MINUTE_NS, "manifest")], (NOW_NS, "manifest")),
        ([(5, "export"), (5, "cacheconfig")], (5, "export")),
        ([], (NOW_NS, "unknown")),
    ],
)
def test_the_newest_counts_unless_it_is_ahead(
    uses: list[tuple[int, UsedFrom]], expected: tuple[int, UsedFrom]
) -> None:
    assert last_use(uses, NOW_NS) == expected


def test_without_a_note_the_newest_result_counts(box: Box) -> None:
    box.tag("main", dated(box, MADE_NS, MADE_NS - 10**12))
    (main,) = facts(box)
    assert (main.ref_name, main.used_ns, main.used_from) == ("main", MADE_NS, "cacheconfig")


def test_without_a_result_the_manifests_file_does(box: Box) -> None:
    root = box.manifest([box.blob(b"layer")])
    box.tag("main", root)
    (main,) = facts(box)
    assert (main.used_ns, main.used_from) == (written_ns(box, root), "manifest")


@pytest.mark.parametrize("how", ["export", "import"])
def test_a_newer_note_counts_and_an_older_one_does_not(box: Box, how: str) -> None:
    box.tag("main", dated(box, MADE_NS))
    noted(box, "main", how, MADE_NS - 1)
    assert facts(box)[0].used_from == "cacheconfig"
    noted(box, "main", how, MADE_NS + 1)
    assert (facts(box)[0].used_ns, facts(box)[0].used_from) == (MADE_NS + 1, how)
    noted(box, "other", how, MADE_NS + 2)
    assert facts(box)[0].used_ns == MADE_NS + 1


def test_a_note_from_the_future_is_passed_over(box: Box) -> None:
    box.tag("main", dated(box, MADE_NS))
    noted(box, "main", "export", NOW_NS + 10 * MINUTE_NS)
    assert (facts(box)[0].used_ns, facts(box)[0].used_from) == (MADE_NS, "cacheconfig")


def test_results_from_the_future_are_passed_over(box: Box) -> None:
    box.tag("some", dated(box, MADE_NS, NOW_NS + 10 * MINUTE_NS))
    all_ahead = dated(box, NOW_NS + 10 * MINUTE_NS, name=b"other")
    box.tag("all", all_ahead)
    some, every = facts(box)
    assert (some.used_ns, some.used_from) == (MADE_NS, "cacheconfig")
    assert (every.used_ns, every.used_from) == (written_ns(box, all_ahead), "manifest")


def test_where_the_clock_is_far_behind_all_counts_as_now(box: Box) -> None:
    box.tag("main", dated(box, MADE_NS))
    noted(box, "main", "export", MADE_NS)
    assert (facts(box, now_ns=10**9)[0].used_ns, facts(box, now_ns=10**9)[0].used_from) == (
        10**9,
        "export",
    )


def test_all_entries_of_a_tag_are_one_and_those_without_are_each_their_own(box: Box) -> None:
    new, old = dated(box, MADE_NS), dated(box, MADE_NS - 10**12, name=b"old")
    for name, root in (("main", old), (None, old), ("dev", old), (None, new), ("main", new)):
        box.tag(name, root)
    found = facts(box)
    assert [(f.ref_name, f.positions) for f in found] == [
        ("main", (0, 4)),
        (None, (1,)),
        ("dev", (2,)),
        (None, (3,)),
    ]
    assert found[0].used_ns == MADE_NS
    assert str(found[0].digest) == old["digest"]
    assert len(found[0].blobs) == 6
    assert found[1].blobs == found[2].blobs < found[0].blobs


def test_blobs_are_those_that_are_there_subjects_too_but_not_their_age(box: Box) -> None:
    subject = dated(box, MADE_NS)
    gone = box.blob(b"gone")
    artifact = box.manifest([gone], box.blob(b"{}", "text/plain"), subject=subject)
    box.tag("sbom", artifact)
    box.damage(gone["digest"], None)
    (sbom,) = facts(box)
    assert {str(d) for d in sbom.blobs} >= {artifact["digest"], subject["digest"]}
    assert gone["digest"] not in {str(d) for d in sbom.blobs}
    assert sbom.used_from == "manifest"


def test_the_subject_of_the_index_itself_holds_blobs_too(box: Box) -> None:
    root = dated(box, MADE_NS)
    box.tag("main", root)
    subject = dated(box, MADE_NS, name=b"subject")
    document = box.index_document() | {"subject": subject}
    box.write_index(encode(document))
    _, own = facts(box)
    assert (own.ref_name, own.positions, len(own.blobs)) == (None, (-1,), 3)


def test_no_tag_no_facts(box: Box) -> None:
    box.write_index(b'{"schemaVersion":2,"manifests":[]}')
    assert facts(box) == []


def test_the_layout_stays_open(layout: Layout) -> None:
    survey = take_survey(layout, Control("cache", None, None))
    assert len(read_uses(layout, survey, NOW_NS)) == 2
    assert layout.blobs
