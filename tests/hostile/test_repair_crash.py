"""SIGKILL at every call of a repair that gives or takes a name: what is whole stays whole.

And the next repair ends what the first began: the same tags, no byte lost, nothing left to do.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import kitcache
from kitcache.upkeep.health.repair import repair
from kitcache.upkeep.health.verify import verify
from tests.hostile import crash, privilege
from tests.hostile.build import Box, Json
from tests.hostile.importable import add_cache, grow, layer
from tests.property.disk import settle
from tests.property.importer import Seen, see, see_tags


@pytest.fixture(autouse=True, scope="module")
def _tool() -> None:
    missing = crash.missing_tool()
    if missing:
        privilege.cannot(missing)


def broken_cache(top: Path) -> Box:
    """A whole tag, and one of each that a repair has to do with; a copy that has some of it."""
    box = Box(top)
    grow(box, "whole", 3)
    cut = add_cache(box, "cut", [layer(box, "0"), layer(box, "cut 1"), layer(box, "cut 2")])
    taken = add_cache(box, "taken", [layer(box, "0"), layer(box, "taken 1"), layer(box, "taken 2")])
    gone = add_cache(box, "gone", [layer(box, "gone")])
    lying = add_cache(box, "lying", [layer(box, "lying")], as_index=True)
    (copy := top / "copy").mkdir()
    shutil.copytree(box.dir, copy, dirs_exist_ok=True)
    for blob in (*cut.layers[1:], cut.root, gone.root):
        if blob is not cut.root:
            (copy / "blobs" / blob["digest"].replace(":", "/")).unlink()
    box.entries[-1] = box.entries[-1] | {"size": lying.root["size"] + 1}
    box.write_index(json.dumps(box.index_document()).encode())
    box.damage(cut.layers[2]["digest"], b"other bytes")
    box.damage(taken.layers[1]["digest"], None)
    box.damage(taken.layers[2]["digest"], b"other bytes too")
    box.damage(gone.root["digest"], b"{}")
    box.damage(box.blob(b"nobody's")["digest"], b"nobody's either")
    settle(box.dir)
    return box


def torn(top: Path) -> Box:
    box = broken_cache(top)
    box.write_index((box.dir / "index.json").read_bytes()[:-40])
    return box


def lost(top: Path) -> Box:
    box = broken_cache(top)
    (box.dir / "index.json").unlink()
    return box


CACHES = {"damaged blobs": broken_cache, "a torn index": torn, "a lost index": lost}


def contents(root: Path) -> set[str]:
    files = [*(root / "blobs").rglob("*"), *(root / ".kitcache").rglob("*-*")]
    return {hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}


def commands(box: Box) -> list[str]:
    return crash.command("verify", box.dir, "--repair", "--from", box.top / "copy", "--quiet")


def fresh(name: str, top: Path) -> Box:
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    return CACHES[name](top)


def killed_everywhere(name: str, top: Path) -> Iterator[tuple[crash.Call, Box]]:
    log = top / "strace.log"
    box = fresh(name, top / "box")
    for call in crash.unnamed(crash.record(commands(box), crash.NAMING, log)):
        box = fresh(name, top / "box")
        assert crash.kill_before(commands(box), call, log), call
        yield call, box


def state(root: Path) -> dict[str | None, Seen]:
    return see_tags(root)


@pytest.mark.parametrize("name", CACHES)
def test_a_repair_does_what_there_is_to_kill(name: str, tmp_path: Path) -> None:
    """The precondition: each kind of step is in it."""
    box = fresh(name, tmp_path / "box")
    done = repair(box.dir, sources=[box.top / "copy"])
    kinds = {step.kind for step in done.actions}
    wanted = {"copy-blob", "rewrite-cache", "quarantine-blob"}
    wanted |= {"remove-tag", "move-tag"} if name == "damaged blobs" else {"rebuild-index"}
    assert wanted <= kinds
    assert done.exit_code == 0
    tags = state(box.dir)
    assert all(seen.is_whole for seen in tags.values())
    if name != "a lost index":
        assert {"whole", "cut", "taken"} <= tags.keys()


@pytest.mark.parametrize("name", CACHES)
def test_killed_at_any_call_it_leaves_the_whole_whole(name: str, tmp_path: Path) -> None:
    box = fresh(name, tmp_path / "box")
    before = contents(box.dir)
    whole: Json = next(entry for entry in box.entries if _tag(entry) == "whole")
    repair(box.dir, sources=[box.top / "copy"])
    expected = state(box.dir)
    kills = 0
    for call, box in killed_everywhere(name, tmp_path):
        kills += 1
        assert see(box.dir, whole["digest"]).is_whole, call
        if name == "damaged blobs":
            entries = json.loads((box.dir / "index.json").read_bytes())["manifests"]
            assert whole in entries, call
        assert before <= contents(box.dir), call

        repair(box.dir, sources=[box.top / "copy"], lock_timeout_s=0.0)
        assert state(box.dir) == expected, call
        assert before <= contents(box.dir), call
        assert verify(box.dir).exit_code == 0, call
        assert repair(box.dir).actions == (), call
        settle(box.dir)
        assert kitcache.reset(box.dir).outcome == "done", call
        assert state(box.dir) == expected, call
    assert kills > 10


def _tag(entry: Json) -> str:
    name: str = entry["annotations"]["org.opencontainers.image.ref.name"]
    return name
