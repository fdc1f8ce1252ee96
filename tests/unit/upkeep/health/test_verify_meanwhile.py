"""health/verify.py: under the shared lock, with others at work, and until it is cancelled."""

import fcntl
import json
import os
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Busy, Cancelled
from kitcache.gc.control import Control
from kitcache.store.directory import DirectoryStore
from kitcache.store.open import open_store
from kitcache.upkeep.health import blobcheck as module
from kitcache.upkeep.health import judge
from kitcache.upkeep.health.verify import verify, verify_locked
from tests.hostile.build import Box, encode
from tests.hostile.importable import Cached, add_cache, layer
from tests.unit.upkeep.health.healthkit import flip, words


def test_a_reset_is_waited_for_and_an_export_is_not(box: Box, main: Cached) -> None:
    with (box.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match=r"kitcache\.lock is held by"):
            verify(box.dir, lock_timeout_s=0)
        fcntl.flock(file, fcntl.LOCK_SH)
        assert verify(box.dir, lock_timeout_s=0).exit_code == 0


def test_the_lock_is_held_while_blobs_are_hashed(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = module.hash_all, []

    def try_to_lock(*words: Any, **more: Any) -> Any:
        with (box.dir / "kitcache.lock").open() as file:
            for kind in (fcntl.LOCK_SH, fcntl.LOCK_EX):
                try:
                    fcntl.flock(file, kind | fcntl.LOCK_NB)
                    tried.append("had")
                except BlockingIOError:
                    tried.append("busy")
        return real(*words, **more)

    monkeypatch.setattr(module, "hash_all", try_to_lock)
    verify(box.dir)
    assert tried == ["had", "busy"]


def test_without_a_lock_it_goes_on_and_says_so(box: Box, main: Cached) -> None:
    (box.dir / "kitcache.lock").mkdir()
    found = verify(box.dir)
    assert found.exit_code == 0
    (warning,) = found.warnings
    assert warning.startswith(
        "the cache is not protected from a concurrent reset: kitcache.lock is"
    )


def while_hashing(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    real = module.hash_all

    def hash_and_do(*words: Any, **more: Any) -> Any:
        found = real(*words, **more)
        do()
        return found

    monkeypatch.setattr(module, "hash_all", hash_and_do)


def test_what_is_published_meanwhile_is_looked_at(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish() -> None:
        new = add_cache(box, "dev", [layer(box, "new")])
        flip(box, new.layers[0]["digest"])

    while_hashing(monkeypatch, publish)
    found = verify(box.dir)
    assert words(found) == [("main", "cache", "full"), ("dev", "cache", "none")]
    assert len(found.bad_blobs) == 1


def test_what_was_bad_and_was_replaced_meanwhile_is_good(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = main.layers[0]["digest"]
    good = box.path_of(digest).read_bytes()
    flip(box, digest)

    def mend() -> None:
        box.damage(digest, good)
        box.tag("again", main.root)

    while_hashing(monkeypatch, mend)
    found = verify(box.dir)
    assert (found.exit_code, len(found.tags)) == (0, 2)


def test_an_index_that_is_lost_meanwhile(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_hashing(monkeypatch, (box.dir / "index.json").unlink)
    assert verify(box.dir).index_problem.startswith("index.json is missing")


def test_an_index_that_never_stops_changing(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = DirectoryStore.read_roots, 0

    def change_and_read(*words: Any) -> Any:
        nonlocal count
        count += 1
        index = json.loads((box.dir / "index.json").read_bytes()) | {"n": count}
        (box.dir / "index.json").write_bytes(encode(index))
        return real(*words)

    monkeypatch.setattr(DirectoryStore, "read_roots", change_and_read)
    found = verify(box.dir)
    assert found.warnings == (
        "index.json kept changing: the version that was read last is verified",
    )
    assert found.exit_code == 0


def test_a_reset_by_strangers_meanwhile_is_no_problem(
    box: Box, main: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = box.blob(b"garbage")
    flip(box, blob["digest"])

    def sweep() -> None:
        box.damage(blob["digest"], None)
        box.tag("again", main.root)

    while_hashing(monkeypatch, sweep)
    assert verify(box.dir).bad_blobs == ()


def test_progress_is_told(box: Box, main: Cached) -> None:
    phases = []
    verify(box.dir, on_progress=lambda event: phases.append(getattr(event, "phase", "")))
    assert "verify" in phases


def test_held_takes_no_lock(box: Box, main: Cached) -> None:
    before = os.listdir(box.dir)
    with open_store(box.dir) as layout:
        found, _ = verify_locked(layout, Control("cache", None, None))
    assert os.listdir(box.dir) == before
    assert found.exit_code == 0


def test_ctrl_c_is_noticed_between_two_tags(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("main", "dev"):
        add_cache(box, name, [layer(box, 0)])
    cancel, judged = Event(), []
    real = judge.check_import

    def check(*args: Any) -> Any:
        judged.append(args)
        cancel.set()
        return real(*args)

    monkeypatch.setattr(judge, "check_import", check)
    with pytest.raises(Cancelled):
        verify(box.dir, cancel=cancel)
    assert len(judged) == 1
