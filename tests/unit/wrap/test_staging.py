import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kitcache.wrap.staging import Stage, merge, open_stage
from kitcache.wrap.stores import Store, Stores, Terms
from tests.hostile.strangers import publish, push_cache
from tests.integration.witness import entries, look, ref_name

TERMS = Terms(5.0, None, lambda _: None)


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


def store_of(path: Path, stack: ExitStack) -> Store:
    return Stores(TERMS, stack).to_write(str(path))


def stage_of(store: Store, stack: ExitStack, *, is_seeded: bool = True) -> tuple[Stage, Path]:
    stage = open_stage(store, TERMS, stack, is_seeded=is_seeded)
    return stage, Path(stage.path)


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


def test_it_is_beside_the_store_and_gone_afterwards(tmp_path: Path) -> None:
    with ExitStack() as stack:
        _, path = stage_of(store_of(tmp_path / "c", stack), stack)
        assert path.parent == tmp_path
        assert path.name.startswith(".c.kitcache-stage-")
    assert os.listdir(tmp_path) == ["c"]


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
