import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kitcache.store.values import WaitPolicy
from kitcache.upkeep.jobcaches import LockedCache, LockedCaches, LockOptions
from kitcache.wrap.staging import merge, open_stage
from tests.hostile.strangers import publish, push_cache
from tests.integration.witness import blobs, entries, garbage, look, ref_name

TERMS = LockOptions(5.0, None, lambda _: None)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def lay(root: Path) -> None:
    (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (root / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')


def export(root: Path, tag: str, seed: int) -> None:
    if not (root / "index.json").exists():
        lay(root)
    assert publish(root, tag, *push_cache(root, [b"shared", b"%d" % seed], seed))


def store_of(path: Path, stack: ExitStack) -> LockedCache:
    return LockedCaches(TERMS, stack, "").open_export(str(path))


def stage_of(
    store: LockedCache, stack: ExitStack, *, is_seeded: bool = True
) -> tuple[LockedCache, Path]:
    stage = open_stage(store, TERMS, stack, is_seeded=is_seeded)
    return stage, Path(stage.real_path)


def test_what_is_new_comes_in_and_the_rest_stays(tmp_path: Path, stack: ExitStack) -> None:
    cache = tmp_path / "c"
    store = store_of(cache, stack)
    export(cache, "old", 1)
    stage, path = stage_of(store, stack)
    assert os.listdir(path / "blobs" / "sha256")  # links of the store's
    export(path, "new", 2)
    merged = merge(store, stage, TERMS)
    assert (merged.tags, merged.linked.blobs, merged.reused.blobs) == (("new",), 3, 1)
    assert [ref_name(entry) for entry in entries(cache)] == ["old", "new"]
    assert look(cache).missing == frozenset()


def test_it_is_in_the_store_and_gone_afterwards(tmp_path: Path) -> None:
    with ExitStack() as stack:
        _, path = stage_of(store_of(tmp_path / "c", stack), stack)
        assert path.parent == tmp_path / "c" / ".kitcache"
        assert path.name.startswith("stage-")
    assert os.listdir(tmp_path) == ["c"]
    assert os.listdir(tmp_path / "c" / ".kitcache") == []


def test_only_what_tags_reach_is_linked(tmp_path: Path, stack: ExitStack) -> None:
    cache = tmp_path / "c"
    store = store_of(cache, stack)
    export(cache, "tag", 1)
    export(cache, "tag", 2)
    assert garbage(cache)
    _, path = stage_of(store, stack)
    assert set(blobs(path)) == look(cache).reached


def test_a_torn_layer_of_a_tag_is_brought_again(tmp_path: Path, stack: ExitStack) -> None:
    cache = tmp_path / "c"
    store = store_of(cache, stack)
    export(cache, "tag", 1)
    for blob in (cache / "blobs" / "sha256").iterdir():
        if blob.read_bytes() == b"shared":
            blob.write_bytes(b"sha")
    stage, path = stage_of(store, stack)
    export(path, "tag", 1)
    assert merge(store, stage, TERMS).tags == ("tag",)
    assert look(cache).missing == frozenset()


def test_what_a_killed_process_left_goes_whenever_it_was_killed(
    tmp_path: Path, stack: ExitStack
) -> None:
    """With its lock file and without, for it may have been killed right after mkdir."""
    store = store_of(tmp_path / "c", stack)
    room = tmp_path / "c" / ".kitcache"
    for name in ("stage-0", "stage-1"):
        (room / name).mkdir(parents=True)
    (room / "stage-0" / "kitcache.lock").touch()
    (room / "tags.json").write_text("{}")
    _, path = stage_of(store, stack)
    assert sorted(os.listdir(room)) == [path.name, "tags.json"]


def test_a_directory_that_goes_before_its_lock_is_had_is_made_again(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one that stages clears it in the moment between the two."""
    store = store_of(tmp_path / "c", stack)
    lock, others = LockedCache.lock, list[Any]()

    def lock_late(cache: LockedCache, wait_policy: WaitPolicy) -> None:
        if not others:
            others.append(cache.store.path)
            others.append(stage_of(store, stack)[1])
        lock(cache, wait_policy)

    monkeypatch.setattr(LockedCache, "lock", lock_late)
    _, path = stage_of(store, stack)
    first, other = others
    assert not Path(first).exists()
    assert sorted(os.listdir(tmp_path / "c" / ".kitcache")) == sorted((path.name, other.name))


def test_a_link_in_the_place_of_one_is_not_followed(tmp_path: Path, stack: ExitStack) -> None:
    store = store_of(tmp_path / "c", stack)
    (tmp_path / "elsewhere" / "blobs").mkdir(parents=True)
    (tmp_path / "c" / ".kitcache").mkdir()
    link = tmp_path / "c" / ".kitcache" / "stage-0"
    link.symlink_to(tmp_path / "elsewhere")
    inner = tmp_path / "c" / ".kitcache" / "stage-1"
    inner.mkdir()
    (inner / "kitcache.lock").symlink_to(tmp_path / "elsewhere" / "made")
    stage_of(store, stack)
    assert os.listdir(tmp_path / "elsewhere") == ["blobs"]
    assert link.is_symlink()


@pytest.mark.parametrize(
    "text", ['{"manifests":[', '{"manifests":5}', '{"manifests":[],"Manifests":[]}', "\x00"]
)
def test_an_index_that_cannot_be_read_is_not_published(
    text: str, tmp_path: Path, stack: ExitStack
) -> None:
    cache = tmp_path / "c"
    store = store_of(cache, stack)
    export(cache, "tag", 1)
    before = (cache / "index.json").read_bytes()
    stage, path = stage_of(store, stack)
    export(path, "tag", 2)
    (path / "index.json").write_text(text)
    merged = merge(store, stage, TERMS)
    assert (merged.code, merged.tags) == (12, ())
    assert "index.json" in merged.problem
    assert (cache / "index.json").read_bytes() == before


def test_a_torn_blob_in_the_store_is_replaced(tmp_path: Path, stack: ExitStack) -> None:
    cache = tmp_path / "c"
    store = store_of(cache, stack)
    stage, path = stage_of(store, stack)
    export(path, "new", 2)
    torn = cache / "blobs" / "sha256"
    torn.mkdir(parents=True)
    for blob in os.listdir(path / "blobs" / "sha256"):
        (torn / blob).write_bytes(b"?")
    assert merge(store, stage, TERMS).linked.blobs == 4
    assert look(cache).missing == frozenset()
    assert len(os.listdir(torn)) == 4


def test_a_hole_is_not_published(tmp_path: Path, stack: ExitStack) -> None:
    cache = tmp_path / "c"
    store = store_of(cache, stack)
    export(cache, "tag", 1)
    before = (cache / "index.json").read_bytes()
    stage, path = stage_of(store, stack, is_seeded=False)
    export(path, "tag", 2)
    manifest = json.loads(
        (path / "blobs" / entries(path)[0]["digest"].replace(":", "/")).read_text()
    )
    (path / "blobs" / manifest["layers"][0]["digest"].replace(":", "/")).unlink()
    merged = merge(store, stage, TERMS)
    assert (merged.code, merged.tags) == (12, ())
    assert (cache / "index.json").read_bytes() == before


def test_a_tag_that_names_another_exports_root_is_given_its_own(
    tmp_path: Path, stack: ExitStack
) -> None:
    store = store_of(tmp_path / "c", stack)
    stage, path = stage_of(store, stack, is_seeded=False)
    lay(path)
    digest, _ = push_cache(path, [b"mine"], 1)
    assert publish(path, "tag", "sha256:" + 64 * "0", 10)  # buildx: the last root for all
    assert merge(store, stage, TERMS).tags == ("tag",)
    (entry,) = entries(tmp_path / "c")
    assert entry["digest"] == digest
    assert look(tmp_path / "c").missing == frozenset()


def test_nothing_exported_is_nothing_merged(tmp_path: Path, stack: ExitStack) -> None:
    cache = tmp_path / "c"
    store = store_of(cache, stack)
    export(cache, "tag", 1)
    stage, _ = stage_of(store, stack)
    assert merge(store, stage, TERMS) == ((), (0, 0), (0, 0), "", 0)
    assert [ref_name(entry) for entry in entries(cache)] == ["tag"]


def test_strange_names_and_links_are_not_taken_along(tmp_path: Path, stack: ExitStack) -> None:
    cache = tmp_path / "c"
    store = store_of(cache, stack)
    export(cache, "tag", 1)
    blobs = cache / "blobs" / "sha256"
    (blobs / "readme").write_text("")
    (blobs / ("a" * 64)).symlink_to("/etc/passwd")
    (blobs / ("b" * 64)).mkdir()
    _, path = stage_of(store, stack)
    assert sorted(os.listdir(path / "blobs" / "sha256")) == sorted(
        name for name in os.listdir(blobs) if name != "readme" and name[:3] not in ("aaa", "bbb")
    )
