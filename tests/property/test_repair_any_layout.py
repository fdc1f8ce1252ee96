"""Law: whatever a layout holds, after a repair verify finds nothing and a reset works.

Images of many platforms, nested indexes, artifacts and what they are about, things that nobody
knows: what is whole stays, and what is not goes.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

import kitcache
from kitcache.upkeep.health.repair import repair
from kitcache.upkeep.health.verify import verify
from tests.property.disk import on_disk, settle, snapshot
from tests.property.harm import BLOB_HARMS, Harm, harms, inflict
from tests.property.model import Cache
from tests.property.strategies import caches

pytestmark = pytest.mark.usefixtures("impatient")


def listed(root: Path) -> list[Any]:
    found: list[Any] = json.loads((root / "index.json").read_bytes())["manifests"]
    return found


@given(caches(with_ingests=False, min_roots=1), st.lists(harms(*BLOB_HARMS), max_size=3))
def test_what_is_whole_stays_and_the_rest_goes(cache: Cache, chosen: list[Harm]) -> None:
    with on_disk(cache) as root:
        for harm in chosen:
            inflict(root, harm)
        # What an artifact is about may be absent, but where it is there a hole in it stops a reset.
        problems = [bool(tag.problem) for tag in kitcache.ls(root).tags]
        verdicts = verify(root).tags
        whole = {
            v.position for v in verdicts if v.importable == "full" and not problems[v.position]
        }
        stays = [entry for n, entry in enumerate(listed(root)) if n in whole]

        repaired = repair(root)

        event(", ".join(sorted({step.kind for step in repaired.actions})) or "nothing")
        assert repaired.exit_code == verify(root).exit_code == 0
        left = listed(root)
        assert [entry for entry in left if entry in stays] == stays
        once = snapshot(root)
        assert repair(root).actions == ()
        assert snapshot(root) == once
        settle(root)
        assert kitcache.reset(root).exit_code == 0
        assert verify(root).exit_code == 0
        assert listed(root) == left


@given(caches(with_ingests=False, min_roots=1), st.lists(harms(*BLOB_HARMS), max_size=2))
def test_a_lost_index_names_every_root_that_is_whole(cache: Cache, chosen: list[Harm]) -> None:
    with on_disk(cache) as root:
        for harm in chosen:
            inflict(root, harm)
        (root / "index.json").unlink()
        repaired = repair(root)
        assert repaired.exit_code == 0
        event(f"{min(len(repaired.verification.tags), 3)} roots")
        assert repair(root).actions == ()
        settle(root)
        if (root / "index.json").exists():
            assert kitcache.reset(root).exit_code == 0
            assert verify(root).exit_code == 0
