import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from kitcache.errors import Busy, NotACache, UsageError
from kitcache.options.caches import CacheExport, parse_cache_export
from kitcache.upkeep.jobcaches import (
    LockedCaches,
    LockOptions,
    merge_targets,
    object_target,
    sweep_after_export,
    sweep_objects_after_export,
)
from tests.hostile.strangers import lock_holder

OPTIONS = LockOptions(0.0, None, lambda _: None)
EFFECT = "the command was not started"


def test_one_directory_is_opened_and_locked_once_by_whatever_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").mkdir()
    with ExitStack() as stack:
        caches = LockedCaches(OPTIONS, stack, EFFECT)
        one = caches.open_export(str(tmp_path / "real"))
        assert caches.open_export(str(tmp_path / "real" / ".." / "link")) is one
        assert caches.open_export(str(tmp_path / "new" / "deep")) is not one
        assert len(caches.all) == 2
        (tmp_path / "real" / "index.json").write_text("{}")
        assert caches.open_import(str(tmp_path / "link")) is one
        with pytest.raises(NotACache):
            caches.open_import(str(tmp_path / "missing"))


def test_the_lock_is_shared_and_gone_once_it_is_given_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cache = LockedCaches(OPTIONS, stack, EFFECT).open_export(str(tmp_path / "c"))
        (fd,) = cache.lock_fds
        copy = os.dup(fd)  # as a descendant of the command would have it
        with (tmp_path / "c" / "kitcache.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            cache.release_lock()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(copy)


def test_a_lock_of_others_stops_it_before_the_command(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with lock_holder(tmp_path / "c" / "kitcache.lock", "ex"), ExitStack() as stack:
        with pytest.raises(Busy) as caught:
            LockedCaches(OPTIONS, stack, EFFECT).open_export(str(tmp_path / "c"))
        assert caught.value.effect == EFFECT


def test_what_is_no_cache_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("")
    with ExitStack() as stack, pytest.raises(NotACache):
        LockedCaches(OPTIONS, stack, EFFECT).open_export(str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis"]


def test_a_neighbour_is_another_process(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cache = LockedCaches(OPTIONS, stack, EFFECT).open_export(str(tmp_path / "c"))
        assert not cache.store.is_locked_elsewhere()
        with lock_holder(tmp_path / "c" / "kitcache.lock", "sh"):
            assert cache.store.is_locked_elsewhere()
        assert not cache.store.is_locked_elsewhere()


def test_a_sweep_releases_the_lock_first_and_keeps_what_was_published(tmp_path: Path) -> None:
    with ExitStack() as stack:
        caches = LockedCaches(OPTIONS, stack, EFFECT)
        cache = caches.open_upload(str(tmp_path / "c"))
        assert caches.open_upload(str(tmp_path / "c")).ingester is cache.ingester
        reset, prune = sweep_after_export(cache, None, OPTIONS)
        assert (reset.outcome, prune, cache.lock_fds) == ("done", None, [])


def test_a_cache_without_its_index_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / "c" / "blobs").mkdir(parents=True)
    with ExitStack() as stack:
        cache = LockedCaches(OPTIONS, stack, EFFECT).open_upload(str(tmp_path / "c"))
        assert not cache.had_index
        assert sweep_after_export(cache, None, OPTIONS)[0].outcome == "refused"


S3 = "type=s3,bucket=b,region=r,prefix=ci/,endpoint_url=http://127.0.0.1:1,retry_max_attempts=1"


def test_a_cache_in_an_object_store_is_swept_once() -> None:
    exports = [
        f"{S3},name=a,access_key_id=i,secret_access_key=hush",
        f"{S3},name=b;a,touch_refresh=48h",
        f"{S3},manifests_prefix=other/",
        "type=azblob,account_url=https://a.example",
    ]
    first, other, azure = merge_targets(object_target(parse_cache_export(e)) for e in exports)
    assert (first.names, first.cache.secret_access_key) == (("a", "b"), "hush")
    assert first.cache.touch_refresh_ns == 48 * 3600 * 10**9
    assert (other.names, azure.names) == (("buildkit",), ("buildkit",))
    assert azure.path.startswith("azblob://buildkit-cache/")
    assert (first.cache.warnings, azure.cache.warnings) == ((), ())
    assert "hush" not in f"{first} {first.path}"


def test_the_attributes_name_the_cache_and_not_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The daemon has another environment."""
    monkeypatch.setenv("AWS_BUCKET", "b")
    with pytest.raises(UsageError, match="bucket"):
        object_target(CacheExport("s3", (("region", "r"),)))


def test_an_object_store_that_does_not_answer_is_a_result() -> None:
    target = object_target(parse_cache_export(f"{S3},access_key_id=i,secret_access_key=hush"))
    reset, prune = sweep_objects_after_export(target, None, OPTIONS)
    assert (reset.outcome, reset.exit_code, prune) == ("refused", 0, None)
    assert reset.path == target.path
    assert "hush" not in reset.reason
