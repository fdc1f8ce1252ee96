"""buildkit/resolve.py, and imports as a whole: warnings in BuildKit's words."""

import fcntl
import json
import os
from pathlib import Path

import pytest

import kitcache
from kitcache.errors import Busy
from kitcache.options.caches import CacheImport
from tests.hostile.build import Sample
from tests.unit.buildkit.cachekit import CACHE, OTHER, blobs, local, locked, open_caches, send
from tests.unit.buildkit.session.exporter import (
    Daemon,
    digest_of,
    serving,
)


class TestImports:
    def test_it_is_read_under_the_shared_lock(self, sample: Sample) -> None:
        wanted = CacheImport("local", src=str(sample.dir), tag="dev")
        warnings: list[str] = []
        with open_caches((), [wanted], warn=warnings.append) as caches:
            ((kind, attrs),) = caches.import_entries
            assert (kind, attrs["digest"]) == ("local", sample.dev["digest"])
            with serving(caches.stores) as channel:
                daemon = Daemon(channel, "local:" + attrs["src"])
                assert digest_of(daemon.read(attrs["digest"])) == attrs["digest"]
            with pytest.raises(Busy):
                kitcache.reset(sample.dir, lock_timeout_s=0)
        assert kitcache.reset(sample.dir, lock_timeout_s=0).outcome == "done"
        assert warnings == []

    def test_a_digest_wins_over_the_tag(self, sample: Sample) -> None:
        digest = sample.main["digest"]
        wanted = CacheImport("local", src=str(sample.dir), tag="nowhere", digest=digest)
        with open_caches((), [wanted]) as caches:
            assert caches.import_entries[0][1]["digest"] == digest

    def test_an_image_name_is_looked_up_before_a_ref_name(self, sample: Sample) -> None:
        named = sample.dev | {"annotations": {"io.containerd.image.name": "main"}}
        document = sample.box.index_document()
        document["manifests"] = [*document["manifests"], named]
        sample.box.write_index(json.dumps(document).encode())
        with open_caches((), [CacheImport("local", src=str(sample.dir), tag="main")]) as caches:
            assert caches.import_entries[0][1]["digest"] == sample.dev["digest"]

    def test_others_pass_through(self) -> None:
        with open_caches((), [CacheImport("registry", (("ref", "a/b"),))]) as caches:
            assert caches.import_entries == [("registry", {"ref": "a/b"})]

    def test_what_is_sent_besides_is_kept(self, sample: Sample) -> None:
        wanted = CacheImport("local", (("x", "y"),), src=str(sample.dir), tag="dev")
        with open_caches((), [wanted, wanted]) as caches:
            ((_, attrs),) = caches.import_entries
            assert set(attrs) == {"x", "src", "digest"}

    def warning_of(self, src: Path, tag: str = "latest", digest: str | None = None) -> str:
        wanted = CacheImport("local", src=str(src), tag=tag, digest=digest)
        warnings: list[str] = []
        with open_caches((), [wanted], lock_timeout_s=0, warn=warnings.append) as caches:
            assert caches.import_entries == []
            assert caches.stores == {}
        (sentence,) = warnings
        prefix = f"local cache import at {src} "
        assert sentence.startswith(prefix)
        return sentence.removeprefix(prefix)

    def test_a_missing_one_is_not_made(self, tmp_path: Path) -> None:
        told = self.warning_of(tmp_path / "nowhere")
        assert told == "not found due to err: not a cache: no such directory"
        assert os.listdir(tmp_path) == []

    def test_why_else_it_is_left_out(self, sample: Sample) -> None:
        assert self.warning_of(sample.dir, "nope") == "skipped: no digest found for tag nope"
        missing = digest_of(b"nowhere")
        told = self.warning_of(sample.dir, digest=missing)
        assert told == f"skipped: digest {missing} unavailable: is missing"
        told = self.warning_of(sample.dir, digest="sha256:abc")
        assert told.startswith("skipped: digest sha256:abc unavailable:")
        sample.box.damage(sample.main["digest"], b"{}")
        assert "unavailable: is truncated" in self.warning_of(sample.dir, "main")
        sample.box.write_index(b"[")
        told = self.warning_of(sample.dir, "dev")
        assert told.startswith("skipped due to err: index.json is invalid or ambiguous")

    def test_one_that_somebody_collects_is_left_out(self, sample: Sample) -> None:
        with locked(sample.dir, fcntl.LOCK_EX):
            told = self.warning_of(sample.dir, "main")
        assert told.startswith("skipped due to err: kitcache.lock is held by")

    def test_without_a_lock_it_goes_on_and_says_so(self, sample: Sample) -> None:
        (sample.dir / "kitcache.lock").mkdir()
        wanted = CacheImport("local", src=str(sample.dir), tag="main")
        warnings: list[str] = []
        with open_caches((), [wanted], warn=warnings.append) as caches:
            assert len(caches.import_entries) == 1
        (told,) = warnings
        assert "not protected from a concurrent reset" in told

    def test_from_where_it_exports_to(self, tmp_path: Path) -> None:
        """One directory, one lock; the first build has nothing to import yet."""
        both = [local(tmp_path / "c", reset=True)], [CacheImport("local", src=str(tmp_path / "c"))]
        warnings: list[str] = []
        with open_caches(*both, warn=warnings.append) as caches:
            assert caches.import_entries == []
            assert "no digest found for tag latest" in warnings[0]
            send(caches, CACHE)
            caches.publish()
        with open_caches(*both) as caches:
            ((_, attrs),) = caches.import_entries
            assert attrs["src"] != caches.export_entries[0][1]["dest"]
            with serving(caches.stores) as channel:
                daemon = Daemon(channel, "local:" + attrs["src"])
                assert daemon.read(attrs["digest"]) == CACHE.blobs[-1][1]
            send(caches, OTHER)
            (result,) = caches.publish()
        assert result.reset is not None
        assert result.reset.outcome == "done"
        assert blobs(tmp_path / "c") == OTHER.digests
