"""One call of the C library fails, whichever it is: no tag is lost, and no blob of one.

The law is in fault_law.py, the commands are in fault_scenes.py.
"""

import os
import random
import re
from pathlib import Path

import pytest

from tests.hostile.fault_law import Stage
from tests.hostile.fault_scenes import SCENES, Scene
from tests.hostile.faulty import Server

ROUNDS = int(os.environ.get("KITCACHE_ROUNDS", "20"))
FAULTS = ROUNDS
"""How many faults a scene has; one that waits has fewer."""


@pytest.mark.parametrize("name", SCENES)
def test_one_failed_call_costs_no_tag(name: str, fault_server: Server, quick_path: Path) -> None:
    stage = Stage(fault_server, SCENES[name], quick_path)
    check_clean(SCENES[name], stage)
    faults, count = stage.faults, FAULTS // (4 if SCENES[name].seconds else 1)
    if len(faults) > count:
        faults = random.Random(name).sample(faults, count)
    found = [f"{fault}: {line}" for fault in faults for line in stage.complaints(fault)]
    assert not found, f"{len(found)} complaints:\n" + "\n".join(found[:20])


def test_a_failed_look_at_what_is_open_is_an_error_of_ours(
    fault_server: Server, quick_path: Path
) -> None:
    """In the library: the command line makes words of each OSError. Once for each file."""
    stage = Stage(fault_server, SCENES["export"], quick_path)
    faults = {
        re.sub("[0-9a-f]{16,}", "…", f.call.name): f for f in stage.faults if f.call.kind == "fstat"
    }
    found = [f"{fault}: {line}" for fault in faults.values() for line in stage.complaints(fault)]
    assert not found, "\n".join(found)
    assert len(faults) > 5


def check_clean(scene: Scene, stage: Stage) -> None:
    """The precondition: undisturbed, the command does what the scene says, and nothing else."""
    assert stage.done.code == 0, stage.done.said
    made = (stage.clean.get("made") or stage.clean["cache"]).tags or {}
    before = stage.before["cache"].tags
    if before is not None and "made" not in stage.clean:
        assert before.keys() - made.keys() == scene.gone
        assert {tag for tag in made if made[tag] != before.get(tag)} == scene.new
    assert scene.new <= made.keys()
    assert not any(state.holes for state in stage.clean.values())
    assert len(stage.done.calls) > 30
