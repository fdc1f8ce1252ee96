"""gc/explain.py: du's figures and why's answers."""

import os
from pathlib import Path
from threading import Event

import pytest

from kitcache.errors import Cancelled, Damaged, NotFound, UsageError
from kitcache.gc.du import du
from kitcache.gc.reset import reset
from kitcache.gc.values import Tally
from kitcache.gc.why import MAX_PATHS, why
from kitcache.oci.digest import parse_digest
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import Box, Json, Sample, encode


def sizes(sample: Sample, *descriptors: Json) -> int:
    return sum(sample.box.path_of(d["digest"]).stat().st_size for d in descriptors)


def test_every_byte_has_its_place(sample: Sample) -> None:
    sample.box.ingest("a", data=b"half a blob")
    (sample.dir / "notes").write_bytes(b"x" * 1000)
    before = take_snapshot(sample.box.top)
    usage = du(sample.dir)
    assert differences(before, take_snapshot(sample.box.top)) == []
    folder = sample.dir / "blobs" / "sha256"
    live = sum((folder / name).stat().st_size for name in sample.live)
    garbage = sum((folder / name).stat().st_size for name in sample.garbage)
    assert usage.path == str(sample.dir)
    assert usage.live == Tally(7, live)
    assert usage.reclaimable == Tally(4, garbage)
    assert usage.ingest == Tally(1, 15)
    assert usage.foreign == Tally(1, 1000)
    assert (usage.missing_blobs, usage.damage, usage.exit_code) == ((), (), 0)


def test_reclaimable_is_what_a_reset_removes(sample: Sample) -> None:
    usage = du(sample.dir)
    assert reset(sample.dir).deleted == usage.reclaimable
    assert du(sample.dir).reclaimable == Tally()


def test_a_tags_share(sample: Sample) -> None:
    main, dev = du(sample.dir).tags
    shared = Tally(1, sizes(sample, sample.layers[1]))
    assert (main.ref_name, dev.ref_name) == ("main", "dev")
    assert (main.shared, dev.shared) == (shared, shared)
    config = sample.box.cacheconfig(list(sample.layers[:2]))
    assert main.unique == Tally(3, sizes(sample, sample.main, config, sample.layers[0]))
    assert main.digest == parse_digest(sample.main["digest"])


def test_two_tags_of_one_manifest_share_it_all(sample: Sample) -> None:
    sample.box.tag("again", sample.main)
    main, _, again = du(sample.dir).tags
    assert main.unique == again.unique == Tally()
    assert main.shared.blobs == 4


def test_unique_and_shared_weigh_what_is_there(sample: Sample) -> None:
    sample.box.damage(sample.layers[0]["digest"], None)
    usage = du(sample.dir)
    assert usage.tags[0].unique.blobs == 2
    assert [str(leaf.digest) for leaf in usage.missing_blobs] == [sample.layers[0]["digest"]]
    assert usage.exit_code == 0


def test_damage_makes_the_picture_incomplete(sample: Sample) -> None:
    sample.box.damage(sample.main["digest"], b"{")
    usage = du(sample.dir)
    assert usage.exit_code == 12
    assert [damage.root.ref_name for damage in usage.damage] == ["main"]
    assert usage.live.blobs == 5, "dev's four blobs, and the torn one itself"
    assert usage.tags[1].unique.blobs == 4


def test_an_entry_that_cannot_be_read_has_no_share(box: Box) -> None:
    box.write_index(encode({"manifests": ["main"]}))
    (share,) = du(box.dir).tags
    assert share == (None, None, Tally(), Tally())


def test_no_index_no_answer(sample: Sample) -> None:
    (sample.dir / "index.json").unlink()
    for ask in (lambda: du(sample.dir), lambda: why(sample.dir, min(sample.live))):
        with pytest.raises(Damaged, match=r"index.json is missing but blobs"):
            ask()


def test_a_question_can_be_cancelled(sample: Sample) -> None:
    cancel = Event()
    cancel.set()
    with pytest.raises(Cancelled):
        du(sample.dir, cancel=cancel)
    with pytest.raises(Cancelled):
        why(sample.dir, min(sample.live), cancel=cancel)


def test_each_path_to_a_shared_blob(sample: Sample) -> None:
    digest = sample.layers[1]["digest"]
    path = sample.box.path_of(digest)
    os.utime(path, ns=(0, 5_000_000_001))
    answer = why(sample.dir, digest)
    assert (str(answer.digest), answer.size) == (digest, path.stat().st_size)
    assert answer.written_ns == 5_000_000_001
    direct = {
        (p.root.ref_name, tuple(str(link.descriptor.digest) for link in p.links))
        for p in answer.paths
        if len(p.links) == 2
    }
    assert direct == {
        ("main", (sample.main["digest"], digest)),
        ("dev", (sample.dev["digest"], digest)),
    }
    through_configs = [p for p in answer.paths if len(p.links) == 3]
    assert [p.links[1].role for p in through_configs] == ["config", "config"]
    assert (answer.is_unreachable, answer.has_more_paths) == (False, False)


def test_garbage_has_no_path(sample: Sample) -> None:
    answer = why(sample.dir, min(sample.garbage))
    assert (answer.is_unreachable, answer.paths) == (True, ())
    assert answer.size is not None


def test_a_missing_blob_that_a_tag_names(sample: Sample) -> None:
    sample.box.damage(sample.layers[0]["digest"], None)
    answer = why(sample.dir, sample.layers[0]["digest"])
    assert (answer.size, answer.written_ns) == (None, None)
    assert {path.root.ref_name for path in answer.paths} == {"main"}


def test_a_root_is_a_path_to_itself(sample: Sample) -> None:
    (path,) = why(sample.dir, sample.main["digest"]).paths
    assert [str(link.descriptor.digest) for link in path.links] == [sample.main["digest"]]


@pytest.mark.parametrize("form", ["digest", "hex", "prefix", "long prefix", "path", "other path"])
def test_a_blob_is_named_in_many_forms(sample: Sample, form: str) -> None:
    digest = sample.main["digest"]
    name = digest.partition(":")[2]
    forms = {
        "digest": digest,
        "hex": name,
        "prefix": name[:8],
        "long prefix": f"sha256:{name[:8]}",
        "path": str(sample.box.path_of(digest)),
        "other path": f"blobs/sha256/{name}",
    }
    assert str(why(sample.dir, forms[form]).digest) == digest


@pytest.mark.parametrize("text", ["", "abc", "xyzw", "ABCD", "sha256:", "sha256:ab", "a/b", ":"])
def test_what_names_no_blob(sample: Sample, text: str) -> None:
    with pytest.raises(UsageError, match="is not a digest, a prefix of one"):
        why(sample.dir, text)


@pytest.mark.parametrize("text", ["0" * 64, "sha256:" + "0" * 64, "00000000", "sha512:0000"])
def test_a_blob_that_nobody_knows(sample: Sample, text: str) -> None:
    with pytest.raises(NotFound, match="no blob matches"):
        why(sample.dir, text)


def test_a_beginning_of_several_blobs_names_them(box: Box) -> None:
    box.write_index(encode({"manifests": []}))
    for n in range(12):
        (box.dir / "blobs" / "sha256" / f"{n:02d}".rjust(64, "a")).touch()
    with pytest.raises(UsageError, match="12 blobs have digests that begin with 'aaaa'") as caught:
        why(box.dir, "aaaa")
    assert f"sha256:{'00'.rjust(64, 'a')}, " in str(caught.value)
    assert str(caught.value).count("sha256:") == 10
    assert ", …" in str(caught.value)


def test_the_algorithm_tells_two_beginnings_apart(box: Box) -> None:
    (box.dir / "blobs" / "sha512").mkdir()
    (box.dir / "blobs" / "sha512" / ("a" * 128)).touch()
    (box.dir / "blobs" / "sha256" / ("a" * 64)).touch()
    box.write_index(encode({"manifests": []}))
    assert str(why(box.dir, "sha512:aaaa").digest) == "sha512:" + "a" * 128
    with pytest.raises(UsageError, match="2 blobs have digests that begin"):
        why(box.dir, "aaaa")


def test_a_hundred_paths_are_shown(box: Box) -> None:
    layer = box.blob(b"layer")
    for n in range(MAX_PATHS + 1):
        config = box.blob(b"config %d" % n)
        manifest = box.manifest([layer], config)
        box.entries.append(manifest)
    box.tag("last", manifest)
    answer = why(box.dir, layer["digest"])
    assert (len(answer.paths), answer.has_more_paths) == (MAX_PATHS, True)


def test_with_damage_garbage_is_not_certain(sample: Sample) -> None:
    sample.box.damage(sample.main["digest"], None)
    answer = why(sample.dir, sample.layers[0]["digest"])
    assert answer.is_unreachable
    assert [damage.root.ref_name for damage in answer.damage] == ["main"]


def test_a_path_is_answered_by_its_names_alone(sample: Sample, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other" / "sha256" / sample.main["digest"].partition(":")[2]
    assert str(why(sample.dir, str(elsewhere)).digest) == sample.main["digest"]


def test_a_lattice_that_leads_back_to_its_top_is_answered(box: Box) -> None:
    """2^28 ways lead from the top to its last level, which is a link to the top."""
    layer, link = (
        box.blob(b"layer"),
        {"mediaType": "odd", "digest": f"sha256:{'c' * 64}", "size": 3},
    )
    row = [box.manifest([link], number=n) for n in range(2)]
    for level in range(28):
        row = [box.index_of(row, level=level, number=n) for n in range(2)]
    top = box.index_of([box.manifest([layer]), *row])
    box.path_of(link["digest"]).symlink_to(box.path_of(top["digest"]).name)
    box.tag("main", top)
    answer = why(box.dir, layer["digest"])
    ways = [[str(link.descriptor.digest) for link in path.links] for path in answer.paths]
    assert sorted(map(len, ways)) == [3, 4], "straight, and by way of the cacheconfig"
    assert {(way[0], way[-1]) for way in ways} == {(top["digest"], layer["digest"])}
    assert not answer.has_more_paths
