"""Caches of several builds in one: each build imports its own, CACHED, with both clients."""

import json
from pathlib import Path

from tests.hostile.privilege import small_disk
from tests.integration import witness
from tests.integration.build.cachekit import (
    assert_cached,
    assert_imports,
    assert_swept,
    assert_whole,
    export,
    stages,
    tags,
)
from tests.integration.build.kit import Kit
from tests.integration.contexts import STEPS, write_context
from tests.integration.kit import must


def assert_nothing_else(cache: Path) -> None:
    """All that tags reach is there, and nothing else."""
    assert witness.look(cache).missing == frozenset()
    assert witness.garbage(cache) == {}


def test_caches_of_two_builds_are_both_imported_from_one(kit: Kit, tmp_path: Path) -> None:
    """Their own layers are hard links; those that both have are there once."""
    contexts = {
        "one": write_context(tmp_path / "context1", app=f"1 {tmp_path}", lock=f"same {tmp_path}"),
        "two": write_context(tmp_path / "context2", app=f"2 {tmp_path}", lock=f"same {tmp_path}"),
    }
    form = {"image_manifest": "false"}
    export(kit, contexts["one"], tmp_path / "one", tag="main", mode="max")
    export(kit, contexts["two"], tmp_path / "two", tag="main", mode="max", **form)
    target = tmp_path / "all"
    sources = [tmp_path / "one", tmp_path / "two"]
    said = must("merge", "--rename", "{dir}", *sources, target, "--json").json
    assert said["copied"] == {"blobs": 0, "bytes": 0}
    assert tags(target) == {"one": tags(sources[0])["main"], "two": tags(sources[1])["main"]}
    assert_nothing_else(target)
    shared = witness.blobs(sources[0]).keys() & witness.blobs(sources[1]).keys()
    assert shared, "the precondition: the first stage is in both"
    for client in ("kitcache", "buildx"):
        for tag, where in contexts.items():
            assert_imports(kit, where, target, tag, client=client)
    notes = json.loads((target / ".kitcache" / "tags.json").read_bytes())["tags"]
    assert all(notes[tag]["exported_ns"] and notes[tag]["imported_ns"] for tag in contexts)
    assert (
        must("merge", "--rename", "{dir}", *sources, target, "--json").json["outcome"]
        == "unchanged"
    )


def test_a_copy_on_another_disk_is_imported(kit: Kit, tmp_path: Path) -> None:
    where = stages(tmp_path / "context", app="copied")
    export(kit, where, tmp_path / "cache", tag="main", mode="max")
    with small_disk(tmp_path / "disk", size="20m") as disk:
        said = must("merge", tmp_path / "cache", disk / "all", "--json").json
        assert said["linked"] == {"blobs": 0, "bytes": 0}
        assert_nothing_else(disk / "all")
        for client in ("kitcache", "buildx"):
            assert_imports(kit, where, disk / "all", "main", client=client)


def test_a_build_goes_on_in_a_merged_cache(kit: Kit, tmp_path: Path) -> None:
    """An export with reset=true into it leaves the tags that came from elsewhere."""
    one, two = (stages(tmp_path / f"context{n}", app=f"app {n}") for n in (1, 2))
    export(kit, one, tmp_path / "one", tag="one", mode="max")
    export(kit, two, tmp_path / "two", tag="two", mode="max")
    must("merge", tmp_path / "one", tmp_path / "two")
    stages(two, app="app 2, changed")
    done = export(kit, two, tmp_path / "two", tag="two", mode="max", reset="true")
    assert done.cache["reset"]["deleted"]["blobs"] > 0
    assert_swept(tmp_path / "two")
    assert_imports(kit, one, tmp_path / "two", "one", client="buildx")
    assert_imports(kit, two, tmp_path / "two", "two")


def test_a_further_name_is_imported_and_outlives_the_first(kit: Kit, tmp_path: Path) -> None:
    cache, where = tmp_path / "cache", stages(tmp_path / "context", app="named")
    export(kit, where, cache, tag="main", mode="max")
    must("tag", cache, "main", "release")
    export(kit, stages(tmp_path / "context2", app="later"), cache, tag="main", mode="max")
    must("reset", cache)
    assert_whole(cache)
    for client in ("kitcache", "buildx"):
        assert_imports(kit, where, cache, "release", client=client)


def test_layers_that_an_import_read_are_noted(kit: Kit, tmp_path: Path) -> None:
    """The root, and layers of the result."""
    cache, where = tmp_path / "cache", write_context(tmp_path / "c", app="a", lock=f"{tmp_path}")
    export(kit, where, cache, tag="main", mode="max")
    value = f"type=local,src={cache},tag=main"
    assert_cached(kit, where, value, steps=STEPS)
    noted = json.loads((cache / ".kitcache" / "layers.json").read_bytes())["layers"]
    root = tags(cache)["main"]
    manifest = json.loads(witness.blob_path(cache, root).read_bytes())
    layers = {layer["digest"] for layer in manifest.get("layers") or manifest["manifests"]}
    assert root in noted
    assert layers & noted.keys()
    assert noted.keys() <= witness.blobs(cache).keys()
