"""naming/tag.py: a further name for what is whole, in one step, and nothing else."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kitcache.errors import Busy, Damaged, KitcacheError, NotACache, NotFound, UsageError
from kitcache.store.directory import DirectoryStore
from kitcache.store.open import open_store
from kitcache.store.state import read_tag_uses, record_use, write_tag_uses
from kitcache.store.values import TagUse
from kitcache.upkeep.naming.tag import tag
from kitcache.upkeep.results import TagResult
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import REF_NAME, Json, Sample, encode

IMAGE_NAME = "io.containerd.image.name"


def items(sample: Sample) -> list[Any]:
    return list(json.loads((sample.dir / "index.json").read_bytes())["manifests"])


def tags(sample: Sample) -> list[tuple[str | None, str]]:
    return [(i.get("annotations", {}).get(REF_NAME), i["digest"]) for i in items(sample)]


def notes_of(cache: Path) -> dict[str, TagUse]:
    with open_store(cache) as layout:
        return dict(read_tag_uses(layout))


def test_a_new_name_comes_last_and_the_old_one_stays(sample: Sample) -> None:
    main, dev = sample.main["digest"], sample.dev["digest"]
    before = sorted(os.listdir(sample.dir / "blobs" / "sha256"))
    done = tag(sample.dir, "main", "release")
    assert done == TagResult(str(sample.dir), "done", "main", "release", main, ())
    assert tags(sample) == [("main", main), ("dev", dev), ("release", main)]
    assert sorted(os.listdir(sample.dir / "blobs" / "sha256")) == before


def test_a_name_that_is_there_moves_and_it_is_told_from_where(sample: Sample) -> None:
    main, dev = sample.main["digest"], sample.dev["digest"]
    done = tag(sample.dir, "main", "dev")
    assert (done.outcome, done.digest, done.previous_digests) == ("done", main, (dev,))
    assert tags(sample) == [("main", main), ("dev", main)]


def test_a_digest_names_an_entry_too(sample: Sample) -> None:
    sample.box.entries.clear()
    sample.box.tag(None, sample.main)
    sample.box.tag("dev", sample.dev)
    done = tag(sample.dir, sample.main["digest"], "rescued")
    assert done.digest == sample.main["digest"]
    assert ("rescued", sample.main["digest"]) in tags(sample)


def test_all_that_the_old_entry_has_comes_along_and_unknown_fields_stay(sample: Sample) -> None:
    rich: Json = sample.main | {
        "platform": {"os": "linux", "architecture": "arm64"},
        "x-acme": [1, {"deep": None}],
        "annotations": {REF_NAME: "rich", "acme.note": "kept"},
    }
    sample.box.entries.append(rich)
    sample.box.write_index(encode({**sample.box.index_document(), "x-top": 7}))
    tag(sample.dir, "rich", "copy")
    assert items(sample)[-2] == rich
    assert items(sample)[-1] == rich | {"annotations": {REF_NAME: "copy", "acme.note": "kept"}}
    assert json.loads((sample.dir / "index.json").read_bytes())["x-top"] == 7


def test_several_entries_of_the_new_name_all_give_way(sample: Sample) -> None:
    sample.box.tag("twin", sample.dev)
    sample.box.tag("twin", sample.main)
    done = tag(sample.dir, "main", "twin")
    assert done.previous_digests == (sample.dev["digest"],)
    assert [t for t in tags(sample) if t[0] == "twin"] == [("twin", sample.main["digest"])]


@pytest.mark.parametrize("new", ["main", "again"])
def test_what_is_so_already_is_told_and_changes_nothing(sample: Sample, new: str) -> None:
    sample.box.tag("again", sample.main)
    tag(sample.dir, "dev", "other")  # the lock files are there
    before = take_snapshot(sample.dir)
    done = tag(sample.dir, "main", new)
    assert (done.outcome, done.digest, done.previous_digests) == (
        "unchanged",
        sample.main["digest"],
        (),
    )
    assert differences(before, take_snapshot(sample.dir)) == []


def test_a_dry_run_says_it_and_takes_no_lock(sample: Sample) -> None:
    with (sample.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = take_snapshot(sample.dir)
        dry = tag(sample.dir, "main", "dev", dry_run=True)
        assert differences(before, take_snapshot(sample.dir)) == []
    assert (dry.outcome, dry.previous_digests) == ("dry-run", (sample.dev["digest"],))
    assert tag(sample.dir, "main", "dev") == dry._replace(outcome="done")


def test_what_is_not_there_is_told_with_what_was_meant(sample: Sample) -> None:
    before = take_snapshot(sample.dir / "index.json")
    for dry_run in (True, False):
        with pytest.raises(NotFound, match="has the tag or digest 'mian'") as caught:
            tag(sample.dir, "mian", "new", dry_run=dry_run)
        assert caught.value.effect == "nothing was changed"
        assert caught.value.hints[0] == "did you mean 'main'?"
    with pytest.raises(NotFound) as far:
        tag(sample.dir, "quite another", "new")
    assert far.value.hints == ("list the tags with full digests",)
    assert take_snapshot(sample.dir / "index.json") == before


@pytest.mark.parametrize("new", ["", "a\nb", "\x1b[31m", "\udcff", "sha256:" + "a" * 64])
def test_what_is_no_name_is_refused(sample: Sample, new: str) -> None:
    before = take_snapshot(sample.dir)
    with pytest.raises(UsageError, match=r"tag"):
        tag(sample.dir, "main", new)
    assert differences(before, take_snapshot(sample.dir)) == []


def test_a_name_of_several_things_is_refused(sample: Sample) -> None:
    sample.box.tag("twin", sample.dev)
    sample.box.tag("twin", sample.main)
    with pytest.raises(UsageError, match="'twin' names 2 digests") as caught:
        tag(sample.dir, "twin", "new")
    assert caught.value.details == (sample.dev["digest"], sample.main["digest"])
    assert tag(sample.dir, sample.dev["digest"], "new").digest == sample.dev["digest"]


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
@pytest.mark.parametrize("how", [None, b"", b"other bytes"])
def test_what_is_not_whole_gets_no_name(sample: Sample, part: str, how: bytes | None) -> None:
    """A cacheconfig that is torn is only told of by a reset; here it is a hole."""
    manifest = json.loads(sample.box.path_of(sample.main["digest"]).read_bytes())
    digest = {
        "manifest": sample.main["digest"],
        "config": manifest["config"]["digest"],
        "layer": sample.layers[0]["digest"],
    }[part]
    sample.box.damage(digest, how)
    before = take_snapshot(sample.dir / "index.json")
    for dry_run in (True, False):
        with pytest.raises(Damaged, match="tag 'main' is not complete: ") as caught:
            tag(sample.dir, "main", "new", dry_run=dry_run)
        assert (caught.value.tag, caught.value.effect) == ("main", "nothing was changed")
        assert caught.value.chain[-1].startswith(digest)
        assert caught.value.hints[0] == f"kitcache verify {sample.dir} --repair"
    assert take_snapshot(sample.dir / "index.json") == before
    assert tag(sample.dir, "dev", "new").outcome == "done"


def test_a_subject_that_is_absent_is_no_hole(sample: Sample) -> None:
    absent = sample.box.manifest([sample.layers[0]], note=1)
    referrer = sample.box.manifest([sample.layers[1]], subject=absent)
    sample.box.tag("signature", referrer)
    sample.box.damage(absent["digest"], None)
    assert tag(sample.dir, "signature", "copy").outcome == "done"


def test_an_entry_that_cannot_be_read_gets_no_name(sample: Sample) -> None:
    sample.box.entries.append({"digest": "sha256:x", "size": 7, "annotations": {REF_NAME: "bad"}})
    sample.box.tag("last", sample.main)
    with pytest.raises(Damaged, match="tag 'bad' is not complete: the digest of entry 2"):
        tag(sample.dir, "bad", "new")
    assert tag(sample.dir, "main", "bad").previous_digests == ()
    assert ("bad", sample.main["digest"]) in tags(sample)


@pytest.mark.parametrize("new", ["docker.io/library/app:v1", "v1"])
def test_the_name_of_an_image_does_not_move(sample: Sample, new: str) -> None:
    names = {IMAGE_NAME: "docker.io/library/app:v1", REF_NAME: "v1"}
    sample.box.entries.append(sample.dev | {"annotations": names})
    sample.box.write_index(encode(sample.box.index_document()))
    before = take_snapshot(sample.dir / "index.json")
    with pytest.raises(KitcacheError, match="is the name of an image") as caught:
        tag(sample.dir, "main", new)
    assert caught.value.effect == "nothing was changed"
    assert take_snapshot(sample.dir / "index.json") == before


def test_a_further_name_of_an_image_is_no_images_name(sample: Sample) -> None:
    names = {IMAGE_NAME: "docker.io/library/app:v1", REF_NAME: "v1"}
    sample.box.entries.append(sample.dev | {"annotations": names})
    sample.box.write_index(encode(sample.box.index_document()))
    assert tag(sample.dir, "v1", "v1").outcome == "unchanged"
    tag(sample.dir, "v1", "v2")
    assert [item["annotations"] for item in items(sample)[-2:]] == [names, {REF_NAME: "v2"}]


@pytest.mark.parametrize("name", ["kitcache.lock", "index.json.lock"])
def test_both_locks_are_needed(sample: Sample, name: str) -> None:
    with (sample.dir / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        before = take_snapshot(sample.dir / "index.json")
        with pytest.raises(Busy, match=f"{name} is held by") as caught:
            tag(sample.dir, "main", "new", lock_timeout_s=0)
        assert caught.value.effect == "nothing was changed"
    assert take_snapshot(sample.dir / "index.json") == before


def test_a_tag_that_others_publish_meanwhile_stays(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, changes = DirectoryStore.commit_roots, iter(["one", "two"])

    def met(*args: Any, **more: Any) -> Any:
        if name := next(changes, None):
            sample.box.tag(name, sample.dev)
        return real(*args, **more)

    monkeypatch.setattr(DirectoryStore, "commit_roots", met)
    tag(sample.dir, "main", "new")
    assert [name for name, _ in tags(sample)] == ["main", "dev", "one", "two", "new"]


def test_an_index_that_never_rests_is_busy(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DirectoryStore, "commit_roots", lambda *_, **more: None)
    with pytest.raises(Busy, match=r"index.json changed 8 times"):
        tag(sample.dir, "main", "new")


def test_the_last_use_counts_for_the_new_name(sample: Sample) -> None:
    main, dev = sample.main["digest"], sample.dev["digest"]
    with open_store(sample.dir) as layout:
        record_use(layout, ["main"], "exported", 10, digests={"main": dev})
        record_use(layout, ["main"], "imported", 20)
        write_tag_uses(layout, {"dev": TagUse(99, 98, "sha256:older")})
    tag(sample.dir, "main", "new")
    tag(sample.dir, "main", "dev")
    noted = notes_of(sample.dir)
    assert noted["new"] == noted["dev"] == TagUse(10, 20, main)
    assert noted["main"] == TagUse(10, 20, dev)


def test_what_was_never_used_has_no_time(sample: Sample) -> None:
    with open_store(sample.dir) as layout:
        write_tag_uses(layout, {"dev": TagUse(99, 98, "sha256:older")})
    tag(sample.dir, "main", "dev")
    assert notes_of(sample.dir) == {"dev": TagUse(None, None, sample.main["digest"])}


def test_no_cache_and_no_index(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(NotACache):
        tag(tmp_path / "nowhere", "a", "b")
    (sample.dir / "index.json").unlink()
    with pytest.raises(Damaged, match="is missing but blobs"):
        tag(sample.dir, "main", "new")
    assert not (sample.dir / "index.json").exists()


@pytest.mark.parametrize("is_dry", [False, True])
def test_an_index_that_cannot_be_written_back_is_left_alone(sample: Sample, is_dry: bool) -> None:
    index = sample.dir / "index.json"
    index.write_bytes(index.read_bytes().replace(b'"manifests"', b'"x":1e400,"manifests"', 1))
    before = index.read_bytes()
    with pytest.raises(Damaged, match="the number 1e400 cannot be written back") as caught:
        tag(sample.dir, "main", "release", dry_run=is_dry)
    assert caught.value.hints == ("edit index.json by hand",)
    assert index.read_bytes() == before
