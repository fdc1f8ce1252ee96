"""buildkit/publish.py: the root that a store was given, under its tags, if it is whole."""

import json
import os
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from kitcache.errors import Cancelled, KitcacheError
from kitcache.gc.values import Tally
from kitcache.options.caches import CacheImport
from kitcache.store.directory import DirectoryStore
from kitcache.store.open import open_store
from kitcache.store.state import read_tag_uses
from kitcache.store.values import Waiting
from tests.hostile.build import Sample
from tests.unit.buildkit.cachekit import CACHE, OTHER, blobs, local, open_caches, run, send, tags
from tests.unit.buildkit.session.exporter import (
    Daemon,
    Exported,
    code_of,
    digest_of,
    make_cache,
    serving,
)

INDEX_DOCKER = "application/vnd.docker.distribution.manifest.list.v2+json"


class TestPublish:
    def test_what_came_is_counted(self, tmp_path: Path) -> None:
        sizes = {digest_of(data): len(data) for _, data in (*CACHE.blobs, *OTHER.blobs)}
        (first,) = run([local(tmp_path / "c")], CACHE)
        assert first.written == Tally(4, sum(sizes[digest] for digest in CACHE.digests))
        assert first.reused == Tally()
        (second,) = run([local(tmp_path / "c")], OTHER)
        shared = CACHE.digests & OTHER.digests
        assert second.written.blobs == 3
        assert second.reused == Tally(1, sum(sizes[digest] for digest in shared))
        assert (second.reset, second.problem, second.exit_code) == (None, "", 0)

    def test_without_reset_nothing_goes(self, tmp_path: Path) -> None:
        run([local(tmp_path / "c")], CACHE)
        run([local(tmp_path / "c")], OTHER)
        assert blobs(tmp_path / "c") == CACHE.digests | OTHER.digests

    def test_with_reset_what_no_tag_reaches_goes(self, tmp_path: Path) -> None:
        run([local(tmp_path / "c"), local(tmp_path / "c", "keep", mode="max")], CACHE, OTHER)
        new = make_cache([b"new"])
        *_, last = run([local(tmp_path / "c", reset=True)], new)
        assert last.reset is not None
        assert last.reset.outcome == "done"
        assert last.reset.deleted.blobs == len(CACHE.digests - OTHER.digests)
        assert blobs(tmp_path / "c") == OTHER.digests | new.digests

    def test_one_reset_a_directory_on_its_last_tag(self, tmp_path: Path) -> None:
        exports = [local(tmp_path / "c", "a", reset=True), local(tmp_path / "c", "b")]
        reports = [result.reset for result in run(exports, CACHE)]
        assert reports[0] is None
        assert reports[1] is not None

    def test_the_reset_does_not_take_our_own_uploads_for_an_export(self, tmp_path: Path) -> None:
        """Nor does it wait for a tag that we have published, new or as it was."""
        told: list[object] = []
        for _ in range(2):
            (result,) = run([local(tmp_path / "c", reset=True)], CACHE, on_progress=told.append)
            assert result.reset is not None
            assert result.reset.outcome == "done"
            (tmp_path / "c" / "blobs" / "sha256" / CACHE.root[7:]).unlink()
        assert not [event for event in told if isinstance(event, Waiting)]

    def test_nothing_exported_is_nothing_published_and_no_reset(self, sample: Sample) -> None:
        before, count = (sample.dir / "index.json").read_bytes(), len(blobs(sample.dir))
        (result,) = run([local(sample.dir, reset=True)], None)
        assert (result.outcome, result.digest, result.reset) == ("empty", None, None)
        assert result.exit_code == 0
        assert (sample.dir / "index.json").read_bytes() == before
        assert len(blobs(sample.dir)) == count

    def test_an_export_that_ended_before_its_manifest_is_nothing(self, tmp_path: Path) -> None:
        """With ignore-error the Solve is good; the last bare digest is the cacheconfig's."""
        (result,) = run([local(tmp_path / "c")], Exported(CACHE.blobs[:-1], ""))
        assert (result.outcome, result.problem) == (
            "empty",
            "the export ended before its manifest",
        )
        assert tags(tmp_path / "c") == {}

    @pytest.mark.parametrize("media_type", [None, "application/vnd.oci.image.manifest.v1+json"])
    def test_the_media_type_is_the_roots_own(self, tmp_path: Path, media_type: str | None) -> None:
        cache = make_cache([b"x"], media_type=media_type)
        run([local(tmp_path / "c")], cache)
        (entry,) = json.loads((tmp_path / "c" / "index.json").read_bytes())["manifests"]
        assert entry == {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": cache.root,
            "size": len(cache.blobs[-1][1]),
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
        }

    def test_a_root_that_does_not_say_takes_the_daemons_word(self, tmp_path: Path) -> None:
        cache = make_cache([b"x"], media_type=None)
        said = {"mediaType": INDEX_DOCKER, "digest": cache.root, "size": 5}
        with open_caches([local(tmp_path / "c")], ()) as caches:
            send(caches, cache)
            caches.publish({"cache.manifest": json.dumps(said)})
        (entry,) = json.loads((tmp_path / "c" / "index.json").read_bytes())["manifests"]
        assert (entry["mediaType"], entry["size"]) == (INDEX_DOCKER, len(cache.blobs[-1][1]))

    def test_a_cacheconfig_above_the_import_cap_is_told(self, tmp_path: Path) -> None:
        many = make_cache([b"%d" % n for n in range(10)])
        _, config = many.blobs[-2]
        big = config[:-1] + b" " * (1 << 20) + b"}"
        manifest = many.blobs[-1][1].replace(digest_of(config).encode(), digest_of(big).encode())
        manifest = manifest.replace(f'"size": {len(config)}'.encode(), b'"size": %d' % len(big))
        blobs_sent = (*many.blobs[:-2], (digest_of(big), big), (digest_of(manifest), manifest))
        told: list[str] = []
        (result,) = run([local(tmp_path / "c")], Exported(blobs_sent, ""), warn=told.append)
        assert result.outcome == "published"
        assert len(told) == 1
        assert f"its cacheconfig has 1.0 MB ({len(big):,} bytes)" in told[0]

    def test_notes_say_when(self, tmp_path: Path) -> None:
        run([local(tmp_path / "c", "main")], CACHE)
        with open_store(tmp_path / "c") as layout:
            note = read_tag_uses(layout)["main"]
            assert note.exported_ns is not None
            assert note.imported_ns is None
            assert note.digest == CACHE.root
            with open_caches((), [CacheImport("local", src=str(tmp_path / "c"), tag="main")]):
                note = read_tag_uses(layout)["main"]
                assert note.imported_ns is not None
                assert note.imported_ns >= (note.exported_ns or 0)

    @pytest.mark.parametrize("is_optional", [False, True])
    def test_a_full_disk_is_known_as_what_it_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_optional: bool
    ) -> None:
        real = os.write

        def full(fd: int, data: Any) -> int:
            if len(data) == len(b"layer two" * 50):
                raise OSError(28, "No space left on device")
            return real(fd, data)

        export = local(tmp_path / "c", **{"ignore-error": str(is_optional).lower()})
        with open_caches([export], ()) as caches, serving(caches.stores) as channel:
            assert caches.failure is None
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", full)
                daemon = Daemon(channel, next(iter(caches.stores)))
                error = code_of(daemon.export, CACHE)
            assert "cannot write a blob: No space left on device" in error.message
            assert isinstance(caches.failure, KitcacheError)
            assert "free a little space" in caches.failure.hints[0]
            assert os.listdir(tmp_path / "c" / "ingest") == []
            (result,) = caches.publish()
        problem = "not published: cannot write a blob: No space left on device"
        assert (result.outcome, result.problem) == ("failed", problem)
        assert result.exit_code == (0 if is_optional else 1)


class TestHoles:
    def test_with_one_nothing_is_published_and_nothing_removed(self, tmp_path: Path) -> None:
        run([local(tmp_path / "c", "old")], OTHER)
        with open_caches([local(tmp_path / "c", reset=True)], ()) as caches:
            send(caches, CACHE)
            layer = CACHE.blobs[0][1]
            (tmp_path / "c" / "blobs" / "sha256" / digest_of(layer)[7:]).unlink()
            (result,) = caches.publish()
        assert (result.outcome, result.exit_code, result.reset) == ("failed", 12, None)
        assert result.problem.startswith("not published: blob sha256:")
        assert result.problem.endswith("is missing")
        assert tags(tmp_path / "c") == {"old": OTHER.root}

    @pytest.mark.parametrize("n", range(4))
    def test_one_that_comes_with_publishing_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
    ) -> None:
        """A stranger's reset, which knows none of our locks."""
        real = DirectoryStore.commit_roots

        def met(*args: Any, **more: Any) -> Any:
            lost = CACHE.blobs[n][1]
            (tmp_path / "c" / "blobs" / "sha256" / digest_of(lost)[7:]).unlink()
            return real(*args, **more)

        monkeypatch.setattr(DirectoryStore, "commit_roots", met)
        (result,) = run([local(tmp_path / "c", reset=True)], CACHE)
        assert (result.outcome, result.exit_code, result.reset) == ("failed", 12, None)
        assert "published, but another client has deleted blobs of it" in result.problem

    def test_beside_a_failed_export_nothing_is_removed(self, tmp_path: Path) -> None:
        run([local(tmp_path / "c")], OTHER)
        new = make_cache([b"new"])
        exports = [local(tmp_path / "c", reset=True), local(tmp_path / "c", "max", mode="max")]
        with open_caches(exports, ()) as caches:
            send(caches, new, CACHE)
            (tmp_path / "c" / "blobs" / "sha256" / CACHE.root[7:]).unlink()
            good, bad = caches.publish()
        assert (good.outcome, good.reset) == ("published", None)
        assert (bad.outcome, bad.exit_code) == ("failed", 12)
        assert blobs(tmp_path / "c") == (OTHER.digests | new.digests | CACHE.digests) - {CACHE.root}

    def test_an_optional_export_fails_without_failing_the_build(self, tmp_path: Path) -> None:
        export = local(tmp_path / "c", **{"ignore-error": "true"})
        with open_caches([export], ()) as caches:
            send(caches, CACHE)
            (tmp_path / "c" / "blobs" / "sha256" / CACHE.root[7:]).unlink()
            (result,) = caches.publish()
        assert (result.outcome, result.exit_code) == ("failed", 0)

    def test_an_index_that_broke_meanwhile_is_told(self, tmp_path: Path) -> None:
        with open_caches([local(tmp_path / "c", reset=True)], ()) as caches:
            send(caches, CACHE)
            (tmp_path / "c" / "index.json").write_bytes(b"[]")
            (result,) = caches.publish()
        assert (result.outcome, result.exit_code, result.reset) == ("failed", 12, None)
        assert "index.json is invalid or ambiguous" in result.problem

    def test_cancel_publishes_nothing(self, tmp_path: Path) -> None:
        cancel = Event()
        with open_caches([local(tmp_path / "c")], (), cancel=cancel) as caches:
            send(caches, CACHE)
            cancel.set()
            with pytest.raises(Cancelled):
                caches.publish()
        assert tags(tmp_path / "c") == {}
