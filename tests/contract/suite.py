"""The laws that every store keeps. Each store's test class supplies `cache`, a fixture.

A store whose roots are objects has neither an index.json of its own nor locks, so it passes
StoreLaws only. The other stores pass IndexLaws too.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from kitcache.errors import Busy, Damaged
from kitcache.gc.collect import collect, survey_and_plan
from kitcache.gc.control import Control
from kitcache.gc.du import measure_usage
from kitcache.gc.plan import make_plan
from kitcache.gc.survey import take_survey
from kitcache.gc.sweep import apply, dry_run_sweep
from kitcache.gc.values import Plan
from kitcache.oci.digest import Digest, parse_digest, sha256_of
from kitcache.oci.index import edit_entries
from kitcache.options.sweep import SweepOptions
from kitcache.store.protocol import CollectableStore
from kitcache.store.values import HeldLock, Ingest, TagUse, WaitPolicy
from tests.hostile.build import Json, Sample

HOUR_NS = 3600 * 10**9
NO_WAIT = WaitPolicy(0, lambda _: None, lambda _: None)
CONTROL = Control("cache", None, None)


class Cache(Protocol):
    """The sample cache of tests/hostile/build.py with an unfinished upload, in a store.

    The garbage and the layers that are live are blobs in each store. In an object store the roots
    main and dev are cacheconfigs, which are not blobs: `live` of the sample lacks them.
    """

    sample: Sample
    store: Any  # mypy: a CollectableStore, which the tests of both stores check

    def sync(self) -> None:
        """Let the store have what the sample's directory has now."""


def names_of(store: CollectableStore) -> set[Digest]:
    store.refresh()
    return {Digest(batch.algorithm, name) for batch in store.scan_blobs() for name in batch.names}


def digests(sample: Sample, names: frozenset[str]) -> set[Digest]:
    return {Digest("sha256", name) for name in names}


def digest_of(blob: Json) -> Digest:
    return parse_digest(blob["digest"])


def plan_of(store: CollectableStore) -> Plan:
    return make_plan(take_survey(store, CONTROL), SweepOptions(), store.now_ns())


class Expected:
    """What differs between stores.

    Attributes:
        names: The tags, in the order in which the store reads them.
        inline: How many roots are not blobs.
        uploads: How many unfinished uploads there are.
        options: Those of a sweep that deletes blobs which are an hour old.
        no_roots: The error of a cache with blobs and without roots.
    """

    names: tuple[str, str] = ("main", "dev")
    inline = 0
    uploads = 1
    options = SweepOptions()
    no_roots = r"index\.json is missing"

    def readable(self, cache: Cache) -> Json:
        """Return a blob that a test damages in order to read it."""
        return cache.sample.main

    def damage_main(self, cache: Cache) -> None:
        """Make the root main unreadable."""
        cache.sample.box.damage(cache.sample.main["digest"], None)
        cache.sync()


class ReadingLaws(Expected):
    def test_published_roots_are_read_back(self, cache: Cache) -> None:
        roots = cache.store.read_roots(CONTROL.pause)
        assert [entry.ref_name for entry in roots.entries] == list(self.names)
        assert {entry.ref_name: str(entry.descriptor.digest) for entry in roots.entries} == {
            "main": cache.sample.main["digest"],
            "dev": cache.sample.dev["digest"],
        }
        assert roots.changed_ns > 0

    def test_equal_version_means_equal_roots(self, cache: Cache) -> None:
        first = cache.store.read_roots(CONTROL.pause)
        assert cache.store.read_roots(CONTROL.pause) == first
        cache.sample.box.tag("new", cache.sample.main)
        cache.sync()
        changed = cache.store.read_roots(CONTROL.pause)
        assert changed.version != first.version
        assert len(changed.entries) == 3

    def test_any_change_of_the_roots_changes_the_stamp(self, cache: Cache) -> None:
        stamps = [cache.store.roots_stamp()]
        assert cache.store.roots_stamp() == stamps[0]
        for name in ("one", "two"):
            cache.sample.box.tag(name, cache.sample.main)
            cache.sync()
            stamps.append(cache.store.roots_stamp())
        assert len(set(stamps)) == 3

    def test_without_roots_there_is_no_stamp_and_no_entry(self, cache: Cache) -> None:
        (cache.sample.dir / "index.json").unlink()
        cache.sync()
        assert cache.store.roots_stamp() is None
        roots = cache.store.read_roots(CONTROL.pause)
        assert (roots.data, roots.changed_ns, roots.entries) == (None, 0, ())
        with pytest.raises(Damaged, match=self.no_roots):
            take_survey(cache.store, CONTROL)

    def test_a_blob_is_read_if_it_matches(self, cache: Cache) -> None:
        main = cache.sample.main
        data = cache.sample.box.path_of(main["digest"]).read_bytes()
        assert cache.store.read_blob(digest_of(main), None) == data
        assert cache.store.read_blob(digest_of(main), main["size"]) == data
        assert cache.store.read_blob(digest_of(main), None, unless_binary=True) == data

    def test_bytes_that_cannot_be_json_are_not_read_if_the_caller_needs_none(
        self, cache: Cache
    ) -> None:
        layer = cache.sample.box.blob(b"\x1f\x8b no JSON")
        cache.sync()
        assert cache.store.read_blob(digest_of(layer), None, unless_binary=True) is None

    @pytest.mark.parametrize(
        ("data", "kind"),
        [(None, "missing"), (b"short", "wrong-size"), (b"x", "wrong-digest")],
    )
    def test_a_blob_that_does_not_match_is_damaged(
        self, cache: Cache, data: bytes | None, kind: str
    ) -> None:
        blob = self.readable(cache)
        cache.sample.box.damage(blob["digest"], data and data * (blob["size"] // len(data)))
        cache.sync()
        with pytest.raises(Damaged) as caught:
            cache.store.read_blob(digest_of(blob), blob["size"])
        assert caught.value.kind == kind or kind == "wrong-size"

    def test_an_unknown_algorithm_is_damaged(self, cache: Cache) -> None:
        with pytest.raises(Damaged) as caught:
            cache.store.read_blob(Digest("blake3", "0" * 64), None)
        assert caught.value.kind == "unknown-algorithm"

    def test_a_stat_has_size_and_time(self, cache: Cache) -> None:
        stat = cache.store.stat_blob(digest_of(cache.sample.main))
        assert (stat.size, stat.kind, stat.names) == (cache.sample.main["size"], "file", 1)
        assert abs(stat.mtime_ns - (cache.store.now_ns() - HOUR_NS)) < HOUR_NS // 2
        assert cache.store.stat_blob(Digest("sha256", "0" * 64)) is None

    def test_the_blobs_that_exist_are_found_at_once(self, cache: Cache) -> None:
        live = digests(cache.sample, cache.sample.live)
        stats = list(cache.store.stat_blobs([*live, Digest("sha512", "0" * 128)]))
        assert {digest for digest, _ in stats} == live
        assert len(stats) == len(live)
        assert dict(stats) == {digest: cache.store.stat_blob(digest) for digest in live}

    def test_a_scan_yields_each_name_once(self, cache: Cache) -> None:
        batches = list(cache.store.scan_blobs())
        names = [(batch.algorithm, name) for batch in batches for name in batch.names]
        assert len(names) == len(set(names))
        everything = cache.sample.live | cache.sample.garbage
        assert names_of(cache.store) == digests(cache.sample, everything)


class DeletingLaws(Expected):
    def test_the_lock_of_another_store_does_not_do(self, cache: Cache, other: Any) -> None:
        lock: HeldLock[Any] = HeldLock(other, "exclusive")
        with pytest.raises(ValueError, match="exclusive"):
            cache.store.delete_names(lock, "sha256", sorted(cache.sample.garbage))
        assert digests(cache.sample, cache.sample.garbage) <= names_of(cache.store)

    def test_names_are_deleted_and_missing_names_are_reported(self, cache: Cache) -> None:
        doomed, gone = sorted(cache.sample.garbage), "0" * 64
        with cache.store.lock("exclusive", NO_WAIT) as lock:
            result = cache.store.delete_names(lock, "sha256", [*doomed[:2], gone, *doomed[2:]])
        assert (list(result.missing), dict(result.failures)) == ([gone], {})
        assert names_of(cache.store) == digests(cache.sample, cache.sample.live)

    def test_stats_are_in_order(self, cache: Cache) -> None:
        names = sorted(cache.sample.garbage)
        stats = cache.store.stat_names("sha256", names)
        sizes = [cache.store.stat_blob(Digest("sha256", name)).size for name in names]
        assert [stat.st_size for stat in stats] == sizes
        assert all(stat.st_nlink for stat in stats)

    def test_a_tick_is_not_before_the_changes_that_it_follows(self, cache: Cache) -> None:
        with cache.store.lock("exclusive", NO_WAIT) as lock:
            first = cache.store.next_tick_ns(lock)
            assert cache.store.next_tick_ns(lock) >= first


class CollectingLaws(Expected):
    def test_exactly_the_unreachable_blobs_are_deleted(self, cache: Cache) -> None:
        with cache.store.lock("exclusive", NO_WAIT) as lock:
            surveyed, swept = collect(lock, self.options, CONTROL)
        live = digests(cache.sample, cache.sample.live)
        assert names_of(cache.store) == live
        roots = {digest_of(cache.sample.main), digest_of(cache.sample.dev)}
        assert set(surveyed.survey.live) == (live | roots if self.inline else live)
        assert (swept.deleted.blobs, swept.ingests_deleted.blobs) == (4, self.uploads)

    def test_a_dry_run_agrees_and_deletes_nothing(self, cache: Cache) -> None:
        before = names_of(cache.store)
        plan = plan_of(cache.store)
        counted = dry_run_sweep(plan, cache.store, CONTROL)
        assert names_of(cache.store) == before
        with cache.store.lock("exclusive", NO_WAIT) as lock:
            assert apply(plan, lock, CONTROL, lambda: True) == counted

    def test_young_blobs_stay_with_what_they_reach(self, cache: Cache) -> None:
        with cache.store.lock("exclusive", NO_WAIT) as lock:
            _, swept = collect(lock, self.options._replace(min_age_ns=2 * HOUR_NS), CONTROL)
        assert swept.deleted.blobs == 0
        assert digests(cache.sample, cache.sample.garbage) <= names_of(cache.store)

    def test_damage_below_a_root_is_a_refusal(self, cache: Cache) -> None:
        self.damage_main(cache)
        before = names_of(cache.store)
        with (
            cache.store.lock("exclusive", NO_WAIT) as lock,
            pytest.raises(Damaged, match="tag 'main' cannot be read"),
        ):
            collect(lock, self.options, CONTROL)
        assert names_of(cache.store) == before

    def test_a_missing_layer_is_reported(self, cache: Cache) -> None:
        cache.sample.box.damage(cache.sample.layers[0]["digest"], None)
        cache.sync()
        survey = take_survey(cache.store, CONTROL)
        assert [(blob.digest, blob.ref_name) for blob in survey.missing_blobs] == [
            (digest_of(cache.sample.layers[0]), "main")
        ]

    def test_usage_is_what_a_reset_would_delete(self, cache: Cache) -> None:
        usage = measure_usage(cache.store, CONTROL, self.options)
        live = len(cache.sample.live) + self.inline
        assert (usage.live.blobs, usage.reclaimable.blobs) == (live, 4)
        assert usage.ingest.blobs == self.uploads
        assert {tag.ref_name for tag in usage.tags} == {"main", "dev"}


class CommittingLaws(Expected):
    def remove_dev(self, data: bytes | None) -> bytes:
        return edit_entries(data or b"", remove=(self.names.index("dev"),))

    def test_a_commit_replaces_the_roots_and_returns_them(self, cache: Cache) -> None:
        before = cache.store.read_roots(CONTROL.pause)
        stamp = cache.store.roots_stamp()
        roots = cache.store.commit_roots(self.remove_dev, NO_WAIT, before=before)
        assert [entry.ref_name for entry in roots.entries] == ["main"]
        assert roots.version == cache.store.read_roots(CONTROL.pause).version != before.version
        assert cache.store.roots_stamp() != stamp

    def test_outdated_roots_change_nothing(self, cache: Cache) -> None:
        before = cache.store.read_roots(CONTROL.pause)
        cache.sample.box.tag("new", cache.sample.main)
        cache.sync()
        published = cache.store.read_roots(CONTROL.pause)
        assert cache.store.commit_roots(self.remove_dev, NO_WAIT, before=before) is None
        assert cache.store.read_roots(CONTROL.pause) == published

    def test_without_a_version_the_current_roots_are_changed(self, cache: Cache) -> None:
        cache.sample.box.tag("new", cache.sample.main)
        cache.sync()
        roots = cache.store.commit_roots(self.remove_dev, NO_WAIT)
        assert [entry.ref_name for entry in roots.entries] == ["main", "new"]

    def test_a_change_that_raises_changes_nothing(self, cache: Cache) -> None:
        before = cache.store.read_roots(CONTROL.pause)

        def refuse(_: bytes | None) -> bytes:
            raise KeyError

        with pytest.raises(KeyError):
            cache.store.commit_roots(refuse, NO_WAIT)
        assert cache.store.read_roots(CONTROL.pause) == before


class WritingLaws(Expected):
    def test_a_written_blob_is_read_back(self, cache: Cache) -> None:
        digest = cache.store.write_blob(b'{"layers":[]}')
        cache.store.sync_blobs()
        assert cache.store.read_blob(digest, 13) == b'{"layers":[]}'

    def test_a_blob_is_written_from_parts_and_read_in_parts(self, cache: Cache) -> None:
        data = b"x" * 70_000 + b"y"
        digest = sha256_of(data)
        assert cache.store.stat_blob(digest) is None
        cache.store.put_blob(digest, len(data), iter([memoryview(data[:9]), data[9:]]))
        cache.store.sync_blobs()
        stat = cache.store.stat_blob(digest)
        assert stat.size == len(data)
        assert cache.store.reuse_blob(digest, stat)
        assert b"".join(map(bytes, cache.store.read_parts(digest, len(data)))) == data
        cache.store.put_blob(digest, len(data), [data])
        assert cache.store.stat_blob(digest).size == len(data)

    def test_a_blob_whose_parts_end_in_an_error_is_not_written(self, cache: Cache) -> None:
        def parts() -> Iterator[bytes]:
            yield b"x"
            raise KeyError

        digest, before = sha256_of(b"xy"), names_of(cache.store)
        with pytest.raises(KeyError):
            cache.store.put_blob(digest, 2, parts())
        assert cache.store.stat_blob(digest) is None
        assert names_of(cache.store) == before

    @pytest.mark.parametrize(
        ("data", "kind"),
        [(None, "missing"), (b"short", "wrong-size"), (b"x", "wrong-digest")],
    )
    def test_a_blob_that_does_not_match_is_found_while_it_is_read(
        self, cache: Cache, data: bytes | None, kind: str
    ) -> None:
        blob = self.readable(cache)
        cache.sample.box.damage(blob["digest"], data and data * (blob["size"] // len(data)))
        cache.sync()
        with pytest.raises(Damaged) as caught:
            list(cache.store.read_parts(digest_of(blob), blob["size"]))
        assert caught.value.kind == kind or kind == "wrong-size"


class UploadLaws(Expected):
    def test_an_upload_is_deleted_unless_it_was_written_since(self, cache: Cache) -> None:
        (ingest,) = cache.store.writer_activity().ingests
        with cache.store.lock("exclusive", NO_WAIT) as lock:
            changed = Ingest(ingest.name, (*ingest.writes_ns[:-1], 7), ingest.bytes)
            assert not cache.store.delete_ingest(lock, changed)
            assert cache.store.writer_activity().ingests == (ingest,)
            assert cache.store.delete_ingest(lock, ingest)
            assert not cache.store.delete_ingest(lock, ingest)
        assert cache.store.writer_activity().ingests == ()

    def test_without_the_exclusive_lock_nothing_is_deleted(self, cache: Cache) -> None:
        before = names_of(cache.store)
        (ingest,) = cache.store.writer_activity().ingests
        shared: HeldLock[Any] = HeldLock(cache.store, "shared")
        with pytest.raises(ValueError, match="exclusive"):
            cache.store.delete_names(shared, "sha256", sorted(cache.sample.garbage))
        with pytest.raises(ValueError, match="exclusive"):
            cache.store.delete_ingest(shared, ingest)
        assert names_of(cache.store) == before
        assert cache.store.writer_activity().ingests == (ingest,)


class StoreLaws(ReadingLaws, DeletingLaws, CollectingLaws, CommittingLaws, WritingLaws):
    """The laws of all stores. A subclass has the fixtures `cache` and `other`, a second store."""


class IndexLaws(UploadLaws):
    """The laws of a store with an index.json, records, and BuildKit's ingest directories."""

    def test_invalid_roots_are_damaged(self, cache: Cache) -> None:
        cache.sample.box.write_index(b'{"manifests": 7}')
        cache.sync()
        with pytest.raises(Damaged):
            cache.store.read_roots(lambda _: None)

    def test_foreign_names_are_not_blobs(self, cache: Cache) -> None:
        (cache.sample.dir / "notes").write_bytes(b"xyz")
        (cache.sample.dir / "blobs" / "sha256" / "tmp").touch()
        (cache.sample.dir / "blobs" / "blake3").mkdir()
        cache.sync()
        foreign = [path for batch in cache.store.scan_blobs() for path in batch.foreign]
        assert foreign == ["blobs/sha256/tmp"]
        assert sorted(cache.store.foreign_names()) == ["blobs/blake3/", "notes"]
        assert cache.store.foreign_bytes("notes") == 3
        assert Digest("sha256", "tmp") not in names_of(cache.store)

    def test_nothing_is_recorded_yet(self, cache: Cache) -> None:
        assert dict(cache.store.read_tag_uses()) == {}
        assert dict(cache.store.read_layer_uses()) == {}
        assert cache.store.quarantined() == (0, 0)

    def test_roots_are_synced_and_dated(self, cache: Cache) -> None:
        before = cache.store.read_roots(CONTROL.pause)
        cache.store.prepare_sweep(())
        cache.store.touch_roots()
        after = cache.store.read_roots(CONTROL.pause)
        assert after.version == before.version
        assert after.changed_ns != before.changed_ns

    def test_skipped_sweeps_are_counted_until_one_is_finished(self, cache: Cache) -> None:
        assert cache.store.read_skipped_sweeps() == 0
        assert [cache.store.count_skipped_sweep() for _ in range(2)] == [1, 2]
        with cache.store.reopen() as again:
            assert again.read_skipped_sweeps() == 2
            again.finish_sweep()
        assert cache.store.read_skipped_sweeps() == 0
        cache.store.check_exists()

    def test_foreign_names_survive(self, cache: Cache) -> None:
        (cache.sample.dir / "notes").touch()
        (cache.sample.dir / "blobs" / "sha256" / "tmp").touch()
        cache.sync()
        with cache.store.lock("exclusive", NO_WAIT) as lock:
            _, swept = collect(lock, self.options, CONTROL)
        assert sorted(swept.foreign) == ["blobs/sha256/tmp", "notes"]
        assert list(cache.store.foreign_names()) == ["notes"]

    def test_a_running_upload_is_a_refusal(self, cache: Cache) -> None:
        cache.sample.box.ingest("running", age_s=0)
        cache.sync()
        with pytest.raises(Busy):
            survey_and_plan(cache.store, self.options, CONTROL, None)

    def test_uploads_are_seen(self, cache: Cache) -> None:
        activity = cache.store.writer_activity()
        (ingest,) = activity.ingests
        assert ingest.bytes == len(b"half a blob") + len(b"unfinished") + len(b"100")
        assert list(ingest.writes_ns) == sorted(ingest.writes_ns)
        assert activity.changed_ns > 0
        (cache.sample.dir / "ingest" / "oras").touch()
        cache.sync()
        assert len(cache.store.writer_activity().other_writes_ns) == 1

    def test_the_stat_of_a_missing_name_raises(self, cache: Cache) -> None:
        names = sorted(cache.sample.garbage)
        with pytest.raises(OSError, match=r".*"):
            cache.store.stat_names("sha256", [*names, "0" * 64])

    def test_a_recorded_use_is_read_back(self, cache: Cache) -> None:
        cache.store.write_tag_uses({"main": TagUse(exported_ns=7)})
        assert dict(cache.store.read_tag_uses()) == {"main": TagUse(exported_ns=7)}
