"""health/verify.py: what is found in a directory at rest, and what is not held against it."""

from pathlib import Path

import pytest

from kitcache.errors import NotACache, Unsafe
from kitcache.gc.values import Tally
from kitcache.oci.digest import parse_digest
from kitcache.upkeep.health.verify import verify
from kitcache.upkeep.results import BadBlob, TagStatus, VerifyResult
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import IMAGE_CONFIG, MANIFEST, Box, Json, encode
from tests.hostile.importable import Cached, add_cache, chain_of_steps, grow, layer
from tests.unit.upkeep.health.healthkit import flip, only, words


@pytest.mark.parametrize("as_index", [False, True])
def test_a_sound_cache(box: Box, as_index: bool) -> None:
    cached = grow(box, as_index=as_index)
    box.blob(b"garbage")
    found = verify(box.dir)
    sizes = [path.stat().st_size for path in (box.dir / "blobs" / "sha256").iterdir()]
    digest = parse_digest(cached.root["digest"])
    assert found == VerifyResult(
        path=str(box.dir),
        blobs=Tally(len(sizes), sum(sizes)),
        bad_blobs=(),
        index_problem="",
        tags=(TagStatus(0, "main", digest, "cache", "full", steps=3),),
        damage=(),
        warnings=(),
        seconds=found.seconds,
    )
    assert found.exit_code == 0


def test_it_changes_nothing_but_the_lock_file(box: Box, main: Cached) -> None:
    before = take_snapshot(box.dir)
    verify(box.dir)
    assert differences(before, take_snapshot(box.dir)) == ["new: kitcache.lock"]


def test_a_flipped_bit_in_a_layer(box: Box, main: Cached) -> None:
    top = main.layers[2]["digest"]
    flip(box, top)
    found = verify(box.dir)
    (bad,) = found.bad_blobs
    assert bad == BadBlob(parse_digest(top), bad.problem, main.layers[2]["size"])
    assert bad.problem.startswith("holds other bytes (sha256:")
    assert only(found).importable == "partial"
    (miss,) = only(found).unusable_steps
    assert (miss.key, miss.layers) == ((2, 0), (parse_digest(top),))
    assert miss.reason == f"layer {parse_digest(top).short} {bad.problem}"
    assert found.exit_code == 12


def test_a_layer_that_is_cut_short_says_so(box: Box, main: Cached) -> None:
    """The manifest knows how long it was."""
    box.damage(main.layers[2]["digest"], b"layer")
    found = verify(box.dir)
    size = main.layers[2]["size"]
    assert [one.problem for one in found.bad_blobs] == [f"is truncated (5 of {size} bytes)"]
    assert only(found).unusable_steps[0].reason.endswith(f"is truncated (5 of {size} bytes)")


def test_a_missing_layer_is_no_bad_blob(box: Box, main: Cached) -> None:
    box.damage(main.layers[1]["digest"], None)
    found = verify(box.dir)
    assert found.bad_blobs == ()
    assert (only(found).importable, len(only(found).unusable_steps)) == ("partial", 2)
    assert found.exit_code == 12


def test_a_missing_cacheconfig(box: Box, main: Cached) -> None:
    box.damage(main.config["digest"], None)
    verdict = only(verify(box.dir))
    short = parse_digest(main.config["digest"]).short
    assert (verdict.kind, verdict.importable) == ("cache", "none")
    assert verdict.reason == f"its cacheconfig {short} is missing"


def test_a_bad_cacheconfig(box: Box, main: Cached) -> None:
    flip(box, main.config["digest"])
    found = verify(box.dir)
    assert only(found).importable == "none"
    assert only(found).reason.startswith("its cacheconfig sha256:")
    assert len(found.bad_blobs) == 1


@pytest.mark.parametrize("how", ["missing", "wrong-size", "flipped", "directory"])
def test_a_root_that_cannot_be_read(box: Box, main: Cached, how: str) -> None:
    grow(box, "dev", 2)
    digest = main.root["digest"]
    match how:
        case "missing":
            box.damage(digest, None)
        case "wrong-size":
            box.damage(digest, b"{")
        case "flipped":
            flip(box, digest)
        case _:
            box.damage(digest, None)
            box.path_of(digest).mkdir()
    found = verify(box.dir)
    assert words(found) == [("main", "unknown", "none"), ("dev", "cache", "full")]
    assert found.tags[0].reason.startswith(f"manifest {parse_digest(digest).short} ")
    assert len(found.bad_blobs) == (how != "missing")
    assert found.exit_code == 12


def test_bad_garbage_is_a_fault_too(box: Box, main: Cached) -> None:
    """Left there it would be taken for the blob that its name says."""
    blob = box.blob(b"nobody's")
    flip(box, blob["digest"])
    found = verify(box.dir)
    assert only(found).importable == "full"
    assert [str(one.digest) for one in found.bad_blobs] == [blob["digest"]]
    assert found.exit_code == 12


def add_image(box: Box, *blobs: Json) -> None:
    config = box.document({"os": "linux", "architecture": "amd64"}, IMAGE_CONFIG)
    box.tag("app", box.manifest(list(blobs), config))


def add_artifact(box: Box, subject: Json) -> None:
    empty = box.blob(b"{}", "application/vnd.oci.empty.v1+json")
    box.tag(None, box.manifest([], empty, subject=subject))


def test_an_image_is_whole_or_not(box: Box) -> None:
    blob = box.blob(b"rootfs")
    add_image(box, blob)
    assert words(verify(box.dir)) == [("app", "image", "full")]
    box.damage(blob["digest"], None)
    verdict = only(verify(box.dir))
    assert verdict.importable == "none"
    assert verdict.reason == f"layer {parse_digest(blob['digest']).short} is missing"


def test_all_that_is_missing_of_an_image_is_counted(box: Box) -> None:
    blobs = [box.blob(b"rootfs %d" % n) for n in range(5)]
    add_image(box, *blobs)
    for blob in blobs:
        box.damage(blob["digest"], None)
    assert only(verify(box.dir)).reason.endswith(" is missing and 2 more")


def test_a_layer_whose_bytes_are_elsewhere_may_be_absent(box: Box) -> None:
    blob = box.blob(b"foreign") | {"urls": ["https://example.com/layer"]}
    add_image(box, blob)
    box.damage(blob["digest"], None)
    assert verify(box.dir).exit_code == 0


def test_an_artifact_whose_subject_is_absent(box: Box) -> None:
    subject = box.document({"schemaVersion": 2, "layers": []}, MANIFEST)
    add_artifact(box, subject)
    box.damage(subject["digest"], None)
    found = verify(box.dir)
    assert words(found) == [(None, "artifact", "full")]
    assert found.exit_code == 0


def test_a_subject_that_is_bad_is_no_fault_of_the_artifact(box: Box) -> None:
    """It is a bad blob; an artifact may do without its subject."""
    subject = box.document({"schemaVersion": 2, "layers": []}, MANIFEST)
    add_artifact(box, subject)
    flip(box, subject["digest"], 20)
    found = verify(box.dir)
    assert words(found) == [(None, "artifact", "full")]
    assert ([str(b.digest) for b in found.bad_blobs], found.damage) == ([subject["digest"]], ())
    assert found.exit_code == 12


def test_what_a_reset_would_refuse_for_and_no_verdict_names(box: Box) -> None:
    """A subject whose bytes are right and no manifest."""
    subject = box.blob(b'{"layers": 7}', MANIFEST)
    add_artifact(box, subject)
    found = verify(box.dir)
    assert (found.bad_blobs, words(found)) == ((), [(None, "artifact", "full")])
    assert [str(damage.chain[-1].digest) for damage in found.damage] == [subject["digest"]]
    assert found.exit_code == 12


@pytest.mark.parametrize("subject", [{"digest": 7}, None])
def test_a_subject_of_the_index_itself_is_mended_by_hand(
    box: Box, main: Cached, subject: Json | None
) -> None:
    """It is no entry: a repair has nothing to take out, and a reset refuses."""
    if subject is None:
        subject = box.blob(b'{"layers": 7}', MANIFEST)
    box.write_index(encode(box.index_document() | {"subject": subject}))
    found = verify(box.dir)
    assert words(found) == [("main", "cache", "full")]
    assert [damage.root.position for damage in found.damage] == [-1]
    assert found.warnings == ("hint: remove the field 'subject' from index.json by hand",)
    assert found.exit_code == 12


def test_what_a_blob_of_unknown_kind_seems_to_name_is_nobodys_need(box: Box) -> None:
    blob = box.blob(b"hinted at")
    strange = box.document({"layers": [blob]}, "application/x.strange")
    box.tag("odd", box.manifest([strange], box.blob(b"{}", "application/x.config")))
    flip(box, blob["digest"])
    found = verify(box.dir)
    assert words(found) == [("odd", "artifact", "full")]
    assert len(found.bad_blobs) == 1


def test_an_entry_that_is_malformed(box: Box, main: Cached) -> None:
    box.tag("odd", {"mediaType": MANIFEST, "digest": "sha256:12", "size": 4})
    found = verify(box.dir)
    assert words(found) == [("main", "cache", "full"), ("odd", "unknown", "none")]
    assert found.tags[1].digest is None
    assert "is not a digest" in found.tags[1].reason


def test_the_lie_of_one_entry_is_not_the_other_ones(box: Box, main: Cached) -> None:
    box.tag("liar", main.root | {"size": main.root["size"] + 1})
    found = verify(box.dir)
    assert words(found) == [("main", "cache", "full"), ("liar", "unknown", "none")]
    assert "is truncated" in found.tags[1].reason


def test_a_layer_that_is_a_link_is_told_of(box: Box, main: Cached) -> None:
    """It may lead anywhere, so its bytes are not looked at; BuildKit would."""
    path = box.path_of(main.layers[2]["digest"])
    path.rename(box.top / "elsewhere")
    path.symlink_to(box.top / "elsewhere")
    found = verify(box.dir)
    short = parse_digest(main.layers[2]["digest"]).short
    told = f"blob {short} is a symlink, which kitcache does not follow:"
    told += " replace the symlink by its file"
    assert found.warnings == (told,)
    assert found.exit_code == 0


def test_a_layer_that_is_a_link_to_nothing_is_bad(box: Box, main: Cached) -> None:
    path = box.path_of(main.layers[2]["digest"])
    path.unlink()
    path.symlink_to("nowhere")
    found = verify(box.dir)
    assert [one.problem for one in found.bad_blobs] == ["is a symlink that leads to nothing"]
    assert only(found).unusable_steps[0].reason.endswith("is a symlink that leads to nothing")
    assert found.warnings == ()


def test_a_cacheconfig_near_the_cap_is_a_warning(box: Box) -> None:
    config = chain_of_steps([layer(box, "0")]) | {"pad": "x" * 900_000}
    add_cache(box, "main", [layer(box, "0")], config)
    found = verify(box.dir)
    assert found.exit_code == 0
    (warning,) = found.warnings
    assert warning.startswith("tag 'main': its cacheconfig has 900,")


def test_a_cacheconfig_above_the_cap(box: Box) -> None:
    config = chain_of_steps([layer(box, "0")]) | {"pad": "x" * 1_100_000}
    add_cache(box, "main", [layer(box, "0")], config)
    verdict = only(verify(box.dir))
    assert verdict.importable == "none"
    assert "imports at most 1,048,576" in verdict.reason


def test_a_manifest_that_is_two_things_at_once(box: Box) -> None:
    add_cache(box, "main", [layer(box, "0")], manifests=[])
    verdict = only(verify(box.dir))
    assert (verdict.kind, verdict.importable) == ("cache", "none")
    assert "a manifest and an index at once" in verdict.reason


def test_a_manifest_with_a_field_twice(box: Box, main: Cached) -> None:
    """Go takes the last one; nobody should have to know."""
    data = box.path_of(main.root["digest"]).read_bytes()
    double = box.blob(data.replace(b'"layers"', b'"layers":[],"layers"', 1), MANIFEST)
    box.tag("double", double)
    found = verify(box.dir)
    assert words(found)[1] == ("double", "cache", "none")


BROKEN_INDEXES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "index.json is missing but blobs/ is not empty"),
    "wrong-size": (b'{"schemaVersion":2,"mani', "index.json is invalid or ambiguous: not JSON"),
    "empty": (b"", "index.json is invalid or ambiguous: not JSON"),
    "ambiguous": (b'{"manifests":[],"Manifests":[]}', "index.json is invalid or ambiguous"),
}


@pytest.mark.parametrize("name", BROKEN_INDEXES)
def test_a_lost_index_is_a_finding_and_blobs_are_hashed(box: Box, main: Cached, name: str) -> None:
    data, says = BROKEN_INDEXES[name]
    if data is None:
        (box.dir / "index.json").unlink()
    else:
        box.write_index(data)
    flip(box, main.layers[0]["digest"])
    found = verify(box.dir)
    assert found.index_problem.startswith(says)
    assert (found.tags, found.blobs.blobs, len(found.bad_blobs)) == ((), 5, 1)
    assert found.exit_code == 12
    box.damage(main.layers[0]["digest"], None)
    assert verify(box.dir).exit_code == 12


def test_a_cache_without_tags_is_clean(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    found = verify(tmp_path)
    assert (found.blobs, found.tags, found.exit_code) == (Tally(), (), 0)


def test_what_is_raised(box: Box, main: Cached, tmp_path: Path) -> None:
    with pytest.raises(NotACache):
        verify(tmp_path / "nowhere")
    (box.dir / "blobs").rename(tmp_path / "pool")
    (box.dir / "blobs").symlink_to(tmp_path / "pool")
    with pytest.raises(Unsafe, match="blobs is a symbolic link"):
        verify(box.dir)


def test_a_root_that_only_holds_caches_is_none(box: Box) -> None:
    """No build imports a cache by it."""
    cached = grow(box)
    box.tag("nested", box.index_of([cached.root]))
    found = verify(box.dir)
    assert words(found) == [("main", "cache", "full"), ("nested", "artifact", "full")]
