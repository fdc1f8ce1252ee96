"""SIGKILL at each naming, removing and syncing call of a merge, and at each write of a tag.

A merge within one file system (links) and across two (copies), into a new cache and into one that
has a tag of its own: the target's tags stay whole, no tag has a hole, no manifest comes before what
it names, and a second merge finishes.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import kitcache
from tests.hostile import crash, privilege
from tests.hostile.test_crash import grown
from tests.property import make, witness
from tests.property.disk import REF_NAME, blobs, on_disk, settle, snapshot, write
from tests.property.model import HOUR_S, Cache

SYNCING = (*crash.NAMING, "fsync", "fdatasync", "syncfs")
# A new file's name in .kitcache/ differs from run to run: it cannot be waited for.
RANDOM = re.compile(r"\.[0-9a-f]{16}$")


@pytest.fixture(autouse=True, scope="module")
def _tool() -> None:
    missing = crash.missing_tool()
    if missing:
        privilege.cannot(missing)


def small(tag: str, *layers: bytes) -> Cache:
    """One tag over these layers."""
    leaves = [make.leaf(data) for data in layers]
    config = make.cacheconfig(leaves, len(layers))
    top = make.manifest(make.honest(config), [make.honest(leaf) for leaf in leaves])
    nodes = make.by_digest([*leaves, config, top])
    ages_s = dict.fromkeys(nodes, 3 * HOUR_S)
    return Cache(nodes, (make.entry(top, tag),), frozenset(), ages_s, (), ())


def nested(cache: Cache, tag: str) -> Cache:
    """The same below an index, and another index above that."""
    (entry,) = cache.entries
    inner = make.index([make.honest(cache.nodes[entry.ref.digest])])
    outer = make.index([make.honest(inner)])
    nodes = {**cache.nodes, **make.by_digest([inner, outer])}
    ages_s = dict.fromkeys(nodes, 3 * HOUR_S)
    return Cache(nodes, (make.entry(outer, tag),), frozenset(), ages_s, (), ())


ONE = nested(small("one", b"layer 1", b"layer 2"), "one")
TWO = small("two", b"layer 2", b"layer 3")
OWN = small("own", b"layer 3", b"layer 4")


class Places(NamedTuple):
    one: Path
    two: Path
    target: Path

    @property
    def argv(self) -> list[str]:
        return crash.command("merge", self.one, self.two, self.target)


@contextmanager
def places(tmp_path: Path, *, is_near: bool, has_own: bool) -> Iterator[Places]:
    """Two sources on tmpfs, and a target there too, or on the disk of tmp_path."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="kitcache-test-") as box:
        found = Places(
            Path(box, "one"), Path(box, "two"), (Path(box) if is_near else tmp_path) / "all"
        )
        for cache, root in ((ONE, found.one), (TWO, found.two)):
            root.mkdir()
            write(cache, root)
        if has_own:
            found.target.mkdir()
            write(OWN, found.target)
        yield found
        shutil.rmtree(found.target, ignore_errors=True)


def tags(root: Path) -> dict[str, str]:
    try:
        index = json.loads((root / "index.json").read_bytes())
    except FileNotFoundError:
        return {}
    return {item["annotations"][REF_NAME]: item["digest"] for item in index["manifests"]}


def tags_of(*found: Cache) -> dict[str | None, str]:
    return {entry.ref_name: entry.ref.digest for cache in found for entry in cache.entries}


def early(root: Path) -> set[str]:
    """Blobs that have a name before something that they name has one."""
    there = blobs(root)
    nodes = {**ONE.nodes, **TWO.nodes, **OWN.nodes}
    return {d for d in there for link in nodes[d].links if link.digest not in there}


@pytest.mark.parametrize(
    ("is_near", "has_own"), [(True, True), (False, False)], ids=["links", "copies-into-new"]
)
def test_a_merge_killed_anywhere_leaves_no_hole(
    tmp_path: Path, is_near: bool, has_own: bool
) -> None:
    if not is_near and Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        privilege.cannot("all is on one file system here", must_in_ci=False)
    log = tmp_path / "strace.log"
    old = tags_of(OWN) if has_own else {}
    new = old | tags_of(ONE, TWO)
    live = {digest for cache in (ONE, TWO, *((OWN,) if has_own else ())) for digest in cache.nodes}
    with places(tmp_path, is_near=is_near, has_own=has_own) as found:
        calls = crash.record(found.argv, SYNCING, log)
        assert not any(str(found.one.parent) in call.name for call in calls)
    calls = [call for call in calls if not RANDOM.search(call.name)]
    named = {call.name for call in calls}
    brought = {d[7:] for cache in (ONE, TWO) for d in cache.nodes} - {
        d[7:] for d in (OWN.nodes if has_own else ())
    }
    assert brought <= named
    assert "index.json" in named
    seen = set()
    for call in calls:
        with places(tmp_path, is_near=is_near, has_own=has_own) as found:
            before = [snapshot(root) for root in found[:2]]
            assert crash.kill_before(found.argv, call, log), call
            left = tags(found.target)
            assert left in (old, new), call
            assert not early(found.target), call
            seen.add(left == new)
            if left:
                assert witness.holes(found.target) == (), call
            kitcache.merge(found[:2], found.target)
            assert tags(found.target) == new, call
            assert witness.holes(found.target) == (), call
            assert [snapshot(root) for root in found[:2]] == before, call
            settle(found.target)
            kitcache.reset(found.target)
            assert blobs(found.target) == live, call
    assert seen == {True, False}


def test_a_tag_killed_anywhere_leaves_the_old_index_or_the_new(tmp_path: Path) -> None:
    cache, log = grown(), tmp_path / "strace.log"
    old = tags_of(cache)
    new = old | {"image": old["main"]}
    with on_disk(cache) as root:
        argv = crash.command("tag", root, "main", "image")
        calls = crash.record(argv, crash.WRITING, log)
    seen = set()
    for call in calls:
        if RANDOM.search(call.name):
            continue
        with on_disk(cache) as root:
            argv = crash.command("tag", root, "main", "image")
            assert crash.kill_before(argv, call, log), call
            left = tags(root)
            assert left in (old, new), call
            seen.add(left == new)
            assert witness.holes(root) == (), call
            assert blobs(root) == cache.present
            assert kitcache.tag(root, "main", "image").outcome in ("done", "unchanged")
            assert tags(root) == new, call
    assert seen == {True, False}
