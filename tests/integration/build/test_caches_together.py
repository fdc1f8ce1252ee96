"""Several exports to one directory: of one build, and of many at once. No tag ever lacks a blob."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from tests.integration import witness
from tests.integration.build import cache_builder
from tests.integration.build.cachekit import (
    WAIT_S,
    assert_imports,
    assert_swept,
    assert_whole,
    export,
    stages,
    tags,
)
from tests.integration.build.kit import Kit, context
from tests.integration.daemon import cache_to

ROUNDS = int(os.environ.get("KITCACHE_ROUNDS", "20"))
BUILDERS = 8
LOOK_EVERY_S = 0.02


def test_two_tags_of_one_directory_are_both_published(kit: Kit, tmp_path: Path) -> None:
    """However the directory is spelled, with one reset, on the last of them."""
    cache, where = tmp_path / "cache", stages(tmp_path / "context", app="two tags")
    cache.mkdir()
    (tmp_path / "link").symlink_to("cache")
    spelled = [cache, f"{cache}/", tmp_path / "link", tmp_path / "context" / ".." / "cache"]
    values = [
        f"type=local,dest={path},tag={number},mode=max,reset=true"
        for number, path in enumerate(spelled)
    ]
    done = export(kit, where, cache, *values)
    assert [one["outcome"] for one in done.caches] == ["published"] * 4
    assert [one["reset"] is not None for one in done.caches] == [False, False, False, True]
    assert tags(cache) == dict.fromkeys("0123", done.metadata["cache.manifest"]["digest"])
    assert len(done.after) == 5, "one export, whatever its tags"
    assert done.built.err.count("exporting cache to client directory\n") == 1
    assert_swept(cache)
    assert_imports(kit, where, cache, "2")


def test_each_tag_names_what_its_own_export_was_given(kit: Kit, tmp_path: Path) -> None:
    """min and max to one directory, and another form to another: the daemon has but one answer."""
    cache, other = tmp_path / "cache", tmp_path / "other"
    where = stages(tmp_path / "context", app="three")
    done = export(
        kit,
        where,
        cache,
        cache_to(cache, tag="min", mode="min", image_manifest="true"),
        cache_to(cache, tag="max", mode="max", image_manifest="true", reset="true"),
        cache_to(other, tag="far", mode="max", oci_mediatypes="false"),
    )
    assert [(one["path"], one["tag"]) for one in done.caches] == [
        (str(cache), "min"),
        (str(cache), "max"),
        (str(other), "far"),
    ]
    layers = {
        tag: json.loads(witness.blob_path(cache, digest).read_bytes())["layers"]
        for tag, digest in tags(cache).items()
    }
    assert {tag: len(found) for tag, found in layers.items()} == {"min": 2, "max": 3}
    assert {one["digest"] for one in layers["min"]} < {one["digest"] for one in layers["max"]}
    (far,) = witness.entries(other)
    assert far["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    for directory in (cache, other):
        assert_swept(directory)
    assert_imports(kit, where, cache, "min")
    assert_imports(kit, where, cache, "max")
    assert_imports(kit, where, other, "far")


def test_one_tag_twice_is_told_and_the_last_one_wins(kit: Kit, tmp_path: Path) -> None:
    cache, where = tmp_path / "cache", stages(tmp_path / "context", app="twice")
    values = [cache_to(cache, mode=mode, image_manifest="true") for mode in ("min", "max")]
    done = export(kit, where, cache, *values)
    (notice,) = done.notices
    assert "the tag 'latest' is exported to more than once: the last export counts" in notice
    assert f"kitcache: warning: {notice}" in done.built.err
    (root,) = witness.entries(cache)
    assert done.cache["digest"] == root["digest"]
    layers = json.loads(witness.blob_path(cache, root["digest"]).read_bytes())["layers"]
    assert len(layers) == 3, "mode=max"


class Builder:
    """A process of its own, that builds when told to."""

    def __init__(self, kit: Kit) -> None:
        self._process = subprocess.Popen(
            [sys.executable, cache_builder.__file__, str(kit.daemon.socket)],
            env=kit.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=WAIT_S)
        assert self._process.returncode == 0

    def build(self, where: Path, cache: Path, tag: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(where), str(cache), tag]) + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said


@pytest.fixture
def builders(kit: Kit) -> Iterator[list[Builder]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Builder(kit)) for _ in range(BUILDERS)]


def test_eight_at_once_into_one_directory(builders: list[Builder], tmp_path: Path) -> None:
    """In even rounds each has a tag of its own, in odd ones all have the same.

    At every moment all that index.json names is there. Sweeps are skipped while others export, and
    the last one out sweeps: so no garbage is left from round to round.
    """
    cache = tmp_path / "cache"
    skips = 0
    with ThreadPoolExecutor(BUILDERS) as pool:
        for number in range(ROUNDS):
            names = [str(n) if number % 2 == 0 else "same" for n in range(BUILDERS)]
            wheres = [write(tmp_path / str(n), number, n) for n in range(BUILDERS)]
            jobs = [
                pool.submit(builder.build, where, cache, name)
                for builder, where, name in zip(builders, wheres, names, strict=True)
            ]
            while wait(jobs, LOOK_EVERY_S).not_done:
                assert_nothing_missing_now(cache)
            said = [job.result() for job in jobs]
            assert {one["outcome"] for one in said} == {"published"}, said
            assert {one["reset"] for one in said} <= {"done", "skipped"}, said
            assert not any(one["notices"] for one in said), said
            for tag in set(names):
                given = [
                    one["digest"] for one, name in zip(said, names, strict=True) if name == tag
                ]
                assert tags(cache)[tag] in given
            assert_whole(cache)
            skips += sum(one["reset"] == "skipped" for one in said)
            assert "done" in {one["reset"] for one in said}, said
            assert witness.garbage(cache) == {}, f"the last one out sweeps: {said}"
    assert skips, "no two exports met: this proves nothing"
    assert set(tags(cache)) == {"same", *map(str, range(BUILDERS))}


def write(directory: Path, number: int, builder: int) -> Path:
    """Layers that all builders share for two rounds, and one that nobody has."""
    dockerfile = "FROM scratch\nCOPY shared /shared\nCOPY own /own\n"
    shared = f"shared {number // 2} {number % 2 and builder % 2}"
    return context(directory, dockerfile, shared=shared, own=f"{number} {builder} {directory}")


def assert_nothing_missing_now(cache: Path) -> None:
    """Of what index.json names before the look and after it."""
    index = cache / "index.json"
    if not index.exists():
        return
    before = index.read_bytes()
    try:
        missing = witness.look(cache).missing
    except FileNotFoundError as gone:  # between two looks at it
        missing = frozenset({str(gone.filename)})
    assert not missing or index.read_bytes() != before, missing
