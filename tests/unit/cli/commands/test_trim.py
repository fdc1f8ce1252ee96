"""kitcache trim: its words, and what is said of it."""

import fcntl
import time
from pathlib import Path

import pytest

from kitcache.store.open import open_store
from kitcache.store.state import record_layer_uses
from tests.hostile import stages
from tests.hostile.command import run
from tests.hostile.stages import LAYER_BYTES, MAIN, Stages, entries, put_cache, steps_in

LIMIT = f"{4 * LAYER_BYTES - 1}B"


@pytest.fixture
def cache(tmp_path: Path) -> Stages:
    return stages.make_stages(tmp_path)


def test_what_went_and_what_stays(cache: Stages) -> None:
    answer = run(cache.box.top, "trim", "cache", "main", "--max-used-space", LIMIT)
    assert (answer.code, answer.err) == (0, "")
    first, head, *rows, hint, last, garbage = answer.out.splitlines()
    assert first == "cache: main shrank from 43.6 kB to 16.5 kB: 5 steps of 8 removed"
    assert head.split() == ["STEP", "CREATED", "LAST", "READ", "SIZE", "UNIQUE"]
    assert [row.split()[0] for row in rows] == [
        stages.record_of(name)[:19] for name in stages.AS_THEY_GO
    ]
    assert [row.split()[-1] for row in rows] == ["remove"] * 5 + ["keep"] * 3
    assert (
        hint == "no import is recorded: the oldest step that no other step needs is removed first"
    )
    assert last.startswith("cache: deleted 7 blobs, ")
    assert garbage == "cache: 3 blobs, 600 B of them were unreachable before"


def test_a_dry_run_says_would(cache: Stages) -> None:
    words = ("trim", "cache", "main", "--max-used-space", LIMIT, "--dry-run")
    answer = run(cache.box.top, *words)
    assert answer.out.startswith("cache: main would shrink from 43.6 kB to 16.5 kB")
    assert "cache: would delete 7 blobs, " in answer.out
    assert entries(cache.dir)["main"]["digest"] == cache.main["digest"]


def test_when_an_import_read_a_layer_is_shown(cache: Stages) -> None:
    with open_store(cache.dir) as layout:
        two_hours_ago_ns = time.time_ns() - 2 * 3600 * 10**9
        record_layer_uses(layout, [stages.layer_of("old 2")], two_hours_ago_ns)
    answer = run(cache.box.top, "trim", "cache", "main", "--max-used-space", LIMIT)
    (row,) = [line for line in answer.out.splitlines() if " 2 h " in line]
    assert row.startswith(stages.record_of("old 2")[:19])
    assert "noted" not in answer.out


def test_a_part_of_the_disk_is_prunes(cache: Stages) -> None:
    answer = run(cache.box.top, "trim", "cache", "main", "--max-used-space", "10%")
    assert (answer.code, answer.out) == (2, "")
    assert "'10%' is a part of the disk, which only prune takes" in answer.err


def test_what_fits(cache: Stages) -> None:
    answer = run(cache.box.top, "trim", "cache", "main", "--max-used-space", "1 GB")
    assert answer.out == "cache: main holds 43.6 kB of at most 1.0 GB: nothing was changed\n"
    assert (answer.code, answer.err) == (0, "")


def test_a_dry_run_shows_the_steps_of_a_tag_that_fits_too(cache: Stages) -> None:
    answer = run(cache.box.top, "trim", "cache", "main", "--max-used-space", "1 GB", "-n")
    head, columns, *steps = answer.out.splitlines()
    assert head.endswith("nothing was changed")
    assert columns.split() == ["STEP", "CREATED", "LAST", "READ", "SIZE", "UNIQUE"]
    assert [line.split()[-1] for line in steps[: len(MAIN)]] == ["keep"] * len(MAIN)


def test_of_many_steps_the_coldest_are_named(cache: Stages) -> None:
    base = MAIN[0]
    many = put_cache(cache.box, [base, *((f"step {n}", n, ("base",)) for n in range(2, 40))])
    cache.box.tag("many", many)
    answer = run(cache.box.top, "trim", "cache", "many", "--max-used-space", "100kB")
    lines = answer.out.splitlines()
    assert lines[2].startswith(stages.record_of("step 2")[:19])
    assert lines[22] == "and 19 more; --json has all"


def test_quiet_and_json(cache: Stages) -> None:
    words = ("trim", "cache", "main", "--max-used-space", LIMIT)
    said = run(cache.box.top, *words, "--dry-run", "--json").value
    assert (said["schema"], said["outcome"]) == ("kitcache.trim/1", "dry-run")
    assert (len(said["removed_steps"]), len(said["kept_steps"])) == (5, 3)
    answer = run(cache.box.top, *words, "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    done = run(cache.box.top, *words, "--json").value
    assert (done["outcome"], done["before"], done["reset"]) == ("unchanged", done["after"], None)
    assert done["after"]["digest"] == said["after"]["digest"]


def test_missing_layers_are_warned_of(cache: Stages) -> None:
    cache.box.damage(stages.layer_of("base"), None)
    answer = run(cache.box.top, "trim", "cache", "main", "--max-used-space", LIMIT, "--quiet")
    assert (answer.code, answer.out) == (0, "")
    assert "1 blob missing or incomplete" in answer.err


@pytest.mark.parametrize("tag", ["\x1b[31mred", "\u202edesrever", "a\nb", "-x", "'; rm -rf"])
def test_odd_tags_are_trimmed_and_never_printed_raw(cache: Stages, tag: str) -> None:
    cache.box.tag(tag, stages.put_cache(cache.box, stages.MAIN, is_index=True))
    words = ("trim", "cache", "--max-used-space")
    refused = run(cache.box.top, *words, "10B", "--", tag)
    assert refused.code == 14
    assert ("untag cache sha256:" in refused.err) == (tag[0] != "'"), "what can be pasted"
    assert run(cache.box.top, *words, LIMIT, "--", tag).code == 0
    assert len(steps_in(cache.dir, entries(cache.dir)[tag])) == 3


def test_lock_timeout(cache: Stages) -> None:
    words = ("trim", "cache", "main", "--max-used-space", LIMIT)
    with (cache.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        answer = run(cache.box.top, *words, "--lock-timeout", "0")
        assert run(cache.box.top, *words, "--dry-run").code == 0
    assert answer.code == 11
    assert entries(cache.dir)["main"]["digest"] == cache.main["digest"]
