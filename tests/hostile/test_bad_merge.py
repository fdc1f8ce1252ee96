"""Merges across disks, onto a full one, as another user, two at once, beside sweeps.

Laws: a tag never has a hole; what the target has stays; what cannot be done changes no tag; two
merges that go opposite ways both end.
"""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kitcache
from tests.caches.snapshot import differences, take_snapshot
from tests.hostile.build import REF_NAME, Sample, make_sample
from tests.hostile.command import run
from tests.hostile.crash import command
from tests.hostile.pair import ROUNDS
from tests.hostile.privilege import (
    NOBODY,
    cannot,
    give,
    make_read_only,
    needs_root,
    reachable_box,
    run_as,
    small_disk,
)
from tests.property import make, witness
from tests.property.disk import on_disk, write
from tests.property.model import HOUR_S, Cache


def tags(cache: Path) -> dict[str, str]:
    index = json.loads((cache / "index.json").read_bytes())
    return {item["annotations"][REF_NAME]: item["digest"] for item in index["manifests"]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", size="1m", nr_inodes="200") as disk:
        yield disk


def test_onto_another_disk_blobs_are_copied(sample: Sample, disk: Path) -> None:
    sample.box.tag("big", sample.box.manifest([sample.box.blob(os.urandom(300_000))]))
    merged = kitcache.merge([sample.dir], disk / "all")
    assert (merged.linked.blobs, merged.copied.blobs > 0) == (0, True)
    assert witness.holes(disk / "all") == ()
    assert tags(disk / "all") == tags(sample.dir)
    for blob in (disk / "all" / "blobs" / "sha256").iterdir():
        assert blob.read_bytes() == (sample.dir / "blobs" / "sha256" / blob.name).read_bytes()
        assert stat.S_IMODE(blob.stat().st_mode) == 0o444
        assert blob.stat().st_nlink == 1
    assert kitcache.merge([sample.dir], disk / "all").outcome == "unchanged"


def test_what_does_not_fit_changes_no_tag(sample: Sample, disk: Path) -> None:
    own = make_sample(disk)
    for name in ("kitcache.lock", "index.json.lock"):
        (own.dir / name).touch()
    sample.box.tag("big", sample.box.manifest([sample.box.blob(os.urandom(2_000_000))]))
    before, index = tags(own.dir), (own.dir / "index.json").read_bytes()
    answer = run(sample.box.top, "merge", str(sample.dir), str(own.dir))
    assert answer.code == 1
    assert "No space left" in answer.err
    assert "no tag was changed" in answer.err
    assert "free a little space" in answer.err
    assert (tags(own.dir), (own.dir / "index.json").read_bytes()) == (before, index)
    assert os.listdir(own.dir / ".kitcache") == []
    assert witness.holes(own.dir) == ()
    sample.box.entries.pop()
    sample.box.tag("small", sample.main)
    assert run(sample.box.top, "merge", str(sample.dir), str(own.dir)).code == 0


def test_a_source_on_a_read_only_disk_is_merged_and_told(disk: Path, tmp_path: Path) -> None:
    source = make_sample(disk)
    make_read_only(disk)
    before = take_snapshot(disk)
    answer = run(tmp_path, "merge", str(source.dir), "all")
    assert (answer.code, tags(tmp_path / "all")) == (0, tags(source.dir))
    assert "not protected from a concurrent reset" in answer.err
    assert take_snapshot(disk) == before
    assert run(tmp_path, "merge", "all", str(source.dir)).code == 1


def test_a_cache_is_not_merged_into_itself_by_another_mount(sample: Sample, tmp_path: Path) -> None:
    """It would wait for its own lock."""
    (tmp_path / "again").mkdir()
    needs_root()
    bind = ["mount", "--bind", str(sample.dir), str(tmp_path / "again")]
    made = subprocess.run(bind, check=False, capture_output=True, text=True)
    if made.returncode:
        cannot(f"no directory can be mounted twice here: {made.stderr.strip()}")
    try:
        answer = run(tmp_path, "merge", "cache", "again")
    finally:
        subprocess.run(["umount", str(tmp_path / "again")], check=True)
    assert answer.code == 2
    assert "cache and again are one directory" in answer.err


@pytest.fixture
def theirs() -> Iterator[Sample]:
    """A cache of root's, beside a room of nobody's."""
    needs_root()
    with reachable_box() as box:
        sample = make_sample(box)
        (box / "mine").mkdir()
        give(box / "mine", NOBODY)
        yield sample


def test_from_a_cache_of_somebody_else(theirs: Sample) -> None:
    """Its lock cannot be made, and where links to others' files are forbidden they are copied."""
    before = take_snapshot(theirs.dir)
    answer = run_as(NOBODY, theirs.box.top, "merge", "cache", "mine/all")
    assert answer.code == 0, answer.err
    assert "not protected from a concurrent reset" in answer.err
    target = theirs.box.top / "mine" / "all"
    assert (tags(target), witness.holes(target)) == (tags(theirs.dir), ())
    assert differences(before, take_snapshot(theirs.dir)) == []


def test_into_a_cache_of_somebody_else_nothing_comes(theirs: Sample) -> None:
    make_sample(theirs.box.top / "mine")
    before = take_snapshot(theirs.dir)
    answer = run_as(NOBODY, theirs.box.top, "merge", "--replace", "mine/cache", "cache")
    assert answer.code == 1
    assert "Permission denied" in answer.err
    assert differences(before, take_snapshot(theirs.dir)) == []


def test_what_root_merges_into_a_users_cache_stays_the_users(theirs: Sample) -> None:
    box = theirs.box.top
    own = make_sample(box / "mine")
    give(own.dir, NOBODY)
    assert run(box, "merge", "--rename", "x-{tag}", "cache", "mine/cache").code == 0
    assert run_as(NOBODY, box, "tag", "mine/cache", "main", "more").code == 0
    assert run_as(NOBODY, box, "untag", "mine/cache", "main", "dev", "more").code == 0
    answer = run_as(NOBODY, box, "reset", "mine/cache", "--json")
    assert (answer.code, answer.value["not_deleted_count"]) == (0, 0), answer.err


def many(name: str, blobs: int) -> Cache:
    """One tag over so many layers, half of them in every such cache, and garbage."""
    shared = [make.leaf(b"shared %d" % n) for n in range(blobs // 2)]
    layers = [*shared, *(make.leaf(b"%s %d" % (name.encode(), n)) for n in range(blobs // 2))]
    config = make.cacheconfig(layers, len(name))
    top = make.manifest(make.honest(config), [make.honest(layer) for layer in layers])
    loose = [make.leaf(b"loose %s %d" % (name.encode(), n)) for n in range(blobs)]
    nodes = make.by_digest([*layers, config, top, *loose])
    ages_s = dict.fromkeys(nodes, 3 * HOUR_S)
    return Cache(nodes, (make.entry(top, name),), frozenset(), ages_s, (), ())


def all_end_well(*commands: list[str]) -> None:
    children = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for argv in commands
    ]
    for child in children:
        said = child.communicate(timeout=60)
        assert child.returncode == 0, said


@pytest.fixture
def pair() -> Iterator[tuple[Path, Path]]:
    with on_disk(many("a", 200)) as one, on_disk(many("b", 200)) as two:
        yield one, two


def test_two_into_one_at_once(pair: tuple[Path, Path], tmp_path: Path) -> None:
    for n in range(max(2, ROUNDS // 8)):
        target = tmp_path / f"all{n}"
        all_end_well(*(command("merge", source, target) for source in pair))
        assert set(tags(target)) == {"a", "b"}
        assert witness.holes(target) == ()


def test_opposite_ways_at_once(pair: tuple[Path, Path]) -> None:
    one, two = pair
    for _ in range(max(2, ROUNDS // 8)):
        all_end_well(command("merge", one, two), command("merge", two, one))
        for root in pair:
            assert set(tags(root)) == {"a", "b"}
            assert witness.holes(root) == ()
            kitcache.untag(root, ["b" if root == one else "a"])
            kitcache.reset(root)


def test_beside_sweeps_of_the_source_and_the_target(pair: tuple[Path, Path]) -> None:
    for n in range(max(2, ROUNDS // 8)):
        with on_disk(many(f"own{n}", 100)) as target:
            resets = [command("reset", root) for root in (*pair, target)]
            all_end_well(command("merge", *pair, target), *resets)
            assert set(tags(target)) == {f"own{n}", "a", "b"}
            assert witness.holes(target) == ()
        for root, name in zip(pair, "ab", strict=True):
            write(many(name, 200), root)
