"""buildkit/caches.py: what the daemon is told of, and who sweeps when."""

import fcntl
import json
import time
from pathlib import Path
from threading import Event
from typing import Any, Final

import pytest

import kitcache
from kitcache.gc.values import Tally
from kitcache.options.caches import CacheExport, CacheImport
from kitcache.store.open import open_store
from kitcache.store.state import count_skipped_sweep, read_layer_uses, read_skipped_sweeps
from kitcache.store.values import Waiting
from tests.hostile.build import Sample
from tests.unit.buildkit.cachekit import (
    CACHE,
    OTHER,
    blobs,
    local,
    locked,
    open_caches,
    run,
    send,
    tags,
)
from tests.unit.buildkit.session.exporter import Daemon, digest_of, serving


class TestEntries:
    def test_the_daemon_sees_a_token_and_what_it_is_to_see(self, tmp_path: Path) -> None:
        with open_caches([local(tmp_path / "secret", mode="max", reset=True)], ()) as caches:
            ((kind, attrs),) = caches.export_entries
            assert kind == "local"
            assert set(attrs) == {"mode", "dest"}
            assert attrs["mode"] == "max"
            assert "secret" not in attrs["dest"]
            assert set(caches.stores) == {"local:" + attrs["dest"]}

    def test_the_token_is_of_the_real_directory(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "cache")
        (tmp_path / "cache").mkdir()
        seen = set()
        for path in (tmp_path / "cache", tmp_path / "link", tmp_path / "cache" / ".." / "cache"):
            with open_caches([local(path)], ()) as caches:
                seen.add(caches.export_entries[0][1]["dest"])
        assert len(seen) == 1

    def test_others_pass_through_in_their_places(self, tmp_path: Path) -> None:
        registry = CacheExport("registry", (("ref", "a/b"), ("mode", "max")))
        inline = CacheExport("inline")
        with open_caches([registry, local(tmp_path / "c"), inline], ()) as caches:
            assert [kind for kind, _ in caches.export_entries] == ["registry", "local", "inline"]
            assert caches.export_entries[0][1] == {"ref": "a/b", "mode": "max"}
            assert caches.publish()[0].outcome == "empty"

    def test_two_tags_are_one_entry_and_both_are_published(self, tmp_path: Path) -> None:
        results = run([local(tmp_path / "c", "main"), local(tmp_path / "c", "pr-7")], CACHE)
        assert [(r.tag, r.outcome, r.digest) for r in results] == [
            ("main", "published", CACHE.root),
            ("pr-7", "published", CACHE.root),
        ]
        assert tags(tmp_path / "c") == {"main": CACHE.root, "pr-7": CACHE.root}

    def test_each_store_knows_its_own_root(self, tmp_path: Path) -> None:
        """min and max to one directory: the daemon's one answer names the last root only."""
        exports = [
            local(tmp_path / "c", "min", mode="min"),
            local(tmp_path / "c", "max", mode="max"),
        ]
        with open_caches(exports, ()) as caches:
            assert len({attrs["dest"] for _, attrs in caches.export_entries}) == 2
            send(caches, OTHER, CACHE)
            answer = {
                "cache.manifest": json.dumps({"mediaType": "x", "digest": CACHE.root, "size": 1})
            }
            caches.publish(answer)
        assert tags(tmp_path / "c") == {"min": OTHER.root, "max": CACHE.root}

    def test_one_tag_twice_is_told_and_the_last_one_wins(self, tmp_path: Path) -> None:
        exports = [local(tmp_path / "c", mode="min"), local(tmp_path / "c", mode="max")]
        told: list[str] = []
        with open_caches(exports, (), warn=told.append) as caches:
            ((_, attrs),) = caches.export_entries
            assert attrs["mode"] == "max"
        assert len(told) == 1
        assert "the tag 'latest' is exported to more than once" in told[0]


class TestTheIndexIsGone:
    def test_in_mid_build_nothing_is_published_or_swept(self, tmp_path: Path) -> None:
        """It named other tags, and a new one would make garbage of them."""
        cache = tmp_path / "c"
        run([local(cache, "other")], OTHER)
        with open_caches([local(cache, reset=True)], ()) as caches:
            send(caches, CACHE)
            (cache / "index.json").unlink()
            (result,) = caches.publish()
        assert (result.outcome, result.exit_code, result.reset) == ("failed", 12, None)
        assert "index.json was removed while the build ran" in result.problem
        assert not (cache / "index.json").exists()
        assert blobs(cache) >= OTHER.digests

    def test_from_the_start_the_tag_is_published_and_nothing_swept(self, tmp_path: Path) -> None:
        cache = tmp_path / "c"
        run([local(cache, "other")], OTHER)
        (cache / "index.json").unlink()
        (result,) = run([local(cache, "new", reset=True)], CACHE)
        assert (result.outcome, result.exit_code) == ("published", 0)
        assert result.reset is not None
        assert result.reset.outcome == "refused"
        assert "missing but blobs" in result.reset.reason
        assert blobs(cache) == CACHE.digests | OTHER.digests


class TestTheDirectoryIsMoved:
    def test_it_is_told_where_the_cache_is_not(self, tmp_path: Path) -> None:
        cache = tmp_path / "c"
        told: list[str] = []
        with open_caches([local(cache)], (), warn=told.append) as caches:
            send(caches, CACHE)
            cache.rename(tmp_path / "moved")
            cache.mkdir()
            caches.publish()
        assert tags(tmp_path / "moved") == {"latest": CACHE.root}
        assert any("moved or replaced" in sentence for sentence in told)


class TestNotesOfReads:
    IMPORTS: Final = [CacheImport("local", src="cache")]

    def test_what_the_daemon_read_is_noted_and_what_it_asked_about_is_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        run([local(tmp_path / "cache")], CACHE)
        began_ns = time.time_ns()
        first, second, *_ = (digest_of(data) for _, data in CACHE.blobs)
        with open_caches((), self.IMPORTS) as caches, serving(caches.stores) as channel:
            daemon = Daemon(channel, next(iter(caches.stores)))
            daemon.read(first)
            daemon.info(second)
            assert layer_uses(tmp_path / "cache") == {}
        uses = layer_uses(tmp_path / "cache")
        assert list(uses) == [first]
        assert uses[first] >= began_ns

    def test_a_reset_of_the_same_build_knows_of_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        run([local(tmp_path / "cache")], CACHE)
        with (
            open_caches([local(tmp_path / "cache")], self.IMPORTS) as caches,
            serving(caches.stores) as channel,
        ):
            (store_id,) = set(caches.stores) - {f"local:{caches.export_entries[0][1]['dest']}"}
            Daemon(channel, store_id).read(CACHE.root)
            caches.publish()
            assert list(layer_uses(tmp_path / "cache")) == [CACHE.root]

    def test_where_nothing_is_read_nothing_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        run([local(tmp_path / "cache")], CACHE)
        with open_caches((), self.IMPORTS):
            pass
        assert not (tmp_path / "cache" / ".kitcache" / "layers.json").exists()


def layer_uses(cache: Path) -> dict[str, int]:
    with open_store(cache) as layout:
        return dict(read_layer_uses(layout))


class TestResetAmongOthers:
    def test_another_export_is_not_swept_from_under(self, tmp_path: Path) -> None:
        run([local(tmp_path / "c")], CACHE)
        with locked(tmp_path / "c", fcntl.LOCK_SH):
            (result,) = run([local(tmp_path / "c", reset=True)], OTHER)
        assert result.reset is not None
        assert (result.outcome, result.reset.outcome, result.exit_code) == (
            "published",
            "skipped",
            0,
        )
        assert "kitcache.lock is held by process" in result.reset.reason
        assert blobs(tmp_path / "c") == CACHE.digests | OTHER.digests

    def test_garbage_that_a_neighbour_reuses_stays(self, tmp_path: Path) -> None:
        """It leaves no trace in ingest/: only the shared lock tells."""
        run([local(tmp_path / "c")], CACHE)
        run([local(tmp_path / "c")], OTHER)
        with open_caches([local(tmp_path / "c", "again")], ()) as neighbour:
            send(neighbour, CACHE)
            (result,) = run([local(tmp_path / "c", reset=True)], OTHER)
            assert result.reset is not None
            assert result.reset.outcome == "skipped"
            (again,) = neighbour.publish()
        assert (again.outcome, again.written, again.reused.blobs) == ("published", Tally(), 4)
        assert kitcache.ls(tmp_path / "c").tags[-1].missing == 0

    def test_skips_are_counted_until_a_sweep(self, tmp_path: Path) -> None:
        with open_caches([local(tmp_path / "c")], ()), open_store(tmp_path / "c") as layout:
            for n in range(1, 4):
                (result,) = run([local(tmp_path / "c", reset=True)], CACHE)
                assert result.reset is not None
                assert result.reset.outcome == "skipped"
                assert read_skipped_sweeps(layout) == n
            assert "3 sweeps in a row" in result.reset.reason
        (result,) = run([local(tmp_path / "c", reset=True)], CACHE)
        assert result.reset is not None
        assert result.reset.outcome == "done"
        with open_store(tmp_path / "c") as layout:
            assert read_skipped_sweeps(layout) == 0

    def test_after_ten_it_waits_for_its_turn(self, tmp_path: Path) -> None:
        run([local(tmp_path / "c")], CACHE)
        with open_store(tmp_path / "c") as layout:
            for _ in range(10):
                count_skipped_sweep(layout)
        with (tmp_path / "c" / "kitcache.lock").open() as other:
            fcntl.flock(other, fcntl.LOCK_SH)

            def let_go(event: object) -> None:
                if isinstance(event, Waiting):
                    fcntl.flock(other, fcntl.LOCK_UN)

            (result,) = run([local(tmp_path / "c", reset=True)], OTHER, on_progress=let_go)
        assert result.reset is not None
        assert result.reset.outcome == "done"

    def test_an_older_damage_is_told_and_the_build_is_good(self, sample: Sample) -> None:
        sample.box.damage(sample.main["digest"], None)
        count = len(blobs(sample.dir))
        (result,) = run([local(sample.dir, reset=True)], CACHE)
        assert result.reset is not None
        assert (result.outcome, result.reset.outcome, result.exit_code) == (
            "published",
            "refused",
            0,
        )
        assert "tag 'main' cannot be read" in result.reset.reason
        assert f"kitcache verify {sample.dir} --repair" in result.reset.reason
        assert len(blobs(sample.dir)) == count + len(CACHE.digests)

    @pytest.mark.parametrize("n", [0, -1])
    def test_a_tag_of_ours_that_others_break_is_no_good_build(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
    ) -> None:
        """After our second look, before our own sweep."""
        from kitcache.upkeep import jobcaches as module  # noqa: PLC0415

        real = module.reset_after_export

        def met(*args: Any, **kwargs: Any) -> Any:
            lost = CACHE.blobs[n][1]
            (tmp_path / "c" / "blobs" / "sha256" / digest_of(lost)[7:]).unlink()
            return real(*args, **kwargs)

        monkeypatch.setattr(module, "reset_after_export", met)
        (result,) = run([local(tmp_path / "c", reset=True)], CACHE)
        assert result.reset is not None
        assert (result.reset.outcome, result.exit_code) == ("damaged", 12)

    def test_a_cancel_is_a_skip_for_the_tag_is_published(self, tmp_path: Path) -> None:
        cancel = Event()

        def stop(event: object) -> None:
            cancel.set()

        run([local(tmp_path / "c")], CACHE)
        with open_store(tmp_path / "c") as layout:
            for _ in range(10):
                count_skipped_sweep(layout)
        with locked(tmp_path / "c", fcntl.LOCK_SH):
            exports = [local(tmp_path / "c", reset=True)]
            (result,) = run(exports, OTHER, cancel=cancel, on_progress=stop)
        assert result.reset is not None
        assert (result.outcome, result.reset.outcome) == ("published", "skipped")
        assert "stopped on request" in result.reset.reason
