"""A trim that is killed, overtaken, raced, or out of room: the tag is as it was, or trimmed."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kitcache
from kitcache.upkeep.trimming.trim import trim
from tests.caches.snapshot import take_snapshot
from tests.hostile import crash, privilege, stages, strangers
from tests.hostile.command import run, unchanged
from tests.hostile.pair import after, before
from tests.hostile.stages import AS_THEY_GO, LAYER_BYTES, Stages, entries, steps_in
from tests.hostile.test_bad_disk import fill, use_up_names
from tests.property import witness
from tests.property.disk import blobs, settle

LIMIT = 5 * LAYER_BYTES - 1
WORDS = ("main", "--max-used-space", f"{LIMIT}B")
KEPT = sorted(AS_THEY_GO[4:])
_RANDOM = re.compile(r"\.[0-9a-f]{16}$")


@pytest.fixture
def cache(tmp_path: Path) -> Stages:
    made = stages.make_stages(tmp_path)
    settle(made.dir)
    return made


def digest_of(cache: Path, tag: str) -> str:
    digest: str = entries(cache)[tag]["digest"]
    return digest


class TestKilled:
    @pytest.fixture(autouse=True)
    def _tool(self) -> None:
        missing = crash.missing_tool()
        if missing:
            privilege.cannot(missing)

    @pytest.mark.parametrize("syscalls", [crash.REMOVING, ("fsync", "fchmod", "write")])
    def test_at_any_call_the_tag_is_as_it_was_or_trimmed(
        self, cache: Stages, tmp_path: Path, syscalls: tuple[str, ...]
    ) -> None:
        """And the next trim, or the next reset, finishes the work."""
        (top := tmp_path / "whole").mkdir()
        shutil.copytree(cache.dir, top / "cache")
        trimmed = str(trim(top / "cache", "main", LIMIT).after)
        seen = set()
        for call, root in killed_everywhere(cache, syscalls, tmp_path):
            now = digest_of(root, "main")
            assert now in (cache.main["digest"], trimmed), call
            seen.add(now)
            assert witness.holes(root) == (), call
            assert digest_of(root, "dev") == cache.dev["digest"]
            settle(root)
            if now == trimmed:
                assert sorted(steps_in(root, entries(root)["main"])) == KEPT
                assert kitcache.reset(root).exit_code == 0
            else:
                assert trim(root, "main", LIMIT).outcome == "done", call
            assert digest_of(root, "main") == trimmed, call
            assert blobs(root) == blobs(top / "cache"), call
        assert seen == {cache.main["digest"], trimmed}

    def test_the_recording_has_all_that_there_is_to_kill(
        self, cache: Stages, tmp_path: Path
    ) -> None:
        (top := tmp_path / "other").mkdir()
        shutil.copytree(cache.dir, top / "cache")
        names = {call.name for call in recorded(top / "cache", crash.REMOVING, tmp_path / "log")}
        assert cache.garbage <= names
        assert cache.main["digest"].partition(":")[2] in names, "the old root is removed"
        new = digest_of(top / "cache", "main")
        assert {new.partition(":")[2], "index.json"} <= names, "and the new one is named"


def recorded(root: Path, syscalls: tuple[str, ...], log: Path) -> list[crash.Call]:
    calls = crash.record(crash.command("trim", root, *WORDS), syscalls, log)
    # What has a name of its own in every run cannot be met again by it.
    return [call for call in calls if not _RANDOM.search(call.name)]


def killed_everywhere(
    cache: Stages, syscalls: tuple[str, ...], tmp_path: Path
) -> Iterator[tuple[crash.Call, Path]]:
    log, root = tmp_path / "strace.log", tmp_path / "copy"
    shutil.copytree(cache.dir, root)
    for call in recorded(root, syscalls, log):
        shutil.rmtree(root)
        shutil.copytree(cache.dir, root)
        settle(root)
        if crash.kill_before(crash.command("trim", root, *WORDS), call, log):
            yield call, root
        else:
            assert call.syscall == "write", call


class TestOthers:
    def test_two_trims_of_one_tag(self, cache: Stages) -> None:
        """The tighter one has the last word, whoever comes first."""
        for _ in range(5):
            root = cache.box.top / "copy"
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(cache.dir, root)
            settle(root)
            commands = [
                crash.command("trim", root, "main", "--max-used-space", f"{limit}B")
                for limit in (LIMIT, LIMIT - 2 * LAYER_BYTES)
            ]
            children = [subprocess.Popen(c, stdout=subprocess.DEVNULL) for c in commands]
            assert [child.wait() for child in children] == [0, 0]
            assert sorted(steps_in(root, entries(root)["main"])) == sorted(AS_THEY_GO[6:])
            assert witness.holes(root) == ()
            # What one of them wrote in the tick in which the other began is too young for that one.
            subprocess.run(crash.command("reset", root), check=True, stdout=subprocess.DEVNULL)
            assert witness.garbage(root) == frozenset()

    def test_two_tags_at_once(self, cache: Stages) -> None:
        commands = [
            crash.command("trim", cache.dir, tag, "--max-used-space", f"{LIMIT - LAYER_BYTES}B")
            for tag in ("main", "dev")
        ]
        children = [subprocess.Popen(c, stdout=subprocess.DEVNULL) for c in commands]
        assert [child.wait() for child in children] == [0, 0]
        assert witness.holes(cache.dir) == ()
        subprocess.run(crash.command("reset", cache.dir), check=True, stdout=subprocess.DEVNULL)
        assert witness.garbage(cache.dir) == frozenset()
        assert len(steps_in(cache.dir, entries(cache.dir)["main"])) == 3
        assert len(steps_in(cache.dir, entries(cache.dir)["dev"])) == 3

    @pytest.mark.parametrize(
        "moment", ["kitcache.upkeep.trimming.trim.plan_trims", "kitcache.upkeep.edit.write_root"]
    )
    def test_who_publishes_another_tag_before_it_moves_is_heard(
        self, cache: Stages, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        layers = [b"layer of a stranger"]
        pushed = strangers.push_cache(cache.dir, layers, 1)
        settle(cache.dir)
        after(monkeypatch, moment, lambda: strangers.publish(cache.dir, "late", *pushed))
        done = trim(cache.dir, "main", LIMIT)
        assert done.outcome == "done"
        assert set(entries(cache.dir)) == {"main", "dev", "image", "late"}
        assert sorted(steps_in(cache.dir, entries(cache.dir)["main"])) == KEPT
        assert witness.holes(cache.dir) == ()

    def test_who_publishes_the_same_tag_meanwhile_is_not_overwritten(
        self, cache: Stages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is trimmed then is the new cache, which fits: it is left alone."""
        pushed = strangers.push_cache(cache.dir, [b"layer of a stranger"], 1)
        settle(cache.dir)
        publish = lambda: strangers.publish(cache.dir, "main", *pushed)  # noqa: E731
        after(monkeypatch, "kitcache.upkeep.edit.write_root", publish)
        assert trim(cache.dir, "main", LIMIT).outcome == "unchanged"
        assert digest_of(cache.dir, "main") == pushed[0]
        assert witness.holes(cache.dir) == ()

    def test_who_publishes_while_it_sweeps_keeps_its_tag(
        self, cache: Stages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pushed = strangers.push_cache(cache.dir, [b"layer of a stranger"], 1)
        settle(cache.dir)
        publish = lambda: strangers.publish(cache.dir, "late", *pushed)  # noqa: E731
        before(monkeypatch, "kitcache.upkeep.edit.collect", publish)
        done = trim(cache.dir, "main", LIMIT)
        assert done.after_size.bytes <= LIMIT
        assert digest_of(cache.dir, "late") == pushed[0]
        assert witness.holes(cache.dir) == ()

    def test_who_takes_the_old_root_up_again_while_it_sweeps_is_told(
        self, cache: Stages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stranger without our lock, which names blobs that are about to go: never in silence."""
        old = cache.main["digest"], cache.main["size"]
        apply = "kitcache.gc.collect.apply"
        after(monkeypatch, apply, lambda: strangers.publish(cache.dir, "late", *old))
        with pytest.raises(kitcache.Damaged) as caught:
            trim(cache.dir, "main", LIMIT)
        assert caught.value.kind == "lost"
        assert "1 entry of index.json had been trimmed" in caught.value.effect
        assert {hole.ref_name for hole in witness.holes(cache.dir)} == {"late"}
        assert sorted(steps_in(cache.dir, entries(cache.dir)["main"])) == KEPT


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Stages]:
    with privilege.small_disk(tmp_path / "disk", size="1m", nr_inodes="200") as disk:
        made = stages.make_stages(disk)
        settle(made.dir)
        yield made


class TestNoRoom:
    @pytest.mark.parametrize("use_up", [fill, use_up_names])
    def test_on_a_full_disk_the_garbage_makes_room(
        self, small: Stages, use_up: Callable[[Path], None]
    ) -> None:
        (small.dir / "kitcache.lock").touch()
        (small.dir / "index.json.lock").touch()
        for n in range(5):
            small.box.blob(b"more garbage %d " % n * 20)
        use_up(small.box.top)
        answer = run(small.box.top, "trim", "cache", *WORDS)
        assert answer.code == 0, answer.err
        assert sorted(steps_in(small.dir, entries(small.dir)["main"])) == KEPT
        assert witness.garbage(small.dir) == frozenset()

    def test_without_garbage_it_says_so_and_leaves_all_as_it_was(self, small: Stages) -> None:
        kitcache.reset(small.dir)
        (small.dir / ".kitcache").mkdir()
        (small.dir / "index.json.lock").touch()
        fill(small.box.top)
        held = take_snapshot(small.box.top)
        answer = run(small.box.top, "trim", "cache", *WORDS)
        assert answer.code == 1
        assert "No space left" in answer.err
        assert "  nothing was changed\n" in answer.err
        assert unchanged(held, take_snapshot(small.box.top)) == []

    def test_a_read_only_disk_is_read_for_a_dry_run(self, small: Stages) -> None:
        (small.dir / "kitcache.lock").touch()
        (small.dir / ".kitcache").mkdir()
        privilege.make_read_only(small.box.top)
        held = take_snapshot(small.box.top)
        assert run(small.box.top, "trim", "cache", *WORDS, "--dry-run").code == 0
        answer = run(small.box.top, "trim", "cache", *WORDS)
        assert answer.code == 1
        assert "ead-only file system" in answer.err
        assert take_snapshot(small.box.top) == held


def test_a_crafted_cacheconfig_costs_no_hour(cache: Stages) -> None:
    """Thousands of records, each reached through two before it: seconds, and flat recursion."""
    records: list[object] = []
    for n in range(4000):
        record: dict[str, object] = {"digest": stages.record_of(str(n))}
        record["layers"] = [{"layer": n % 8, "createdAt": "2026-01-01T00:00:00Z"}]
        if n:
            record["inputs"] = [[{"link": n - 1}, {"link": max(0, n - 2)}]]
        records.append(record)
    config = stages.cacheconfig_of(stages.MAIN) | {"records": records}
    layers = json.loads(cache.box.path_of(cache.main["digest"]).read_bytes())["layers"]
    described = cache.box.document(config, stages.CACHECONFIG)
    cache.box.tag("deep", cache.box.manifest(layers, described))
    answer = run(cache.box.top, "trim", "cache", "deep", "--max-used-space", "200kB", "--json")
    assert answer.code == 0, answer.err
    assert answer.value["after"]["bytes"] <= 200_000
    assert len(answer.value["kept_steps"]) + len(answer.value["removed_steps"]) == 4000
