"""health/repair.py: how many bytes a repair reads, and which blobs it hashes again."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kitcache.store.directory import DirectoryStore
from kitcache.upkeep.health import repair as module
from kitcache.upkeep.health.repair import repair
from kitcache.upkeep.health.verify import verify
from tests.hostile.build import LAYER, Box, Json, digest_of
from tests.hostile.importable import UNCOMPRESSED, add_cache
from tests.property.disk import settle
from tests.unit.upkeep.health.healthkit import flip, kinds

MIB = 1024 * 1024


def large(box: Box, number: int) -> Json:
    blob = box.blob(bytes([number]) * MIB, LAYER)
    return blob | {"annotations": {UNCOMPRESSED: digest_of(f"tar {number}".encode())}}


@pytest.fixture
def layers(box: Box) -> list[Json]:
    """Two caches of eight layers of a mebibyte; the last layer of the second one is bad."""
    layers = [large(box, number) for number in range(16)]
    add_cache(box, "whole", layers[:8])
    add_cache(box, "cut", layers[8:])
    flip(box, layers[15]["digest"])
    settle(box.dir)
    return layers


def bytes_read() -> int:
    """By this process so far, in all threads."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar: ")).split()[1])


def test_each_blob_is_read_once_and_a_bad_one_twice(box: Box, layers: list[Json]) -> None:
    before = bytes_read()
    done = repair(box.dir)
    read = bytes_read() - before
    assert (kinds(done), done.exit_code) == (
        [("rewrite-cache", "cut"), ("quarantine-blob", None)],
        0,
    )
    # The rest are documents: a few kB, each read for several reasons.
    assert 17 * MIB <= read < 17.25 * MIB
    assert done.verification.blobs.blobs == verify(box.dir).blobs.blobs
    assert done.verification.blobs.bytes == verify(box.dir).blobs.bytes


def after_the_first_hash(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Let another process act between the two locks of a repair."""
    real, calls = module.verify_locked, []

    def verify_and_do(*args: Any, **more: Any) -> Any:
        found = real(*args, **more)
        calls.append(found)
        if len(calls) == 1:
            do()
        return found

    monkeypatch.setattr(module, "verify_locked", verify_and_do)


HOW = ("replaced", "rewritten", "old dates", "renamed")


def spoil(box: Box, digest: str, how: str) -> None:
    """Other bytes of the same length, by each of the ways that a blob can change."""
    path = box.path_of(digest)
    bad, stat = bytes(len(path.read_bytes())), path.stat()
    if how == "rewritten":
        box.damage(digest, bad)
    else:
        other = path.with_name("new")
        other.write_bytes(bad)
        os.utime(other, ns=(stat.st_atime_ns, 10**9 if how == "old dates" else stat.st_mtime_ns))
        if how == "renamed":
            path.rename(path.with_name("old"))
        other.rename(path)


@pytest.mark.parametrize("how", HOW)
def test_a_blob_that_changed_since_is_hashed_again(
    box: Box, layers: list[Json], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Also one of a tag that was importable: the result must not call it that."""
    digest = layers[3]["digest"]
    after_the_first_hash(monkeypatch, lambda: spoil(box, digest, how))
    done = repair(box.dir)
    assert done.exit_code == 12
    assert [str(blob.digest) for blob in done.verification.bad_blobs] == [digest]
    assert done.verification == verify(box.dir)._replace(seconds=done.verification.seconds)
    monkeypatch.undo()
    again = repair(box.dir)
    assert (again.exit_code, kinds(again)[-1]) == (0, ("quarantine-blob", None))


def test_a_blob_that_was_added_since_is_hashed(
    box: Box, layers: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a client that copies files with their dates, as rsync does."""

    def add() -> None:
        new = large(box, 77)
        spoil(box, new["digest"], "old dates")
        add_cache(box, "new", [new])

    box.entries = json.loads((box.dir / "index.json").read_bytes())["manifests"]
    after_the_first_hash(monkeypatch, add)
    done = repair(box.dir)
    assert done.exit_code == 12
    assert len(done.verification.bad_blobs) == 1
    assert [tag.importable for tag in done.verification.tags] == ["full", "full", "none"]


def test_what_was_bad_and_is_still_there_is_reported(
    box: Box, layers: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its file has not changed since it was hashed."""
    monkeypatch.setattr(module._Repair, "run", lambda *_: ())
    done = repair(box.dir)
    assert done.exit_code == 12
    assert [str(b.digest) for b in done.verification.bad_blobs] == [layers[15]["digest"]]


def test_right_bytes_that_came_since_stay(
    box: Box, layers: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = layers[15]["digest"]
    after_the_first_hash(monkeypatch, lambda: flip(box, digest))
    before = bytes_read()
    done = repair(box.dir)
    read = bytes_read() - before
    assert (done.actions, done.exit_code) == ((), 0)
    # It is read under the exclusive lock, in the verification after it, and by flip.
    assert 19 * MIB <= read < 19.25 * MIB


def test_where_the_time_of_the_first_hash_is_unknown_everything_is_hashed_again(
    box: Box, layers: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DirectoryStore, "next_tick_ns", lambda *_: 0)
    before = bytes_read()
    assert repair(box.dir).exit_code == 0
    assert bytes_read() - before >= 32 * MIB
