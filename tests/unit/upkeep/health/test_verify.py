"""health/verify.py: what is found in a directory, under the shared lock, and what is left alone."""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Busy, Cancelled, NotACache, Unsafe
from kitcache.gc.control import Control
from kitcache.gc.values import Tally
from kitcache.oci.digest import parse_digest
from kitcache.store.layout import open_layout
from kitcache.upkeep.answers import BadBlob, Verdict, Verified
from kitcache.upkeep.health import verify as module
from kitcache.upkeep.health.verify import verify, verify_held
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import IMAGE_CONFIG, MANIFEST, Box, encode
from tests.hostile.importable import Cached, add_cache, chain_of_steps, grow, layer


@pytest.fixture
def main(box: Box) -> Cached:
    """Three steps under the tag main."""
    return grow(box)


def words(found: Verified) -> list[tuple[str | None, str, str]]:
    return [(v.ref_name, v.kind, v.imports) for v in found.verdicts]


def only(found: Verified) -> Verdict:
    (verdict,) = found.verdicts
    return verdict


def flip(box: Box, digest: str, at: int = 5) -> None:
    data = bytearray(box.path_of(digest).read_bytes())
    data[at] ^= 1
    box.damage(digest, bytes(data))


@pytest.mark.parametrize("as_index", [False, True])
def test_a_sound_cache(box: Box, as_index: bool) -> None:
    cached = grow(box, as_index=as_index)
    box.blob(b"garbage")
    found = verify(box.dir)
    sizes = [path.stat().st_size for path in (box.dir / "blobs" / "sha256").iterdir()]
    digest = parse_digest(cached.root["digest"])
    assert found == Verified(
        path=str(box.dir),
        blobs=Tally(len(sizes), sum(sizes)),
        bad=(),
        index_problem="",
        verdicts=(Verdict(0, "main", digest, "cache", "fully", steps=3),),
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
    (bad,) = found.bad
    assert bad == BadBlob(parse_digest(top), bad.problem, main.layers[2]["size"])
    assert bad.problem.startswith("holds other bytes (sha256:")
    assert only(found).imports == "with-misses"
    (miss,) = only(found).misses
    assert (miss.key, miss.layers) == ((2, 0), (parse_digest(top),))
    assert miss.why == f"layer {parse_digest(top).short} {bad.problem}"
    assert found.exit_code == 12


def test_a_layer_that_is_cut_short_says_so(box: Box, main: Cached) -> None:
    """The manifest knows how long it was."""
    box.damage(main.layers[2]["digest"], b"layer")
    found = verify(box.dir)
    size = main.layers[2]["size"]
    assert [one.problem for one in found.bad] == [f"is cut short (5 of {size} bytes)"]
    assert only(found).misses[0].why.endswith(f"is cut short (5 of {size} bytes)")


def test_a_missing_layer_is_no_bad_blob(box: Box, main: Cached) -> None:
    box.damage(main.layers[1]["digest"], None)
    found = verify(box.dir)
    assert found.bad == ()
    assert (only(found).imports, len(only(found).misses)) == ("with-misses", 2)
    assert found.exit_code == 12


def test_a_missing_cacheconfig(box: Box, main: Cached) -> None:
    box.damage(main.config["digest"], None)
    verdict = only(verify(box.dir))
    short = parse_digest(main.config["digest"]).short
    assert (verdict.kind, verdict.imports) == ("cache", "not")
    assert verdict.why == f"its cacheconfig {short} is missing"


def test_a_bad_cacheconfig(box: Box, main: Cached) -> None:
    flip(box, main.config["digest"])
    found = verify(box.dir)
    assert only(found).imports == "not"
    assert only(found).why.startswith("its cacheconfig sha256:")
    assert len(found.bad) == 1


@pytest.mark.parametrize("how", ["missing", "torn", "flipped", "directory"])
def test_a_root_that_cannot_be_read(box: Box, main: Cached, how: str) -> None:
    grow(box, "dev", 2)
    digest = main.root["digest"]
    match how:
        case "missing":
            box.damage(digest, None)
        case "torn":
            box.damage(digest, b"{")
        case "flipped":
            flip(box, digest)
        case _:
            box.damage(digest, None)
            box.path_of(digest).mkdir()
    found = verify(box.dir)
    assert words(found) == [("main", "unknown", "not"), ("dev", "cache", "fully")]
    assert found.verdicts[0].why.startswith(f"manifest {parse_digest(digest).short} ")
    assert len(found.bad) == (how in ("torn", "flipped"))
    assert found.exit_code == 12


def test_bad_garbage_is_a_fault_too(box: Box, main: Cached) -> None:
    """Left there it would be taken for the blob that its name says."""
    blob = box.blob(b"nobody's")
    flip(box, blob["digest"])
    found = verify(box.dir)
    assert only(found).imports == "fully"
    assert [str(one.digest) for one in found.bad] == [blob["digest"]]
    assert found.exit_code == 12


def test_an_image_is_whole_or_not(box: Box) -> None:
    config = box.document({"os": "linux", "architecture": "amd64"}, IMAGE_CONFIG)
    blob = box.blob(b"rootfs")
    box.tag("app", box.manifest([blob], config))
    assert words(verify(box.dir)) == [("app", "image", "fully")]
    box.damage(blob["digest"], None)
    verdict = only(verify(box.dir))
    assert verdict.imports == "not"
    assert verdict.why == f"layer {parse_digest(blob['digest']).short} is missing"


def test_all_that_is_missing_of_an_image_is_counted(box: Box) -> None:
    config = box.document({"os": "linux"}, IMAGE_CONFIG)
    blobs = [box.blob(b"rootfs %d" % n) for n in range(5)]
    box.tag("app", box.manifest(blobs, config))
    for blob in blobs:
        box.damage(blob["digest"], None)
    assert only(verify(box.dir)).why.endswith(" is missing and 2 more")


def test_a_layer_whose_bytes_are_elsewhere_may_be_absent(box: Box) -> None:
    config = box.document({"os": "linux"}, IMAGE_CONFIG)
    blob = box.blob(b"foreign") | {"urls": ["https://example.com/layer"]}
    box.tag("app", box.manifest([blob], config))
    box.damage(blob["digest"], None)
    assert verify(box.dir).exit_code == 0


def test_an_artifact_whose_subject_is_absent(box: Box) -> None:
    empty = box.blob(b"{}", "application/vnd.oci.empty.v1+json")
    subject = box.document({"schemaVersion": 2, "layers": []}, MANIFEST)
    box.tag(None, box.manifest([], empty, subject=subject))
    box.damage(subject["digest"], None)
    found = verify(box.dir)
    assert words(found) == [(None, "artifact", "fully")]
    assert found.exit_code == 0


def test_a_subject_that_is_bad_is_no_fault_of_the_artifact(box: Box) -> None:
    """It is a bad blob; an artifact may do without its subject."""
    empty = box.blob(b"{}", "application/vnd.oci.empty.v1+json")
    subject = box.document({"schemaVersion": 2, "layers": []}, MANIFEST)
    box.tag(None, box.manifest([], empty, subject=subject))
    flip(box, subject["digest"], 20)
    found = verify(box.dir)
    assert words(found) == [(None, "artifact", "fully")]
    assert ([str(b.digest) for b in found.bad], found.damage) == ([subject["digest"]], ())
    assert found.exit_code == 12


def test_what_a_reset_would_refuse_for_and_no_verdict_names(box: Box) -> None:
    """A subject whose bytes are right and no manifest."""
    empty = box.blob(b"{}", "application/vnd.oci.empty.v1+json")
    subject = box.blob(b'{"layers": 7}', MANIFEST)
    box.tag(None, box.manifest([], empty, subject=subject))
    found = verify(box.dir)
    assert (found.bad, words(found)) == ((), [(None, "artifact", "fully")])
    assert [str(damage.chain[-1].digest) for damage in found.damage] == [subject["digest"]]
    assert found.exit_code == 12


def test_what_a_blob_of_unknown_kind_seems_to_name_is_nobodys_need(box: Box) -> None:
    blob = box.blob(b"hinted at")
    strange = box.document({"layers": [blob]}, "application/x.strange")
    box.tag("odd", box.manifest([strange], box.blob(b"{}", "application/x.config")))
    flip(box, blob["digest"])
    found = verify(box.dir)
    assert words(found) == [("odd", "artifact", "fully")]
    assert len(found.bad) == 1


def test_an_entry_that_is_malformed(box: Box, main: Cached) -> None:
    box.tag("odd", {"mediaType": MANIFEST, "digest": "sha256:12", "size": 4})
    found = verify(box.dir)
    assert words(found) == [("main", "cache", "fully"), ("odd", "unknown", "not")]
    assert found.verdicts[1].digest is None
    assert "is no digest" in found.verdicts[1].why


def test_the_lie_of_one_entry_is_not_the_other_ones(box: Box, main: Cached) -> None:
    box.tag("liar", main.root | {"size": main.root["size"] + 1})
    found = verify(box.dir)
    assert words(found) == [("main", "cache", "fully"), ("liar", "unknown", "not")]
    assert "is cut short" in found.verdicts[1].why


def test_a_layer_that_is_a_link_is_told_of(box: Box, main: Cached) -> None:
    """It may lead anywhere, so its bytes are not looked at; BuildKit would."""
    path = box.path_of(main.layers[2]["digest"])
    path.rename(box.top / "elsewhere")
    path.symlink_to(box.top / "elsewhere")
    found = verify(box.dir)
    short = parse_digest(main.layers[2]["digest"]).short
    assert found.warnings == (f"blob {short} is a link, which is not followed",)
    assert found.exit_code == 0


def test_a_directory_in_a_layers_place(box: Box, main: Cached) -> None:
    digest = main.layers[2]["digest"]
    box.damage(digest, None)
    box.path_of(digest).mkdir()
    (miss,) = only(verify(box.dir)).misses
    assert miss.why.endswith("is no regular file")


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
    assert verdict.imports == "not"
    assert "imports none above 1,048,576" in verdict.why


def test_a_manifest_that_is_two_things_at_once(box: Box) -> None:
    add_cache(box, "main", [layer(box, "0")], manifests=[])
    verdict = only(verify(box.dir))
    assert (verdict.kind, verdict.imports) == ("cache", "not")
    assert "a manifest and an index at once" in verdict.why


def test_a_manifest_with_a_field_twice(box: Box, main: Cached) -> None:
    """Go takes the last one; nobody should have to know."""
    data = box.path_of(main.root["digest"]).read_bytes()
    double = box.blob(data.replace(b'"layers"', b'"layers":[],"layers"', 1), MANIFEST)
    box.tag("double", double)
    found = verify(box.dir)
    assert words(found)[1] == ("double", "cache", "not")


BROKEN_INDEXES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "index.json is missing beside blobs"),
    "torn": (b'{"schemaVersion":2,"mani', "index.json cannot be relied upon: not JSON"),
    "empty": (b"", "index.json cannot be relied upon: not JSON"),
    "ambiguous": (b'{"manifests":[],"Manifests":[]}', "index.json cannot be relied upon"),
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
    assert (found.verdicts, found.blobs.blobs, len(found.bad)) == ((), 5, 1)
    assert found.exit_code == 12
    box.damage(main.layers[0]["digest"], None)
    assert verify(box.dir).exit_code == 12


def test_a_cache_without_tags_is_clean(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    found = verify(tmp_path)
    assert (found.blobs, found.verdicts, found.exit_code) == (Tally(), (), 0)


def test_what_is_raised(box: Box, main: Cached, tmp_path: Path) -> None:
    with pytest.raises(NotACache):
        verify(tmp_path / "nowhere")
    (box.dir / "blobs").rename(tmp_path / "pool")
    (box.dir / "blobs").symlink_to(tmp_path / "pool")
    with pytest.raises(Unsafe, match="blobs is a symbolic link"):
        verify(box.dir)


def test_a_reset_is_waited_for_and_an_export_is_not(box: Box, main: Cached) -> None:
    with (box.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match=r"kitcache\.lock is held by"):
            verify(box.dir, lock_timeout_s=0)
        fcntl.flock(file, fcntl.LOCK_SH)
        assert verify(box.dir, lock_timeout_s=0).exit_code == 0


def test_the_lock_is_held_while_blobs_are_hashed(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = module.rehash, []

    def try_to_lock(*words: Any) -> Any:
        with (box.dir / "kitcache.lock").open() as file:
            for kind in (fcntl.LOCK_SH, fcntl.LOCK_EX):
                try:
                    fcntl.flock(file, kind | fcntl.LOCK_NB)
                    tried.append("had")
                except BlockingIOError:
                    tried.append("busy")
        return real(*words)

    monkeypatch.setattr(module, "rehash", try_to_lock)
    verify(box.dir)
    assert tried == ["had", "busy"]


def test_without_a_lock_it_goes_on_and_says_so(box: Box, main: Cached) -> None:
    (box.dir / "kitcache.lock").mkdir()
    found = verify(box.dir)
    assert found.exit_code == 0
    (warning,) = found.warnings
    assert warning.startswith("not protected from a reset that runs meanwhile: kitcache.lock is")


def while_hashing(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    real = module.rehash

    def hash_and_do(*words: Any) -> Any:
        found = real(*words)
        do()
        return found

    monkeypatch.setattr(module, "rehash", hash_and_do)


def test_what_is_published_meanwhile_is_looked_at(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish() -> None:
        new = add_cache(box, "dev", [layer(box, "new")])
        flip(box, new.layers[0]["digest"])

    while_hashing(monkeypatch, publish)
    found = verify(box.dir)
    assert words(found) == [("main", "cache", "fully"), ("dev", "cache", "not")]
    assert len(found.bad) == 1


def test_what_was_bad_and_was_replaced_meanwhile_is_good(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = main.layers[0]["digest"]
    good = box.path_of(digest).read_bytes()
    flip(box, digest)

    def mend() -> None:
        box.damage(digest, good)
        box.tag("again", main.root)

    while_hashing(monkeypatch, mend)
    found = verify(box.dir)
    assert (found.exit_code, len(found.verdicts)) == (0, 2)


def test_an_index_that_is_lost_meanwhile(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_hashing(monkeypatch, (box.dir / "index.json").unlink)
    assert verify(box.dir).index_problem.startswith("index.json is missing")


def test_an_index_that_never_stops_changing(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = module.read_index, 0

    def change_and_read(*words: Any) -> Any:
        nonlocal count
        count += 1
        index = json.loads((box.dir / "index.json").read_bytes()) | {"n": count}
        (box.dir / "index.json").write_bytes(encode(index))
        return real(*words)

    monkeypatch.setattr(module, "read_index", change_and_read)
    found = verify(box.dir)
    assert found.warnings == ("index.json kept changing: the last one that was read is judged",)
    assert found.exit_code == 0


def test_a_reset_by_strangers_meanwhile_is_no_problem(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = box.blob(b"garbage")
    flip(box, blob["digest"])

    def sweep() -> None:
        box.damage(blob["digest"], None)
        box.tag("again", main.root)

    while_hashing(monkeypatch, sweep)
    assert verify(box.dir).bad == ()


def test_progress_is_told(box: Box, main: Cached) -> None:
    phases = []
    verify(box.dir, on_progress=lambda event: phases.append(getattr(event, "phase", "")))
    assert "verify" in phases


def test_held_takes_no_lock(box: Box, main: Cached) -> None:
    before = os.listdir(box.dir)
    with open_layout(box.dir) as layout:
        found = verify_held(layout, Control("cache", None, None))
    assert os.listdir(box.dir) == before
    assert found.exit_code == 0


def test_a_root_that_only_holds_caches_is_none(box: Box) -> None:
    """No build imports a cache by it."""
    cached = grow(box)
    box.tag("nested", box.index_of([cached.root]))
    found = verify(box.dir)
    assert words(found) == [("main", "cache", "fully"), ("nested", "artifact", "fully")]


def test_ctrl_c_is_noticed_between_two_tags(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("main", "dev"):
        add_cache(box, name, [layer(box, 0)])
    cancel, judged = Event(), []
    real = module.judge_cache

    def judge(*args: Any) -> Any:
        judged.append(args)
        cancel.set()
        return real(*args)

    monkeypatch.setattr(module, "judge_cache", judge)
    with pytest.raises(Cancelled):
        verify(box.dir, cancel=cancel)
    assert len(judged) == 1
