"""DIR/.kitcache/quarantine/: blobs that hold other bytes than their names say, and an old index.

They are renamed: no space is needed, and nothing is lost. One whose name is taken there gets a
number. What is in there is nobody's any more: kitcache only counts it.
"""

import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from kitcache.oci.digest import Digest
from kitcache.store.files import INDEX, STATE_DIR, make_directory, reference_stat, write_file
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import Layout
from kitcache.store.protocol import HeldLock
from kitcache.store.scan import QUARANTINE


class Quarantine:
    """The quarantine of one layout; a context manager. It is made once something comes into it."""

    def __init__(self, held: HeldLock[Layout]) -> None:
        if held.kind != "exclusive":
            raise ValueError("moving blobs takes the exclusive lock")
        self._layout: Layout = held.store
        self._fd: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def make(self) -> int:
        """An fd of it. Called early, it fails before anything was changed that needs it.

        Raises Unsafe where it, or .kitcache, is a link; KitcacheError where it cannot be made.
        """
        if self._fd is None:
            self._fd = _open(self._layout)
        return self._fd

    def take_blob(self, digest: Digest) -> None:
        """Move a blob here; one that is gone already is nothing.

        Raises KitcacheError: then it is where it was.
        """
        name = self._free_name(f"{digest.algorithm}-{digest.hex}")
        source = self._layout.blobs[digest.algorithm]
        try:
            with suppress(FileNotFoundError):
                os.rename(digest.hex, name, src_dir_fd=source, dst_dir_fd=self.make())
        except OSError as error:
            raise io_error(
                self._layout.path, f"cannot move blob {digest.short} into the quarantine", error
            ) from None

    def keep_index(self, data: bytes) -> None:
        """Give the index.json that is about to be replaced, and has these bytes, a name here.

        Raises KitcacheError: then nothing was changed.
        """
        layout, name = self._layout, self._free_name(INDEX)
        try:
            with suppress(OSError):
                os.link(
                    INDEX,
                    name,
                    src_dir_fd=layout.root_fd,
                    dst_dir_fd=self.make(),
                    follow_symlinks=False,
                )
                return
            # A file system without hard links.
            write_file(self.make(), name, (data,), reference_stat(layout))
        except OSError as error:
            raise io_error(layout.path, f"cannot keep the old {INDEX}", error) from None

    def sync(self) -> None:
        """Put the new names on the disk. Raises KitcacheError."""
        if self._fd is None:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise io_error(self._layout.path, "cannot sync the quarantine", error) from None

    def _free_name(self, wanted: str) -> str:
        """A name that nothing has here: who holds the exclusive lock is alone."""
        name, number = wanted, 1
        while self._has(name):
            number += 1
            name = f"{wanted}.{number}"
        return name

    def _has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self.make(), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True


def _open(layout: Layout) -> int:
    room_fd = make_directory(layout, STATE_DIR, layout.root_fd)
    try:
        return make_directory(layout, QUARANTINE, room_fd, f"{STATE_DIR}/")
    finally:
        os.close(room_fd)
