import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from kitcache.errors import Busy, NotACache
from kitcache.upkeep.jobcaches import (
    LockedCaches,
    LockOptions,
    sweep_after_export,
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
