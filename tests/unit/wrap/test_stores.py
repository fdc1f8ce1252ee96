import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from kitcache.errors import Busy, NotACache
from kitcache.gc.control import LockOptions
from kitcache.wrap.stores import LockedCaches, is_locked_elsewhere
from tests.hostile.strangers import lock_holder

TERMS = LockOptions(0.0, None, lambda _: None)


def test_one_directory_is_opened_and_locked_once_by_whatever_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").mkdir()
    with ExitStack() as stack:
        stores = LockedCaches(TERMS, stack)
        one = stores.to_write(str(tmp_path / "real"))
        assert stores.to_write(str(tmp_path / "real" / ".." / "link")) is one
        assert stores.to_write(str(tmp_path / "new" / "deep")) is not one
        assert len(stores.all) == 2
        (tmp_path / "real" / "index.json").write_text("{}")
        assert stores.to_read(str(tmp_path / "link")) is one
        assert stores.to_read(str(tmp_path / "missing")) is None


def test_the_lock_is_shared_and_gone_once_it_is_given_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        store = LockedCaches(TERMS, stack).to_write(str(tmp_path / "c"))
        (fd,) = store.lock_fds
        copy = os.dup(fd)  # as a descendant of the command would have it
        with (tmp_path / "c" / "kitcache.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            store.give_back()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(copy)


def test_a_lock_of_others_stops_it_before_the_command(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with lock_holder(tmp_path / "c" / "kitcache.lock", "ex"), ExitStack() as stack:
        with pytest.raises(Busy) as caught:
            LockedCaches(TERMS, stack).to_write(str(tmp_path / "c"))
        assert caught.value.effect == "the command was not started"


def test_what_is_no_cache_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("")
    with ExitStack() as stack, pytest.raises(NotACache):
        LockedCaches(TERMS, stack).to_write(str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis"]


def test_a_neighbour_is_another_process(tmp_path: Path) -> None:
    with ExitStack() as stack:
        store = LockedCaches(TERMS, stack).to_write(str(tmp_path / "c"))
        assert not is_locked_elsewhere(store.layout)
        with lock_holder(tmp_path / "c" / "kitcache.lock", "sh"):
            assert is_locked_elsewhere(store.layout)
        assert not is_locked_elsewhere(store.layout)
