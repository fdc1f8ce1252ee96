"""health/repair.py: others at work beside it, and what stops it on the way."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Busy, Cancelled, KitcacheError
from kitcache.gc.control import Control
from kitcache.store.directory import DirectoryStore
from kitcache.store.values import LockKind
from kitcache.upkeep.health import repair as module
from kitcache.upkeep.health.repair import repair
from kitcache.upkeep.health.verify import verify
from tests.hostile.build import Box
from tests.hostile.importable import Cached, grow
from tests.property.disk import snapshot
from tests.property.importer import see_tags
from tests.unit.upkeep.health.healthkit import kinds, locked


@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_it_waits_for_builds_and_resets(box: Box, cut: Cached, kind: LockKind) -> None:
    with locked(box.dir, kind):
        before = snapshot(box.dir)
        with pytest.raises(Busy):
            repair(box.dir, lock_timeout_s=0.0)
        assert snapshot(box.dir) == before


def test_an_upload_of_a_stranger_is_left_to_end(box: Box, cut: Cached) -> None:
    box.ingest("layer-new", age_s=1)
    before = snapshot(box.dir)
    with pytest.raises(Busy, match="another client is exporting") as caught:
        repair(box.dir)
    assert caught.value.effect == "nothing was changed"
    assert snapshot(box.dir) == before


def test_an_upload_stops_nobody_where_nothing_is_broken(box: Box) -> None:
    grow(box)
    box.ingest("layer-new", age_s=1)
    assert repair(box.dir).actions == ()


def publish_first(monkeypatch: pytest.MonkeyPatch, box: Box, times: int) -> list[int]:
    """Have a stranger publish a tag right before the repair writes, so many times."""
    real, calls = DirectoryStore.commit_roots, []

    def overtaken(*args: Any) -> Any:
        calls.append(len(calls))
        if len(calls) <= times:
            box.entries = json.loads((box.dir / "index.json").read_bytes())["manifests"]
            grow(box, f"new-{len(calls)}", 1)
        return real(*args)

    monkeypatch.setattr(DirectoryStore, "commit_roots", overtaken)
    return calls


def test_a_tag_that_is_published_meanwhile_stays(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = publish_first(monkeypatch, box, 2)
    done = repair(box.dir)
    assert (len(calls), done.exit_code) == (3, 0)
    assert see_tags(box.dir).keys() == {"whole", "cut", "new-1", "new-2"}


def test_where_others_publish_without_end_it_gives_up(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = publish_first(monkeypatch, box, 99)
    with pytest.raises(Busy):
        repair(box.dir)
    assert len(calls) == 8
    assert see_tags(box.dir)["cut"].digest == cut.root["digest"]


def test_an_export_that_mends_a_blob_meanwhile_has_done_it(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two locks: the second look sees the right bytes."""
    real = module.verify_locked

    def verified_then_mended(*args: Any, **more: Any) -> Any:
        found = real(*args, **more)
        box.damage(cut.layers[1]["digest"], b"layer cut " * 30)
        return found

    monkeypatch.setattr(module, "verify_locked", verified_then_mended)
    done = repair(box.dir)
    assert (done.actions, done.exit_code) == ((), 0)
    assert verify(box.dir).exit_code == 0


def test_two_at_once_do_it_once(box: Box, cut: Cached) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(repair, [box.dir, box.dir])
    assert (one.exit_code, other.exit_code) == (0, 0)
    steps = [("rewrite-cache", "cut"), ("quarantine-blob", None)]
    assert sorted((kinds(one), kinds(other))) == [[], steps]


def test_what_was_done_is_told_where_the_second_look_fails(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, cancel = DirectoryStore.commit_roots, Event()

    def published(*args: Any) -> Any:
        result = real(*args)
        monkeypatch.setattr(
            module, "verify_locked", lambda *_, **__: Control("", None, cancel).check()
        )
        return result

    cancel.set()
    monkeypatch.setattr(DirectoryStore, "commit_roots", published)
    with pytest.raises(Cancelled) as caught:
        repair(box.dir)
    told = str(caught.value)
    assert "tag 'cut' was rewritten without 1 of its 2 steps" in told
    assert "everything was repaired" in told
    assert see_tags(box.dir)["cut"].is_whole


@pytest.mark.parametrize("moment", ["take_blob", "write_blob", "commit_roots"])
def test_a_cancel_between_steps_leaves_the_rest_to_the_next(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    stray = box.blob(b"nobody's")
    box.damage(stray["digest"], b"bad too")
    cancel = Event()
    owners = {"take_blob": module.Quarantine, "commit_roots": DirectoryStore}
    owner: Any = owners.get(moment, module)
    real = getattr(owner, moment)

    def then_cancel(*args: Any) -> Any:
        result = real(*args)
        cancel.set()
        return result

    monkeypatch.setattr(owner, moment, then_cancel)
    with pytest.raises(Cancelled) as caught:
        repair(box.dir, cancel=cancel)
    assert (
        caught.value.effect == "every tag that was importable still is; the next repair continues"
    )
    monkeypatch.undo()
    assert see_tags(box.dir)["whole"].is_whole
    assert repair(box.dir).exit_code == 0


def test_what_fails_on_the_way_says_that_the_next_goes_on(
    box: Box, cut: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> Any:
        raise KitcacheError("cache", "cannot write a new blob: No space left on device")

    monkeypatch.setattr(module, "write_blob", full)
    before = see_tags(box.dir)
    with pytest.raises(KitcacheError, match="No space left") as caught:
        repair(box.dir)
    assert "the next repair continues" in str(caught.value)
    assert see_tags(box.dir) == before
