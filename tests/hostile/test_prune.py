"""prune under attack: killed at every call, two at once, exports in between, clocks, full disks.

Laws: a kept tag is whole at every moment; a dropped one has its entry and all its blobs, or no
entry; whatever happened, the next prune ends where the first would have.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kitcache
from kitcache.options.prunepolicy import DiskSpace, PrunePolicy, PruneRule
from kitcache.upkeep.pruning.prune import prune
from tests.caches.snapshot import take_snapshot
from tests.hostile import crash, privilege, stages, strangers
from tests.hostile.build import Sample, make_sample
from tests.hostile.command import run, unchanged
from tests.hostile.crash import command
from tests.hostile.pair import OLD_DIGESTS, ROUNDS, publish_old, two_tags
from tests.hostile.privilege import make_read_only, small_disk
from tests.hostile.test_bad_disk import fill, use_up_names
from tests.hostile.test_crash import CACHE
from tests.property import witness
from tests.property.disk import blobs, index_document, on_disk, settle
from tests.property.model import verdict

KEEP_MAIN = ["--keep-tag", "main"]
DAY_S = 86_400


def names(root: Path) -> list[str]:
    index = json.loads((root / "index.json").read_bytes())
    return [entry["annotations"][strangers.REF_NAME] for entry in index["manifests"]]


def copied(root: Path, tmp_path: Path) -> Path:
    """The cache again, in a directory of its own."""
    top = Path(tempfile.mkdtemp(dir=tmp_path))
    shutil.copytree(root, top / "cache")
    settle(top / "cache")
    return top / "cache"


class TestCrash:
    @pytest.fixture(autouse=True)
    def _tool(self) -> None:
        missing = crash.missing_tool()
        if missing:
            privilege.cannot(missing)

    def test_killed_at_any_call_it_leaves_tags_whole_or_gone(self, tmp_path: Path) -> None:
        """Every removing, renaming, writing and syncing call in turn."""
        log = tmp_path / "strace.log"
        after = CACHE._replace(entries=CACHE.entries[:1])
        old, new = index_document(CACHE.entries), index_document(after.entries)
        expected, seen = verdict(after).keep, set()
        with on_disk(CACHE) as root:
            calls = crash.record(crash.command("prune", root, *KEEP_MAIN), crash.WRITING, log)
            assert blobs(root) == expected
        removed = {call.name for call in calls if call.syscall == "unlinkat"}
        assert {digest.partition(":")[2] for digest in CACHE.present - expected} <= removed
        for call in calls:
            with on_disk(CACHE) as root:
                if not crash.kill_before(crash.command("prune", root, *KEEP_MAIN), call, log):
                    # Names that are random in each run cannot be met again.
                    assert ".json." in call.name, call
                    continue
                found = json.loads((root / "index.json").read_bytes())
                assert found in (old, new), call
                seen.add(found == new)
                # Whatever has an entry is whole: kept, or not dropped yet.
                assert witness.holes(root) == (), call
                left = blobs(root)
                assert expected <= left
                assert left == CACHE.present or found == new, call
                settle(root)
                again = prune(root, PrunePolicy(keep_tags=("main",)))
                assert again.exit_code == 0, call
                assert again.reset.deleted.blobs == len(left - expected), call
                assert json.loads((root / "index.json").read_bytes()) == new
                assert blobs(root) == expected, call
        assert seen == {True, False}

    def test_killed_it_has_dropped_and_trimmed_or_neither(self, tmp_path: Path) -> None:
        """Both are one edit of index.json."""
        made, log = stages.make_stages(tmp_path), tmp_path / "log"
        settle(made.dir)
        words = ["--max-used-space", "25kB", "--keep-tag", "main", "--trim"]
        whole = copied(made.dir, tmp_path)
        calls = crash.record(crash.command("prune", whole, *words), crash.REMOVING, log)
        old, new = stages.entries(made.dir), stages.entries(whole)
        assert (set(old), set(new)) == ({"main", "dev", "image"}, {"main"})
        assert old["main"]["digest"] != new["main"]["digest"]
        policy = PrunePolicy(("main",), max_used=DiskSpace(bytes=25_000), trim=True)
        seen = set()
        for call in calls:
            root = copied(made.dir, tmp_path)
            # Names that are random in each run cannot be met again.
            if crash.kill_before(crash.command("prune", root, *words), call, log):
                now = stages.entries(root)
                assert now in (old, new), call
                seen.add(now == new)
                assert witness.holes(root) == (), call
                settle(root)
                prune(root, policy)
                assert stages.entries(root) == new
                assert blobs(root) == blobs(whole), call
        assert seen == {True, False}

    def test_a_reset_finishes_it_too(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with on_disk(CACHE) as root:
            calls = crash.record(crash.command("prune", root, *KEEP_MAIN), crash.REMOVING, log)
        last = [call for call in calls if len(call.name) in (64, 128)][-1]
        with on_disk(CACHE) as root:
            assert crash.kill_before(crash.command("prune", root, *KEEP_MAIN), last, log)
            assert names(root) == ["main"]
            settle(root)
            assert kitcache.reset(root, lock_timeout_s=0).deleted.blobs >= 1
            assert blobs(root) == verdict(CACHE._replace(entries=CACHE.entries[:1])).keep


class TestOthers:
    def test_two_at_once_both_end_well(self) -> None:
        cache = two_tags(garbage_blobs=1500)
        expected = verdict(cache._replace(entries=cache.entries[:1])).keep
        for _ in range(max(3, ROUNDS // 4)):
            with on_disk(cache) as root:
                argv = [*command("prune", root, *KEEP_MAIN), "--json"]
                pair = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(2)]
                answers = [json.loads(child.communicate()[0]) for child in pair]
                assert [child.returncode for child in pair] == [0, 0]
                assert (blobs(root), names(root)) == (expected, ["main"])
            removed = [answer["reset"]["deleted"]["blobs"] for answer in answers]
            assert sorted(removed) == [0, len(cache.present - expected)]
            assert sorted(len(answer["tags"]) for answer in answers) == [1, 2]

    def test_an_exporter_under_the_lock_is_waited_for_and_its_tag_is_judged(self) -> None:
        cache = two_tags()
        with on_disk(cache) as root:
            with strangers.lock_holder(root / "kitcache.lock", "sh") as holder:

                def finish(event: object) -> None:
                    if isinstance(event, kitcache.Waiting):
                        publish_old(root)
                        holder.communicate()

                keep = PrunePolicy(keep_tags=("again",))
                pruned = prune(root, keep, on_progress=finish)
            assert names(root) == ["again"]
            assert [decision.ref_name for decision in pruned.tags] == ["main", "pr", "again"]
            assert blobs(root) == OLD_DIGESTS

    def test_a_build_that_publishes_at_any_moment_loses_nothing_silently(self) -> None:
        """An exporter that knows no lock, beside one prune after the other."""
        cache = two_tags()
        keep = [*KEEP_MAIN, "--keep-tag", "pr", "--keep-tag", "latest"]
        rounds = max(4, ROUNDS // 4)
        for seed in range(rounds):
            with on_disk(cache) as root, strangers.exporter(root, 12, 2, seed=seed) as child:
                codes, said = [], ""
                while child.poll() is None:
                    done = subprocess.run(
                        command("prune", root, *keep, "--lock-timeout", "0"),
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    codes.append(done.returncode)
                    said += done.stderr
                assert set(codes) <= {0, 11, 12}, said
                for hole in witness.holes(root):
                    assert 12 in codes, (hole, said)

    def test_an_exporter_that_needs_buildkits_lock_finds_it_free(self) -> None:
        """It never waits for it: a build would fail. The lock is held for a read and a rename."""
        free = 0
        with on_disk(two_tags(garbage_blobs=3000)) as root:

            def take(event: object) -> None:
                nonlocal free
                if isinstance(event, kitcache.Progress) and event.phase == "sweep":
                    with hold_now(root / "index.json.lock"):
                        free += 1

            prune(root, PrunePolicy(keep_tags=("main",)), on_progress=take)
            assert names(root) == ["main"]
        assert free >= 2


@contextmanager
def hold_now(path: Path) -> Iterator[None]:
    """Takes a lock as BuildKit's exporter does: with one try, and the file goes with the lock."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
        path.unlink()


class TestClocks:
    def date(self, sample: Sample, seconds: float) -> None:
        """Every manifest's file as of so many seconds from now."""
        then = time.time() + seconds
        for root in (sample.main, sample.dev):
            os.utime(sample.box.path_of(root["digest"]), (then, then))

    def note(self, sample: Sample, tag: str, seconds: float) -> None:
        room = sample.dir / ".kitcache"
        room.mkdir(exist_ok=True)
        at_ns = time.time_ns() + int(seconds * 10**9)
        tags = {tag: {"exported_ns": at_ns, "imported_ns": None}}
        (room / "tags.json").write_text(json.dumps({"schema": "kitcache.tags/1", "tags": tags}))

    def test_notes_from_the_future_make_nothing_old_or_new(self, sample: Sample) -> None:
        self.date(sample, -40 * DAY_S)
        self.note(sample, "dev", 10 * DAY_S)
        answer = run(sample.box.top, "prune", "--unused-for", "30d", "cache", "--json")
        verdicts = {t["ref_name"]: (t["keep"], t["last_used_from"]) for t in answer.value["tags"]}
        assert verdicts == {"main": (False, "manifest"), "dev": (True, "manifest")}
        assert answer.value["tags"][1]["reason"] == "the last tag"

    def test_where_all_times_are_ahead_everything_counts_as_used_now(self, sample: Sample) -> None:
        """As after a clock has been set back by years."""
        self.date(sample, 4000 * DAY_S)
        before = take_snapshot(sample.dir / "index.json")
        for policy in (["--unused-for", "1s"], ["--keep-within", "1m", "--keep-last", "1"]):
            answer = run(sample.box.top, "prune", *policy, "cache", "--json")
            assert [tag["keep"] for tag in answer.value["tags"]] == [True, True]
        assert take_snapshot(sample.dir / "index.json") == before

    def test_where_all_are_ages_ago_the_last_tag_still_stays(self, sample: Sample) -> None:
        """As after a clock has been set ahead by years."""
        self.date(sample, -20_000 * DAY_S)
        answer = run(sample.box.top, "prune", "--unused-for", "1d", "cache", "--json")
        assert [tag["keep"] for tag in answer.value["tags"]] == [False, True]
        assert answer.code == 0

    @pytest.mark.parametrize(
        "content", [b"", b"{", b'{"tags": 5}', b'{"tags": {"dev": {"exported_ns": "x"}}}', b"\xff"]
    )
    def test_notes_that_cannot_be_read_are_none(self, sample: Sample, content: bytes) -> None:
        self.note(sample, "dev", 0)
        (sample.dir / ".kitcache" / "tags.json").write_bytes(content)
        answer = run(sample.box.top, "prune", "--keep-last", "1", "cache", "--json")
        assert [tag["last_used_from"] for tag in answer.value["tags"]] == ["manifest"] * 2


class TestDisks:
    def prepared(self, disk: Path) -> Sample:
        sample = make_sample(disk)
        for lock in ("kitcache.lock", "index.json.lock"):
            (sample.dir / lock).touch()
        return sample

    def test_a_read_only_disk_loses_nothing(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", size="1m", nr_inodes="200") as disk:
            sample = self.prepared(disk)
            make_read_only(disk)
            before = take_snapshot(disk)
            answer = run(disk, "prune", *KEEP_MAIN, "cache")
            dry = run(disk, "prune", *KEEP_MAIN, "cache", "--dry-run")
            assert take_snapshot(disk) == before
            assert (answer.code, dry.code) == (1, 0)
            assert "ead-only file system" in answer.err
            assert "  nothing was changed\n" in answer.err
            assert sample.garbage

    @pytest.mark.parametrize("use_up", [fill, use_up_names])
    def test_a_full_disk_is_pruned(self, tmp_path: Path, use_up: object) -> None:
        """It is when a prune is needed most: the garbage makes room for the new index.json."""
        with small_disk(tmp_path / "disk", size="1m", nr_inodes="200") as disk:
            sample = self.prepared(disk)
            use_up(disk)  # type: ignore[operator]
            answer = run(disk, "prune", *KEEP_MAIN, "cache", "--json")
            assert answer.code == 0, answer.out
            assert names(sample.dir) == ["main"]
            assert answer.value["reset"]["deleted"]["blobs"] == 7
            assert os.listdir(sample.dir / "blobs" / "sha256")

    @pytest.mark.parametrize("use_up", [fill, use_up_names])
    def test_a_full_disk_without_garbage_is_left_as_it_is(
        self, tmp_path: Path, use_up: object
    ) -> None:
        with small_disk(tmp_path / "disk", size="1m", nr_inodes="200") as disk:
            sample = self.prepared(disk)
            run(disk, "reset", "cache")
            use_up(disk)  # type: ignore[operator]
            before = take_snapshot(disk)
            answer = run(disk, "prune", *KEEP_MAIN, "cache")
            assert unchanged(before, take_snapshot(disk)) == []
            assert answer.code == 1
            assert "No space left" in answer.err
            assert "  nothing was changed\n" in answer.err
            assert names(sample.dir) == ["main", "dev"]


class TestNames:
    def test_tags_that_a_terminal_would_act_on_are_escaped(self, sample: Sample) -> None:
        sample.box.tag("\x1b[31m\u202ered", sample.main)
        answer = run(sample.box.top, "prune", "--keep-last", "1", "cache")
        assert "\\x1b[31m\\u202ered" in answer.out

    def test_a_policy_file_that_is_none(self, sample: Sample) -> None:
        policy = sample.box.top / "policy.toml"
        before = take_snapshot(sample.dir)
        for content, says in (
            (b"\x00\xff", "UTF-8"),
            (b"x" * (64 * 1024 + 1), "65,536"),
            (b"[[rule]", "at line 1"),
            (b'max-used-spice = "5GB"', "max-used-spice"),
            (b'max-used-space = "5 gigs"', "5 gigs"),
        ):
            policy.write_bytes(content)
            answer = run(sample.box.top, "prune", "--policy", "policy.toml", "cache")
            assert (answer.code, answer.out) == (2, "")
            assert answer.err.startswith("kitcache: policy.toml: ")
            assert says in answer.err
        answer = run(sample.box.top, "prune", "--policy", ".", "cache")
        assert (answer.code, "Is a directory" in answer.err) == (1, True)
        assert take_snapshot(sample.dir) == before


def test_limits_below_what_is_kept_say_what_is_needed(sample: Sample) -> None:
    policy = PrunePolicy(
        rules=(PruneRule(keep_last=2),), max_used=DiskSpace(bytes=100), keep_tags=("nothing",)
    )
    pruned = prune(sample.dir, policy)
    assert (pruned.exit_code, pruned.needed_bytes) == (14, 1956)
    assert [d.keep for d in pruned.tags] == [True, True]
    answer = run(
        sample.box.top, "prune", "--max-used-space", "100B", "--keep-last", "2", "cache", "--json"
    )
    assert (answer.code, answer.value["needed_bytes"]) == (14, 1956)
