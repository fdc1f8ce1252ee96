"""What many entries name is read once and held once; what each of them says is still checked."""

from collections import Counter

import pytest

from kitcache.gc.control import Control
from kitcache.gc.du import du
from kitcache.gc.ls import ls
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Survey, Tally
from kitcache.oci.digest import Digest, parse_digest
from kitcache.store.layout import Layout
from kitcache.store.open import open_store
from tests.hostile.build import MANIFEST, Box, Json, Sample, digest_of

ABSENT: Json = {"mediaType": MANIFEST, "digest": digest_of(b"nowhere"), "size": 7}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[Digest]:
    """How often each blob is read."""
    counted: Counter[Digest] = Counter()
    real = Layout.read_blob

    def count(
        self: Layout, digest: Digest, size: int | None, *, unless_binary: bool = False
    ) -> bytes | None:
        counted[digest] += 1
        return real(self, digest, size, unless_binary=unless_binary)

    monkeypatch.setattr(Layout, "read_blob", count)
    return counted


def survey(box: Box) -> Survey:
    with open_store(box.dir) as layout:
        return take_survey(layout, Control("cache", None, None))


def test_a_manifest_under_many_media_types_is_read_once(
    sample: Sample, reads: Counter[Digest]
) -> None:
    before = survey(sample.box)
    reads.clear()
    for number in range(40):
        sample.box.tag(f"tag {number}", sample.main | {"mediaType": f"{MANIFEST}; v={number}"})
    found = survey(sample.box)
    assert set(reads.values()) == {1}
    assert len(found.links) == len(before.links) + 40
    assert (found.live, found.damage, found.missing_blobs) == (before.live, (), ())


def test_a_manifest_is_read_anew_as_another_kind(sample: Sample, reads: Counter[Digest]) -> None:
    """As a thing of unknown kind it is only looked into: what is found may differ."""
    sample.box.tag("odd", sample.main | {"mediaType": "application/x-odd"})
    survey(sample.box)
    assert reads[parse_digest(sample.main["digest"])] == 2


def test_a_wrong_size_is_damage_though_the_blob_was_proven(sample: Sample) -> None:
    size = sample.main["size"]
    sample.box.tag("liar", sample.main | {"mediaType": f"{MANIFEST}; v=2", "size": size + 1})
    (damage,) = survey(sample.box).damage
    assert (damage.root.ref_name, damage.kind) == ("liar", "wrong-size")


def test_what_was_a_hint_is_certain_once_a_tag_says_so(box: Box) -> None:
    """A layer of unknown kind only hints at a manifest; the same blob as a root names it."""
    bundle = box.document({"manifests": [ABSENT]}, "application/x-bundle")
    box.tag("main", box.manifest([bundle]))
    assert survey(box).damage == ()
    # One level down, so that it is met after the hint was.
    box.tag("dev", box.index_of([box.index_of([bundle])]))
    (damage,) = survey(box).damage
    assert damage.chain[-1].digest == parse_digest(ABSENT["digest"])


def test_equal_links_are_one_object(sample: Sample) -> None:
    links = [link for links in survey(sample.box).links.values() for link in links]
    assert len(set(map(id, links))) == len(set(links)) < len(links)


def test_tags_of_one_root_are_told_alike_and_read_once(
    sample: Sample, reads: Counter[Digest]
) -> None:
    alone = ls(sample.dir)
    once = reads.copy()
    reads.clear()
    for number in range(40):
        sample.box.tag(f"tag {number}", sample.main)
    found = ls(sample.dir)
    assert reads == once
    assert found.tags[:2] == alone.tags
    assert found.tags[2:] == tuple(
        alone.tags[0]._replace(ref_name=f"tag {number}") for number in range(40)
    )


def test_entries_of_one_root_share_all_of_it(sample: Sample) -> None:
    sample.box.tag("also", sample.main)
    main, dev, also = du(sample.dir).tags
    assert (main.ref_name, dev.ref_name, also.ref_name) == ("main", "dev", "also")
    assert main.unique == also.unique == Tally()
    assert main.shared == also.shared
    assert main.shared.blobs == 4
    assert dev.unique.blobs == 3
