"""DIR/.kitcache/quarantine/: blobs that do not match their digests, and replaced indexes.

Files are renamed, so no space is needed and no byte is lost. If a name is taken, the new file gets
a number. kitcache counts these files and does nothing else with them.
"""

import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from kitcache.oci.digest import Digest
from kitcache.store.files import INDEX, STATE_DIR, make_directory, reference_stat, write_file
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import Layout
from kitcache.store.scan import QUARANTINE
from kitcache.store.values import HeldLock


class Quarantine:
    """The quarantine of one cache; a context manager. Its directory is created when needed."""

    def __init__(self, held: HeldLock[Layout]) -> None:
        if held.kind != "exclusive":
            raise ValueError("a quarantine requires the exclusive lock")
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
        """Open the directory, and create it if it is missing. Return its fd.

        A caller that does this early fails before it has changed anything.

        Raises:
            Unsafe: It, or .kitcache, is a symlink.
            KitcacheError: It cannot be created.
        """
        if self._fd is None:
            self._fd = _open(self._layout)
        return self._fd

    def take_blob(self, digest: Digest) -> None:
        """Move a blob to the quarantine, if it exists. Raises KitcacheError; it was not moved."""
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
        """Keep the index.json that is replaced next, and has these bytes, in the quarantine.

        Raises KitcacheError; nothing was changed.
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
        """Make the new names durable. Raises KitcacheError."""
        if self._fd is None:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise io_error(self._layout.path, "cannot sync the quarantine", error) from None

    def _free_name(self, wanted: str) -> str:
        """Return an unused name. No other process adds names, because of the exclusive lock."""
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
    state_fd = make_directory(layout, STATE_DIR, layout.root_fd)
    try:
        return make_directory(layout, QUARANTINE, state_fd, f"{STATE_DIR}/")
    finally:
        os.close(state_fd)
