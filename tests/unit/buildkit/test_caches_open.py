"""buildkit/caches.py: a directory made, found fit, and locked, before anything is built."""

import fcntl
import json
import os
from pathlib import Path

import pytest

import kitcache
from kitcache.errors import Busy, Damaged, NotACache, Unsafe
from tests.hostile.build import Sample
from tests.property.disk import settle
from tests.unit.buildkit.cachekit import CACHE, local, locked, open_caches, run, tags
from tests.unit.buildkit.session.exporter import (
    Daemon,
    serving,
)


class TestAFreshDirectory:
    def test_it_is_made_with_its_parents_and_is_a_cache_at_once(self, tmp_path: Path) -> None:
        dest = tmp_path / "a" / "b" / "cache"
        umask = os.umask(0)
        try:
            with open_caches([local(dest)], ()):
                assert kitcache.ls(dest).tags == ()
        finally:
            os.umask(umask)
        for path in (tmp_path / "a", tmp_path / "a" / "b", dest, dest / "blobs" / "sha256"):
            assert path.stat().st_mode & 0o777 == 0o755
        assert json.loads((dest / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
        assert json.loads((dest / "index.json").read_bytes())["manifests"] == []
        assert (dest / "index.json").stat().st_mode & 0o777 == 0o644

    def test_a_broken_off_build_leaves_it_importable(self, tmp_path: Path) -> None:
        with (
            open_caches([local(tmp_path / "cache")], ()) as caches,
            serving(caches.stores) as channel,
        ):
            upload = Daemon(channel, next(iter(caches.stores))).upload("layer-x", b"half")
            upload.stat()
            upload.write(b"ha")
        assert kitcache.ls(tmp_path / "cache").tags == ()
        assert os.listdir(tmp_path / "cache" / "ingest") == []
        settle(tmp_path / "cache")
        assert kitcache.reset(tmp_path / "cache", lock_timeout_s=0).outcome == "done"

    def test_an_index_is_not_made_up_beside_blobs(self, sample: Sample) -> None:
        """It would say of all of them that they are garbage."""
        (sample.dir / "index.json").unlink()
        with open_caches([local(sample.dir)], ()):
            pass
        assert not (sample.dir / "index.json").exists()
        assert run([local(sample.dir)], CACHE)[0].outcome == "published"
        assert tags(sample.dir) == {"latest": CACHE.root}

    def test_what_an_export_that_broke_off_left_is_a_cache_to_be(self, tmp_path: Path) -> None:
        (tmp_path / "cache" / "ingest").mkdir(parents=True)
        (tmp_path / "cache" / "index.json.lock").touch()
        assert run([local(tmp_path / "cache")], CACHE)[0].outcome == "published"


class TestWhatIsNoDest:
    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(NotACache, match="directory"), open_caches([local(path)], ()):
                pass

    def test_a_directory_of_other_things(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        with (
            pytest.raises(NotACache, match=r"contains other files \('notes.txt'\)") as caught,
            open_caches([local(tmp_path)], ()),
        ):
            pass
        assert caught.value.effect == "nothing was built"
        assert os.listdir(tmp_path) == ["notes.txt"]

    def test_a_cache_whose_index_cannot_be_read(self, sample: Sample) -> None:
        sample.box.write_index(b"{")
        with (
            pytest.raises(Damaged, match="is invalid or ambiguous"),
            open_caches([local(sample.dir)], ()),
        ):
            pass

    def test_a_cache_that_borrows_its_blobs(self, sample: Sample) -> None:
        (sample.dir / "blobs").rename(sample.box.top / "pool")
        (sample.dir / "blobs").symlink_to(sample.box.top / "pool")
        with (
            pytest.raises(Unsafe, match="blobs is a symbolic link"),
            open_caches([local(sample.dir)], ()),
        ):
            pass

    def test_a_cache_that_somebody_collects(self, sample: Sample) -> None:
        with (
            locked(sample.dir, fcntl.LOCK_EX),
            pytest.raises(Busy, match=r"kitcache.lock is held by"),
            open_caches([local(sample.dir)], (), lock_timeout_s=0),
        ):
            pass

    def test_after_a_refusal_nothing_stays_locked_or_open(self, sample: Sample) -> None:
        before = len(os.listdir("/proc/self/fd"))
        (sample.box.top / "file").touch()
        exports = [local(sample.dir), local(sample.box.top / "file")]
        with pytest.raises(NotACache), open_caches(exports, ()):
            pass
        assert len(os.listdir("/proc/self/fd")) == before
        assert kitcache.reset(sample.dir, lock_timeout_s=0).outcome == "done"
