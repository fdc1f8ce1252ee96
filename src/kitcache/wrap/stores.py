"""The cache directories of one command: each opened and locked once, by whatever names.

The lock is shared, and passed on to the command: should this process be killed, the command goes
on and so does the lock. When the command is done the lock is given back whoever else has it open.
"""

import fcntl
import os
from contextlib import ExitStack, suppress
from typing import NamedTuple

from kitcache.errors import Busy, Cancelled, KitcacheError, NotACache, Unsafe
from kitcache.gc.control import LockOptions
from kitcache.store.create import make_layout
from kitcache.store.layout import Layout, look_at_open, open_file, open_layout
from kitcache.store.locks import (
    KITCACHE_LOCK,
    WaitPolicy,
    describe_unlocked,
    list_takers,
    lock_store,
)

_NOTHING_RAN = "the command was not started"


class LockedCache(NamedTuple):
    """A real directory in this command. lock: closed to give the shared lock back.

    lock_fds: what the command inherits.
    """

    layout: Layout
    real_path: str
    lock: ExitStack
    lock_fds: list[int]

    def give_back(self) -> None:
        """Let go of the shared lock, also where a descendant of the command still has it open."""
        self.lock.close()


class LockedCaches:
    """All of one command; what was opened is closed, and locks are given back, with the stack."""

    def __init__(self, terms: LockOptions, stack: ExitStack) -> None:
        self._terms = terms
        self._stack = stack
        self.all: list[LockedCache] = []

    def to_write(self, path: str) -> LockedCache:
        """A cache to export to, made if it is not there, as the client would make it.

        Raises NotACache, Unsafe, Busy, KitcacheError. To be asked before to_read is.
        """
        try:
            layout = make_layout(path)
        except NotACache as error:
            error.effect = _NOTHING_RAN
            error.hints = ("name a cache, an empty directory, or one that is not there yet",)
            raise
        return self._known(layout) or self._hold(layout, path, is_export=True)

    def to_read(self, path: str) -> LockedCache | None:
        """A cache to import from; None where there is none, which is the client's to say."""
        try:
            layout = open_layout(path)
        except NotACache:
            return None
        except KitcacheError as error:
            self._terms.warn(describe_unlocked(path, error))
            return None
        return self._known(layout) or self._hold(layout, path, is_export=False)

    def _known(self, layout: Layout) -> LockedCache | None:
        self._stack.enter_context(layout)
        found = look_at_open(layout, layout.root_fd, "the directory")
        for store in self.all:
            known = look_at_open(store.layout, store.layout.root_fd, "the directory")
            if os.path.samestat(found, known):
                return store
        return None

    def _hold(self, layout: Layout, path: str, *, is_export: bool) -> LockedCache:
        store = LockedCache(
            layout, os.path.realpath(path), self._stack.enter_context(ExitStack()), []
        )
        patience = self._terms.wait_policy(layout)
        try:
            hold_inherited(layout, store.lock, store.lock_fds, patience)
        except (Busy, Cancelled) as error:
            error.effect = _NOTHING_RAN
            raise
        except KitcacheError as error:
            if is_export and isinstance(error, Unsafe):
                error.effect = _NOTHING_RAN
                raise
            self._terms.warn(describe_unlocked(layout.path, error))
        self.all.append(store)
        return store


def hold_inherited(
    layout: Layout, lock: ExitStack, lock_fds: list[int], patience: WaitPolicy
) -> None:
    """kitcache.lock, shared, until `lock` is closed; and once more through an fd to pass on.

    Raises as hold_store.
    """
    lock.enter_context(lock_store(layout, "shared", patience))
    fd = open_file(layout, KITCACHE_LOCK)
    if fd is not None:
        lock_fds.append(fd)
        lock.callback(_give_back, fd)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _give_back(fd: int) -> None:
    # Not only closed: what the command has started may go on and have it open for ever.
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def is_locked_elsewhere(layout: Layout) -> bool:
    """Whether another process has the lock too; False where the system does not tell."""
    fd = open_file(layout, KITCACHE_LOCK)
    if fd is None:
        return False
    try:
        return any(pid != os.getpid() for pid in list_takers(fd))
    finally:
        os.close(fd)
