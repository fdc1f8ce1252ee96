"""The directories of one build's local caches: each opened and locked once, by whatever names."""

import hashlib
import os
from contextlib import ExitStack
from typing import Literal, NamedTuple

from kitcache.errors import Busy, Cancelled, KitcacheError, NotACache, Unsafe
from kitcache.gc.control import LockOptions
from kitcache.gc.refusals import index_error, repair_command
from kitcache.oci.document import DocumentError
from kitcache.store.create import check_writable, make_index, make_layout
from kitcache.store.index import read_stable_index
from kitcache.store.ingest import Ingester
from kitcache.store.layout import Layout, open_layout
from kitcache.store.locks import describe_unlocked, lock_index, lock_store
from kitcache.store.state import delete_stale_files, open_state_dir


class LockedCache(NamedTuple):
    """A real directory in this build.

    lock: closed to give the shared lock back. intake: None where it is only imported from.
    had_index: whether index.json was there when the build began.
    """

    layout: Layout
    real_path: str
    lock: ExitStack
    intake: Ingester | None
    had_index: bool = True

    def token(self, what: Literal["export", "import"], number: int = 0) -> str:
        """A store's name for the daemon: always the same for one directory, and not its path."""
        text = f"{what}\0{number}\0{self.real_path}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class PublishedImage(NamedTuple):
    """An image that this build has put into a directory. tags: its ref names in index.json."""

    intake: Ingester
    tags: frozenset[str]


class LockedCaches:
    """All of one build. What was opened is closed, and locks are given back, with the stack."""

    def __init__(self, terms: LockOptions, stack: ExitStack) -> None:
        self._terms = terms
        self._stack = stack
        self.all: list[LockedCache] = []

    def to_write(self, path: str) -> LockedCache:
        """A cache to export to, made if it is not there, and found fit before anything is built.

        Raises NotACache, Unsafe, Damaged (index.json), Busy, Cancelled, KitcacheError (read-only,
        disk full). To be asked before to_read is about the same directory.
        """
        try:
            layout = make_layout(path)
        except NotACache as error:
            error.effect = "nothing was built"
            error.hints = ("name a cache, an empty directory, or one that is not there yet",)
            raise
        known = self._known(layout)
        if known is not None:
            return known
        lock = self._hold(layout, is_export=True)
        had_index = self._prepare(layout)
        intake = Ingester(layout)
        self._stack.callback(intake.close)
        return self._add(LockedCache(layout, os.path.realpath(path), lock, intake, had_index))

    def to_read(self, path: str) -> LockedCache:
        """A cache to import from; nothing is made. Raises as open_layout, Busy and Cancelled."""
        layout = open_layout(path)
        known = self._known(layout)
        if known is not None:
            return known
        lock = self._hold(layout, is_export=False)
        layout.open_directories()
        return self._add(LockedCache(layout, os.path.realpath(path), lock, None))

    def _known(self, layout: Layout) -> LockedCache | None:
        self._stack.enter_context(layout)
        found = os.fstat(layout.root_fd)
        for place in self.all:
            if os.path.samestat(found, os.fstat(place.layout.root_fd)):
                return place
        return None

    def _add(self, place: LockedCache) -> LockedCache:
        self.all.append(place)
        return place

    def _hold(self, layout: Layout, *, is_export: bool) -> ExitStack:
        """The shared lock; where there can be none, a warning."""
        lock = self._stack.enter_context(ExitStack())
        try:
            lock.enter_context(lock_store(layout, "shared", self._terms.wait_policy(layout)))
        except (Busy, Cancelled):
            raise
        except KitcacheError as error:
            if is_export and isinstance(error, Unsafe):
                raise
            self._terms.warn(describe_unlocked(layout.path, error))
        return lock

    def _prepare(self, layout: Layout) -> bool:
        """An index.json that can be relied upon, and the right to write; whether there is one."""
        make_index(layout, lock_index(layout, self._terms.wait_policy(layout)))
        try:
            index, _ = read_stable_index(layout, self._terms.control(layout).pause)
        except DocumentError as error:
            raise index_error(
                layout.path,
                error,
                effect="nothing was built, and nothing was changed",
                hints=(
                    repair_command(layout.path),
                    "restore index.json from a copy, or move it aside and export again",
                ),
            ) from None
        layout.open_directories()
        with open_state_dir(layout) as room_fd:
            check_writable(layout, room_fd)
            if room_fd is not None:
                delete_stale_files(room_fd)
        return index.data is not None
