"""SIGKILL at every removing or renaming call in turn: every tag stays whole, the next run finishes.

Covered: each unlink, rmdir and rename that the recorded run makes, in whichever thread, each from
a fresh copy of the same cache; for untag also each write, fsync and chmod. Then kills at random
moments of a large, threaded sweep.
"""

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kitcache
from tests.hostile import crash, privilege
from tests.property import make, witness
from tests.property.disk import blobs, index_document, ingests, on_disk, settle
from tests.property.model import HOUR_S, Cache, Foreign, Ingest, Node, verdict

ROUNDS = int(os.environ.get("KITCACHE_ROUNDS", "20"))


@pytest.fixture(autouse=True, scope="module")
def _tool() -> None:
    missing = crash.missing_tool()
    if missing:
        privilege.cannot(missing)


def grown(garbage_blobs: int = 4) -> Cache:
    """Two tags that share layers, an older export of one of them, and unfinished uploads."""
    layers = [make.leaf(b"layer %d" % n, algorithm=("sha256", "sha512")[n % 2]) for n in range(6)]
    new_config, old_config = make.cacheconfig(layers[:4]), make.cacheconfig(layers[2:], 1)
    new = make.manifest(make.honest(new_config), [make.honest(n) for n in layers[:4]])
    old = make.manifest(make.honest(old_config), [make.honest(n) for n in layers[2:]])
    image_config = make.image_config(1)
    image = make.manifest(make.honest(image_config), [make.honest(layers[0])])
    index = make.index([make.honest(make.index([make.honest(image)]))])
    inner = make.index([make.honest(image)])
    loose: list[Node] = [make.leaf(b"garbage %d" % n) for n in range(garbage_blobs)]
    nodes = make.by_digest(
        [*layers, new_config, old_config, new, old, image_config, image, inner, index, *loose]
    )
    ages_s = dict.fromkeys(nodes, 3 * HOUR_S)
    uploads = (Ingest("layer-a", 2 * HOUR_S, b"half"), Ingest("b", 9 * HOUR_S, b""))
    foreign = (Foreign("README", "file", "mine"), Foreign("blobs/sha256/notes", "file", "mine"))
    entries = (make.entry(new, "main"), make.entry(index, "image"))
    return Cache(nodes, entries, frozenset(), ages_s, foreign, uploads)


CACHE = grown()


def recorded(args: list[str], syscalls: tuple[str, ...], log: Path) -> list[crash.Call]:
    with on_disk(CACHE) as root:
        return crash.record(crash.command(args[0], root, *args[1:]), syscalls, log)


def killed_everywhere(
    args: list[str], syscalls: tuple[str, ...], tmp_path: Path
) -> Iterator[tuple[crash.Call, Path]]:
    """Each call of the command, and a fresh copy of the cache in which it was killed there."""
    log = tmp_path / "strace.log"
    calls = recorded(args, syscalls, log)
    # The new file of an untag has another name in each run, and an untag has one thread.
    for call in crash.unnamed(calls) if args[0] == "untag" else calls:
        with on_disk(CACHE) as root:
            assert crash.kill_before(crash.command(args[0], root, *args[1:]), call, log), call
            yield call, root


def test_the_recorded_reset_removes_what_it_should(tmp_path: Path) -> None:
    """The precondition: there is something to kill, and the recording misses none of it."""
    calls = recorded(["reset"], crash.REMOVING, tmp_path / "strace.log")
    names = {call.name for call in calls}
    assert {digest.partition(":")[2] for digest in verdict(CACHE).remove} <= names
    for ingest in CACHE.ingests:
        assert any(ingest.name in name for name in names)
    assert {"data", "ref", "startedat", "updatedat", "total"} <= names
    assert len(verdict(CACHE).remove) == 8


def test_a_reset_killed_at_any_call_leaves_every_tag_whole(tmp_path: Path) -> None:
    expected = verdict(CACHE)
    kills = 0
    for call, root in killed_everywhere(["reset"], crash.REMOVING, tmp_path):
        kills += 1
        assert witness.holes(root) == (), call
        assert json.loads((root / "index.json").read_bytes()) == index_document(CACHE.entries)
        left = blobs(root)
        assert expected.keep <= left
        settle(root)
        report = kitcache.reset(root)
        assert report.exit_code == 0, call
        assert report.deleted.blobs == len(left - expected.keep), call
        assert blobs(root) == expected.keep, call
        assert ingests(root) == frozenset(), call
        assert (root / "README").exists()
    assert kills >= len(expected.remove) + sum(6 for _ in CACHE.ingests)


def test_an_untag_killed_at_any_call_leaves_the_old_index_or_the_new(tmp_path: Path) -> None:
    after = CACHE._replace(entries=CACHE.entries[1:])
    old, new = index_document(CACHE.entries), index_document(after.entries)
    seen = set()
    for call, root in killed_everywhere(["untag", "main"], crash.WRITING, tmp_path):
        found = json.loads((root / "index.json").read_bytes())
        assert found in (old, new), call
        seen.add(found == new)
        assert witness.holes(root) == (), call
        assert blobs(root) == CACHE.present
        if found == old:
            assert kitcache.untag(root, ["main"]).entries, call
        settle(root)
        kitcache.reset(root)
        assert blobs(root) == verdict(after).keep, call
        assert json.loads((root / "index.json").read_bytes()) == new
    assert seen == {True, False}


def test_a_kill_leaves_no_lock_behind(tmp_path: Path) -> None:
    """flock goes with the process: the next reset need not wait."""
    last = recorded(["reset"], crash.REMOVING, tmp_path / "log")[-1]
    with on_disk(CACHE) as root:
        assert crash.kill_before(crash.command("reset", root), last, tmp_path / "log")
        settle(root)
        assert (root / "kitcache.lock").exists()
        assert kitcache.reset(root, lock_timeout_s=0.0).outcome == "done"


def test_a_large_sweep_killed_in_the_middle_is_finished_by_the_next() -> None:
    """Several batches and threads: killed once a random share of the garbage is gone."""
    cache = grown(garbage_blobs=4000)._replace(ingests=())
    rng = random.Random(ROUNDS)
    in_the_middle = sum(
        kill_at_share(cache, rng.uniform(0.05, 0.9)) for _ in range(max(4, ROUNDS // 4))
    )
    assert in_the_middle


def kill_at_share(cache: Cache, share: float) -> bool:
    """Whether the kill came while some garbage was left."""
    expected = verdict(cache)
    threshold = len(expected.keep) + int(len(expected.remove) * (1 - share))
    with on_disk(cache) as root:
        child = subprocess.Popen(crash.command("reset", root), stdout=subprocess.DEVNULL)
        while child.poll() is None and len(os.listdir(root / "blobs" / "sha256")) > threshold:
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        left = blobs(root)
        assert witness.holes(root) == ()
        assert kitcache.reset(root).deleted.blobs == len(left - expected.keep)
        assert blobs(root) == expected.keep
    return left > expected.keep
