"""Each packed cache, repaired: verify finds nothing, a reset works, what was whole is untouched."""

import json
from pathlib import Path
from typing import Any

import pytest

import kitcache
from kitcache.upkeep.health.repair import repair
from kitcache.upkeep.health.verify import verify
from tests.caches.harness import read_expectations, unpack
from tests.caches.snapshot import take_snapshot
from tests.caches.steps import ImpossibleError, Stage

EXPECTATIONS = read_expectations()
NO_CACHE = "layout-empty-dir"
UNDER_WAY = "bk-interrupted-fresh"
"""There nothing is broken, and a reset waits for the export that seems to be under way."""


def listed(cache: Path) -> list[Any]:
    """The entries of index.json, as they are written; none where they cannot be read."""
    try:
        found = json.loads((cache / "index.json").read_bytes())["manifests"]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return found or []


@pytest.mark.parametrize("name", [name for name in EXPECTATIONS if name != NO_CACHE])
def test_a_repaired_cache_can_be_reset(name: str, tmp_path: Path) -> None:
    wanted = EXPECTATIONS[name]
    with Stage(unpack(name, tmp_path)) as stage:
        try:
            stage.do(wanted.setup)
        except ImpossibleError as reason:
            pytest.skip(str(reason))
        stage.start()
        cache = tmp_path / wanted.dir
        before = {v.position for v in verify(cache).tags if v.importable == "full"}
        whole = [entry for n, entry in enumerate(listed(cache)) if n in before]
        beside = take_snapshot(tmp_path / "neighbour")
        foreseen = repair(cache, dry_run=True)

        repaired = repair(cache)

        assert [step[:3] for step in repaired.actions] == [step[:3] for step in foreseen.actions]
        assert repaired.exit_code == verify(cache).exit_code == 0, repaired
        assert [entry for entry in listed(cache) if entry in whole] == whole
        assert repair(cache).actions == ()
        assert take_snapshot(tmp_path / "neighbour") == beside
        if name == UNDER_WAY:
            assert repaired.actions == ()
        else:
            assert kitcache.reset(cache).outcome == "done"
        assert verify(cache).exit_code == 0
        assert [entry for entry in listed(cache) if entry in whole] == whole
    assert stage.trouble == []


def test_what_is_no_cache_is_not_made_one(tmp_path: Path) -> None:
    cache = unpack(NO_CACHE, tmp_path)
    assert repair(cache).actions == ()
    assert list(cache.iterdir()) == []
    (cache / "notes").touch()
    with pytest.raises(kitcache.NotACache):
        repair(cache)
