"""health/repair.py: from a broken directory to a mended one, with its index and its notes."""

import json
import os

import pytest

import kitcache
from kitcache.oci.digest import parse_digest
from kitcache.store.open import open_store
from kitcache.store.state import read_tag_uses, record_use
from kitcache.upkeep.health.repair import repair
from tests.hostile.build import INDEX, MANIFEST, Box, Sample, encode
from tests.hostile.importable import Cached, grow
from tests.property.disk import snapshot
from tests.property.importer import see_tags
from tests.unit.upkeep.health.healthkit import copy_of, kinds, locked


def test_it_mends_and_says_what_is_left(box: Box, cut: Cached) -> None:
    done = repair(box.dir)
    assert (done.path, done.outcome, done.exit_code) == (str(box.dir), "done", 0)
    assert kinds(done) == [("rewrite-cache", "cut"), ("quarantine-blob", None)]
    assert {v.ref_name: v.importable for v in done.verification.tags} == {
        "whole": "full",
        "cut": "full",
    }
    # Nothing is swept: the old root is there until a reset.
    assert box.path_of(cut.root["digest"]).exists()


def test_a_dry_run_needs_no_lock_and_says_what_is_there_now(box: Box, cut: Cached) -> None:
    with locked(box.dir, "exclusive"):
        before = snapshot(box.dir)
        foreseen = repair(box.dir, dry_run=True)
        assert snapshot(box.dir) == before
    assert (foreseen.outcome, foreseen.exit_code) == ("dry-run", 12)
    assert kinds(foreseen) == [("rewrite-cache", "cut"), ("quarantine-blob", None)]


def test_a_wrong_size_in_the_index_is_corrected(box: Box) -> None:
    cached = grow(box, "main", 2)
    box.entries[0] = box.entries[0] | {"size": 1, "org.example.more": [1]}
    box.write_index(encode(box.index_document()))
    done = repair(box.dir)
    assert kinds(done) == [("move-tag", "main")]
    entry = json.loads((box.dir / "index.json").read_bytes())["manifests"][0]
    assert entry == box.entries[0] | {"size": cached.root["size"]}
    assert done.exit_code == 0


def test_an_index_of_yesterday_is_mended_by_the_notes(box: Box) -> None:
    old, yesterday = grow(box, "main", 2), encode(box.index_document())
    box.entries.clear()
    new = grow(box, "main", 3)
    with open_store(box.dir) as layout:
        record_use(layout, ["main"], "exported", 1, digests={"main": new.root["digest"]})
    for blob in (old.root, old.config):
        box.damage(blob["digest"], None)
    box.write_index(yesterday)
    done = repair(box.dir)
    assert kinds(done) == [("move-tag", "main")]
    assert see_tags(box.dir)["main"].digest == new.root["digest"]
    assert done.exit_code == 0


def test_a_tag_that_was_rewritten_keeps_its_name_when_the_index_is_lost(
    box: Box, cut: Cached
) -> None:
    """The note follows the root; one of another root is left alone."""
    with open_store(box.dir) as layout:
        digests = {"cut": cut.root["digest"], "whole": cut.config["digest"]}
        record_use(layout, digests, "exported", 1, digests=digests)
    repair(box.dir)
    tags = see_tags(box.dir)
    with open_store(box.dir) as layout:
        notes = read_tag_uses(layout)
    assert notes["cut"].digest == tags["cut"].digest != cut.root["digest"]
    assert (notes["cut"].exported_ns, notes["whole"].digest) == (1, cut.config["digest"])
    kitcache.reset(box.dir)
    (box.dir / "index.json").unlink()
    repair(box.dir)
    assert see_tags(box.dir)["cut"] == tags["cut"]


def test_a_lost_index_gets_its_names_from_the_notes(box: Box) -> None:
    named, nameless = grow(box, "main", 2), grow(box, "gone", 3)
    box.blob(b'{"manifests":[]', INDEX)
    (box.dir / "index.json").unlink()
    with open_store(box.dir) as layout:
        digests = {"main": named.root["digest"], "never": f"sha256:{'0' * 64}"}
        record_use(layout, digests, "exported", 1, digests=digests)
    done = repair(box.dir)
    short = parse_digest(nameless.root["digest"]).hex[:12]
    assert {tag: seen.digest for tag, seen in see_tags(box.dir).items()} == {
        "main": named.root["digest"],
        f"recovered-{short}": nameless.root["digest"],
    }
    assert done.exit_code == 0


def test_an_index_that_cannot_be_read_is_kept(box: Box) -> None:
    cached = grow(box)
    torn = (box.dir / "index.json").read_bytes()[:-1]
    box.write_index(torn)
    done = repair(box.dir)
    assert kinds(done) == [("rebuild-index", None), ("rebuild-index", "main")]
    assert see_tags(box.dir)["main"].digest == cached.root["digest"]
    assert (box.dir / ".kitcache/quarantine/index.json").read_bytes() == torn


def test_an_empty_store_without_an_index_is_nothing_to_mend(box: Box) -> None:
    assert repair(box.dir).actions == ()
    assert not (box.dir / "index.json").exists()


def test_a_bad_blob_in_the_way_of_a_new_root_is_put_aside_first(box: Box, cut: Cached) -> None:
    """What a repair writes may have the name of something bad that nobody reaches."""
    rehearsed = copy_of(box, "rehearsed")
    repair(rehearsed)
    (root,) = [seen.digest for tag, seen in see_tags(rehearsed).items() if tag == "cut"]
    box.path_of(root).write_bytes(b"in the way")
    done = repair(box.dir)
    assert done.exit_code == 0
    assert see_tags(box.dir) == see_tags(rehearsed)
    kept = {path.read_bytes() for path in (box.dir / ".kitcache/quarantine").iterdir()}
    assert kept == {b"bad", b"in the way"}


def test_a_directory_in_the_place_of_a_layer_makes_room(box: Box) -> None:
    """Left there it would be in the way of the next export, which is told that the blob is here."""
    cached = grow(box, "main", 2)
    path = box.path_of(cached.layers[1]["digest"])
    path.unlink()
    (path / "inside").mkdir(parents=True)
    done = repair(box.dir)
    assert kinds(done) == [("rewrite-cache", "main"), ("quarantine-blob", None)]
    assert done.exit_code == 0
    assert not path.exists()
    assert (box.dir / ".kitcache/quarantine" / f"sha256-{path.name}" / "inside").is_dir()


@pytest.mark.parametrize("target", ["nowhere", "../../../bystander"])
def test_a_link_to_no_such_layer_is_as_good_as_none(box: Box, target: str) -> None:
    cached = grow(box, "main", 2)
    path = box.path_of(cached.layers[1]["digest"])
    path.unlink()
    path.symlink_to(target)
    assert kinds(repair(box.dir, dry_run=True))[0] == ("rewrite-cache", "main")
    done = repair(box.dir)
    assert kinds(done) == [("rewrite-cache", "main"), ("quarantine-blob", None)]
    assert done.exit_code == 0
    # Left there it would be taken for the layer by the next export.
    assert not path.is_symlink()
    assert (box.dir / ".kitcache/quarantine" / f"sha256-{path.name}").is_symlink()
    assert (box.top / "bystander").read_text() == "a file beside"


@pytest.mark.parametrize("blob", ["root", "config"])
def test_no_tag_goes_for_a_link_that_may_lead_to_the_right_bytes(box: Box, blob: str) -> None:
    """BuildKit follows links. Not even where a layer is gone: nobody here knows what it names."""
    cached = grow(box, "main", 2)
    path = box.path_of((cached.root if blob == "root" else cached.config)["digest"])
    path.rename(box.top / "real")
    path.symlink_to(box.top / "real")
    box.damage(cached.layers[1]["digest"], None)
    before = snapshot(box.dir)
    done = repair(box.dir)
    assert (done.actions, done.exit_code) == ((), 12)
    assert {k: v for k, v in snapshot(box.dir).items() if k != "kitcache.lock"} == before
    (warning,) = done.verification.warnings
    assert (
        "is a symlink, which kitcache does not follow: replace the symlink by its file" in warning
    )


def test_an_image_that_lacks_more_than_is_in_doubt_goes(box: Box) -> None:
    """Kept, it would stop every reset for what no repair brings back."""
    doubtful, gone = (box.manifest([box.blob(name)]) for name in (b"a", b"b"))
    box.tag("app", box.index_of([doubtful, gone]))
    path = box.path_of(doubtful["digest"])
    path.rename(box.top / "real")
    path.symlink_to(box.top / "real")
    assert repair(box.dir).actions == ()
    box.damage(gone["digest"], None)
    assert kinds(repair(box.dir))[0] == ("remove-tag", "app")
    assert kitcache.reset(box.dir).outcome == "done"


def test_each_entry_of_a_tag_is_a_step(box: Box) -> None:
    root = grow(box, "main", 2).root
    box.tag("main", root)
    box.damage(root["digest"], None)
    foreseen = repair(box.dir, dry_run=True)
    assert kinds(foreseen) == kinds(repair(box.dir)) == [("remove-tag", "main")] * 2


def test_the_newest_root_without_a_name_is_first_and_said_to_be(sample: Sample) -> None:
    (sample.dir / "index.json").unlink()
    roots = {sample.dev["digest"]: 3_000, sample.main["digest"]: 2_000}
    for path in (sample.dir / "blobs" / "sha256").iterdir():
        os.utime(path, (1_000, 1_000))
    for root, second in roots.items():
        os.utime(sample.box.path_of(root), (second, second))
    done = repair(sample.dir)
    found = [step.description for step in done.actions if step.digest is not None]
    entries = json.loads((sample.dir / "index.json").read_bytes())["manifests"]
    assert [one["digest"] for one in entries][: len(found)][:1] == [sample.dev["digest"]]
    assert [what.endswith("; it is the newest of them") for what in found][:2] == [True, False]


def test_an_entry_that_cannot_be_parsed_is_removed(box: Box) -> None:
    grow(box)
    box.tag("odd", {"mediaType": MANIFEST, "digest": "nonsense", "size": 1})
    done = repair(box.dir)
    assert (kinds(done), done.exit_code) == ([("remove-tag", "odd")], 0)
