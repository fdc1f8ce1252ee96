"""Two of kitcache at once, and others under the two locks: nobody loses anything.

No test sleeps to be lucky: where a moment matters, a real process is told to go on at that moment.
"""

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kitcache
from tests.hostile import strangers
from tests.hostile.crash import command
from tests.hostile.pair import OLD_DIGESTS, ROUNDS, after, publish_old, remove, two_tags
from tests.property import witness
from tests.property.disk import blobs, on_disk, snapshot
from tests.property.model import Cache, verdict


@pytest.fixture
def cache() -> Cache:
    return two_tags()


@pytest.fixture
def root(cache: Cache) -> Iterator[Path]:
    with on_disk(cache) as path:
        yield path


class TestResets:
    def test_two_resets_at_once_both_end_well(self) -> None:
        cache = two_tags(garbage_blobs=1500)
        expected = verdict(cache)
        for _ in range(max(3, ROUNDS // 4)):
            with on_disk(cache) as root:
                argv = [*command("reset", root), "--json"]
                pair = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(2)]
                reports = [json.loads(child.communicate()[0]) for child in pair]
                assert [child.returncode for child in pair] == [0, 0]
                assert blobs(root) == expected.keep
            removed = [report["deleted"]["blobs"] for report in reports]
            assert sorted(removed) == [0, len(expected.remove)]

    def test_a_blob_that_vanishes_in_between_is_no_error(
        self, cache: Cache, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another collector that knows no lock was faster."""
        lost = sorted(verdict(cache).remove)[:5]
        after(monkeypatch, "kitcache.gc.collect.make_plan", lambda: remove(root, lost))
        report = kitcache.reset(root)
        assert report.not_deleted == ()
        assert report.deleted.blobs == len(verdict(cache).remove) - len(lost)
        assert blobs(root) == verdict(cache).keep


class TestOurLock:
    def test_an_exporter_under_the_shared_lock_is_not_disturbed(self, root: Path) -> None:
        effect = snapshot(root)
        with strangers.lock_holder(root / "kitcache.lock", "sh") as holder:
            argv = [*command("reset", root), "--lock-timeout", "0", "--json"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        answer = json.loads(done.stdout)
        assert (done.returncode, answer["error"]) == (11, "Busy")
        assert answer["facts"]["holder_pid"] == holder.pid
        assert str(holder.pid) in answer["message"]
        assert "kitcache.lock" in answer["message"]
        assert "nothing was" in answer["message"]
        assert snapshot(root) == effect

    def test_the_reset_begins_once_the_exporter_lets_go(self, cache: Cache, root: Path) -> None:
        with strangers.lock_holder(root / "kitcache.lock", "sh") as holder:
            argv = command("reset", root)
            with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as child:
                assert child.stderr is not None
                assert str(holder.pid) in child.stderr.readline()
                assert blobs(root) == cache.present
                holder.communicate()
                child.stderr.read()
            assert child.returncode == 0
        assert blobs(root) == verdict(cache).keep

    def test_what_the_exporter_published_under_its_lock_is_kept(
        self, cache: Cache, root: Path
    ) -> None:
        """The index is read only after the lock is had."""
        told: list[kitcache.Waiting] = []
        with strangers.lock_holder(root / "kitcache.lock", "sh") as holder:

            def finish(event: object) -> None:
                if isinstance(event, kitcache.Waiting):
                    told.append(event)
                    publish_old(root)
                    holder.communicate()

            kitcache.reset(root, on_progress=finish)
        assert [(event.waiting_for, event.holder.pid) for event in told] == [
            ("kitcache.lock", holder.pid)
        ]
        assert witness.holes(root) == ()
        assert blobs(root) == verdict(cache).keep | OLD_DIGESTS

    def test_rooms_that_the_exporter_made_are_seen(self, cache: Cache, root: Path) -> None:
        """blobs/ and ingest/ appear while the reset waits for the lock."""
        empty = cache._replace(entries=(), absent=frozenset(cache.nodes))
        with on_disk(empty) as fresh:
            (fresh / "blobs").rmdir()
            with strangers.lock_holder(fresh / "kitcache.lock", "sh") as holder:

                def export(event: object) -> None:
                    if isinstance(event, kitcache.Waiting):
                        pushed = strangers.push_cache(fresh, [b"the first layer"], 1)
                        assert strangers.publish(fresh, "first", *pushed)
                        holder.communicate()

                report = kitcache.reset(fresh, on_progress=export)
            assert report.entry_count == 1
            assert report.kept.blobs == len(blobs(fresh)) == 3

    def test_the_last_of_several_exporters_counts(self, cache: Cache, root: Path) -> None:
        lock = root / "kitcache.lock"
        with strangers.lock_holder(lock, "sh") as first, strangers.lock_holder(lock, "sh") as last:
            first.communicate()
            with pytest.raises(kitcache.Busy) as caught:
                kitcache.reset(root, lock_timeout_s=0)
            assert caught.value.holder_pid == last.pid
            assert blobs(root) == cache.present
            last.communicate()
            assert kitcache.reset(root, lock_timeout_s=0).outcome == "done"

    def test_dry_runs_and_questions_need_no_lock(self, root: Path) -> None:
        with strangers.lock_holder(root / "kitcache.lock", "ex"):
            assert kitcache.reset(root, dry_run=True, lock_timeout_s=0).outcome == "dry-run"
            assert kitcache.du(root).damage == kitcache.ls(root).damage == ()
            assert kitcache.untag(root, ["main"], dry_run=True, lock_timeout_s=0).entries


class TestBuildKitsLock:
    def test_untag_refuses_when_it_stays_held(self, root: Path) -> None:
        effect = snapshot(root)
        with strangers.lock_holder(root / "index.json.lock", "ex") as holder:
            argv = [*command("untag", root, "main"), "--lock-timeout", "0"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 11
        assert "index.json.lock" in done.stderr
        assert str(holder.pid) in done.stderr
        assert "nothing was changed" in done.stderr
        assert snapshot(root) == effect

    def test_untag_goes_on_once_it_is_free(self, root: Path) -> None:
        told: list[str] = []
        with strangers.lock_holder(root / "index.json.lock", "ex") as holder:

            def let_go(event: object) -> None:
                assert isinstance(event, kitcache.Waiting)
                told.append(event.waiting_for)
                holder.communicate()

            assert kitcache.untag(root, ["main"], on_progress=let_go).entries
        assert told == ["index.json.lock"]
        assert [tag.ref_name for tag in kitcache.ls(root).tags] == ["pr"]
        assert (root / "index.json.lock").exists()

    def test_untag_sees_what_its_holder_wrote(self, root: Path) -> None:
        """The index is read only after BuildKit's lock is had, so no entry of its is lost."""
        with strangers.lock_holder(root / "index.json.lock", "ex") as holder:

            def write_and_let_go(event: object) -> None:
                document = json.loads((root / "index.json").read_bytes())
                document["manifests"].append(
                    document["manifests"][0] | {"annotations": {strangers.REF_NAME: "new"}}
                )
                (root / "index.json").write_text(json.dumps(document))
                holder.communicate()

            kitcache.untag(root, ["main"], on_progress=write_and_let_go)
        assert [tag.ref_name for tag in kitcache.ls(root).tags] == ["pr", "new"]

    def test_a_reset_does_not_need_it(self, cache: Cache, root: Path) -> None:
        with strangers.lock_holder(root / "index.json.lock", "ex"):
            assert kitcache.reset(root, lock_timeout_s=0).outcome == "done"
        assert blobs(root) == verdict(cache).keep

    @pytest.mark.parametrize("timeout_s", [0, 0.1])
    def test_a_lock_on_a_file_without_a_name_is_no_lock(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: float
    ) -> None:
        """BuildKit unlinks the file after use; the next build locks a new one of that name."""
        lock, next_lock = root / "index.json.lock", root / "next"
        lock.touch()
        real_flock = fcntl.flock
        with strangers.lock_holder(next_lock, "ex") as holder:

            def replaced_right_before(fd: int, operation: int) -> None:
                if next_lock.exists() and os.path.samestat(os.fstat(fd), lock.stat()):
                    next_lock.rename(lock)
                real_flock(fd, operation)

            monkeypatch.setattr(fcntl, "flock", replaced_right_before)
            effect = (root / "index.json").read_bytes()
            with pytest.raises(kitcache.Busy) as caught:
                kitcache.untag(root, ["main"], lock_timeout_s=timeout_s)
        assert not next_lock.exists()
        assert caught.value.holder_pid == holder.pid
        assert (root / "index.json").read_bytes() == effect
