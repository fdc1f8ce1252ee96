"""health/repair.py: blobs that come from copies, which are believed only once they are hashed."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from kitcache.errors import Busy, Cancelled, NotACache, UsageError
from kitcache.store.open import open_store
from kitcache.store.state import record_use
from kitcache.upkeep.health import repair as module
from kitcache.upkeep.health.repair import repair
from tests.hostile.build import MANIFEST, Box
from tests.hostile.importable import UNCOMPRESSED, Cached, add_cache, grow, layer
from tests.property.disk import blob_path, snapshot
from tests.property.importer import see_tags
from tests.unit.upkeep.health.healthkit import copy_of, kinds, locked


def test_what_is_no_cache_is_no_source(box: Box, cut: Cached, tmp_path: Path) -> None:
    with pytest.raises(NotACache):
        repair(box.dir, sources=[tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="is the cache that is to be repaired"):
        repair(box.dir, sources=[f"{box.dir}/."])


def test_a_copy_is_read_under_its_lock_and_not_changed(box: Box, cut: Cached) -> None:
    good = b"layer cut " * 30
    copy = copy_of(box)
    path = blob_path(copy, cut.layers[1]["digest"])
    path.unlink()
    path.write_bytes(good)
    with locked(copy, "exclusive"), pytest.raises(Busy):
        repair(box.dir, sources=[copy], lock_timeout_s=0.0)
    before = snapshot(copy)
    done = repair(box.dir, sources=[copy])
    assert kinds(done) == [("copy-blob", None), ("quarantine-blob", None)]
    assert snapshot(copy) == before
    assert see_tags(box.dir)["cut"].digest == cut.root["digest"]
    (bad,) = (box.dir / ".kitcache/quarantine").iterdir()
    assert bad.read_bytes() == b"bad"


def test_a_dry_run_makes_no_lock_in_a_copy(box: Box, cut: Cached) -> None:
    copy = copy_of(box)
    foreseen = repair(box.dir, sources=str(copy), dry_run=True)
    assert kinds(foreseen) == [("rewrite-cache", "cut"), ("quarantine-blob", None)]
    names = {"blobs", "index.json", "ingest", "oci-layout"}
    assert {path.name for path in (*copy.iterdir(), *box.dir.iterdir())} == names


def test_a_cancel_ends_the_wait_for_a_copy(box: Box, cut: Cached) -> None:
    copy, cancel = copy_of(box), Event()
    with locked(copy, "exclusive"), pytest.raises(Cancelled):
        repair(box.dir, sources=[copy], on_progress=lambda _: cancel.set(), cancel=cancel)


def test_a_damaged_copy_is_passed_over_for_the_next(box: Box, cut: Cached) -> None:
    """Of the first the layer has the right length and wrong bytes, which only hashing shows."""
    good = b"layer cut " * 30
    for name, data in (("lying", good[:-1] + b"?"), ("honest", good)):
        path = blob_path(copy_of(box, name), cut.layers[1]["digest"])
        path.unlink()
        path.write_bytes(data)
    sources = [box.top / "lying", box.top / "honest"]
    done = repair(box.dir, sources=sources)
    assert kinds(done) == [("copy-blob", None), ("quarantine-blob", None)]
    assert str(sources[1]) in done.actions[0].description


@pytest.mark.parametrize("is_link", [False, True])
def test_a_copy_that_is_damaged_meanwhile_is_not_believed(
    box: Box, monkeypatch: pytest.MonkeyPatch, is_link: bool
) -> None:
    """After it was hashed, and too large to be hashed for a link as a matter of course.

    is_link: here a link to something else is in the blob's place.
    """
    large = box.blob(b"x" * 2_000_000) | {"annotations": {UNCOMPRESSED: f"sha256:{'0' * 64}"}}
    add_cache(box, "main", [layer(box, "0"), large])
    copy = copy_of(box)
    box.damage(large["digest"], None)
    if is_link:
        box.path_of(large["digest"]).symlink_to(box.top / "bystander")
    real = module.copy_blob

    def spoiled(*args: Any, **more: Any) -> Any:
        path = blob_path(copy, large["digest"])
        path.chmod(0o644)
        path.write_bytes(b"y" * 2_000_000)
        return real(*args, **more)

    monkeypatch.setattr(module, "copy_blob", spoiled)
    done = repair(box.dir, sources=[copy])
    aside = [("quarantine-blob", None)] if is_link else []
    assert kinds(done) == [("rewrite-cache", "main"), *aside]
    assert done.exit_code == 0


def test_a_root_that_only_a_note_and_a_copy_know_comes_back(box: Box) -> None:
    cached = grow(box, "main", 2)
    copy = copy_of(box)
    (copy / "index.json").write_bytes(b'{"manifests":[]}')
    box.damage(cached.root["digest"], None)
    (box.dir / "index.json").unlink()
    with open_store(box.dir) as layout:
        record_use(layout, ["main"], "exported", 1, digests={"main": cached.root["digest"]})
    done = repair(box.dir, sources=[copy])
    assert kinds(done) == [("copy-blob", None), ("rebuild-index", None), ("rebuild-index", "main")]
    assert see_tags(box.dir)["main"].digest == cached.root["digest"]


def test_a_copy_that_is_hard_linked_shares_the_damage(box: Box, cut: Cached) -> None:
    copy = box.top / "copy"
    shutil.copytree(box.dir, copy, copy_function=os.link)
    done = repair(box.dir, sources=[copy])
    assert kinds(done) == [("rewrite-cache", "cut"), ("quarantine-blob", None)]
    # What is put aside here is where it was there.
    assert blob_path(copy, cut.layers[1]["digest"]).read_bytes() == b"bad"


def test_a_tag_whose_root_is_gone_comes_whole_from_a_copy(box: Box) -> None:
    """Root, cacheconfig and a layer: what a root reaches is known once the root is had."""
    cached = grow(box, "main", 3)
    copy = copy_of(box)
    for blob in (cached.root, cached.config, cached.layers[1]):
        box.damage(blob["digest"], None)
    done = repair(box.dir, sources=[copy])
    assert kinds(done) == [("copy-blob", None)] * 3
    assert see_tags(box.dir) == see_tags(copy)


def test_nothing_comes_from_a_copy_that_nobody_needs(box: Box) -> None:
    grow(box, "main", 2)
    copy = copy_of(box)
    shutil.rmtree(box.dir)
    os.rename(copy, box.dir)
    other = Box(box.top / "other")
    grow(other, "extra", 9)
    assert repair(box.dir, sources=[other.dir]).actions == ()


@pytest.mark.parametrize("blob", ["root", "config", "layer"])
@pytest.mark.parametrize("thing", ["directory", "full directory", "pipe", "link", "dangling link"])
def test_what_is_no_file_here_comes_as_one_from_a_copy(box: Box, thing: str, blob: str) -> None:
    cached = grow(box, "main", 2)
    copy = copy_of(box)
    place = {"root": cached.root, "config": cached.config, "layer": cached.layers[1]}[blob]
    path = box.path_of(place["digest"])
    path.rename(box.top / "real")
    match thing:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "full directory":
            (path / "x").mkdir(parents=True)
        case "link":
            path.symlink_to(box.top / "real")
        case "dangling link":
            path.symlink_to("nowhere")
    # Else a link to the right layer is nothing that has to be mended.
    box.damage(box.blob(b"nobody's")["digest"], b"bad")
    done = repair(box.dir, sources=[copy])
    links = {"link": "is a symlink", "dangling link": "is a symlink that leads to nothing"}
    told = links.get(thing, "is not a regular file")
    assert done.actions[0].kind == "copy-blob"
    assert done.actions[0].description.endswith(f"from {copy}: here it {told}")
    assert done.exit_code == 0
    assert see_tags(box.dir) == see_tags(copy)
    assert path.is_file()
    assert not path.is_symlink()


def test_what_is_a_link_here_and_a_file_in_a_copy_is_in_doubt_no_more(box: Box) -> None:
    cached = grow(box, "main", 2)
    box.tag("wrong", cached.config | {"mediaType": MANIFEST})
    copy = copy_of(box)
    path = box.path_of(cached.config["digest"])
    path.rename(box.top / "real")
    path.symlink_to(box.top / "real")
    done = repair(box.dir, sources=[copy])
    assert kinds(done) == [("copy-blob", None), ("remove-tag", "wrong")]
    assert done.exit_code == 0


def test_two_that_are_repaired_from_each_other_do_not_wait_for_each_other(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = grow(box, "main", 2)
    copy = copy_of(box)
    box.damage(cached.layers[0]["digest"], None)
    blob_path(copy, cached.layers[1]["digest"]).unlink()
    real, both, calls = module.verify_locked, Barrier(2), []

    def together(*args: Any, **more: Any) -> Any:
        calls.append(args)
        if len(calls) <= 2:
            both.wait(10)
        return real(*args, **more)

    monkeypatch.setattr(module, "verify_locked", together)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(repair, box.dir, sources=[copy], lock_timeout_s=5.0)
        other = pool.submit(repair, copy, sources=[box.dir], lock_timeout_s=5.0)
        assert (one.result().exit_code, other.result().exit_code) == (0, 0)
    assert see_tags(box.dir) == see_tags(copy)
