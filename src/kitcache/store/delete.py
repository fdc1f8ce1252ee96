"""unlinkat, and nothing else. Opens only for the holder of the exclusive lock."""

import os
import stat
from contextlib import suppress

from kitcache.store.layout import DIR_FLAGS, Layout
from kitcache.store.locks import HeldLock
from kitcache.store.scan import REMOVING


class BlobDeleter:
    """Removes single blobs and single uploads of one layout. Callable from several threads."""

    def __init__(self, held: HeldLock) -> None:
        if held.kind != "exclusive":
            raise ValueError("removing takes the exclusive lock")
        self._layout: Layout = held.layout

    def blob(self, algorithm: str, name: str) -> None:
        """Remove one blob. Raises OSError as unlink does."""
        os.unlink(name, dir_fd=self._layout.blobs[algorithm])

    def blobs(self, algorithm: str, names: list[str]) -> int:
        """Remove blobs in order, up to the first that cannot be removed: how many went."""
        fd, unlink, done = self._layout.blobs[algorithm], os.unlink, 0
        with suppress(OSError):
            for name in names:
                unlink(name, dir_fd=fd)
                done += 1
        return done

    def ingest(self, name: str) -> None:
        """Remove an upload: mark it, remove its regular files, then its directory. Raises OSError.

        A directory that holds anything else keeps all it has. Killed on the way, or stopped once a
        file is gone, it leaves one that the next reset knows by its mark, however fresh its times
        are.
        """
        parent = self._layout.ingest_fd
        fd = os.open(name, DIR_FLAGS, dir_fd=parent)
        try:
            names = os.listdir(fd)
            for inner in names:
                with suppress(FileNotFoundError):
                    mode = os.stat(inner, dir_fd=fd, follow_symlinks=False).st_mode
                    if not stat.S_ISREG(mode):
                        raise OSError(0, f"{inner} in it is no regular file")
            marked = name.removesuffix(REMOVING) + REMOVING
            os.rename(name, marked, src_dir_fd=parent, dst_dir_fd=parent)
            gone = 0
            try:
                for inner in names:
                    with suppress(FileNotFoundError):
                        os.unlink(inner, dir_fd=fd)
                        gone += 1
                os.rmdir(marked, dir_fd=parent)
            except OSError:
                if not gone:
                    os.rename(marked, name, src_dir_fd=parent, dst_dir_fd=parent)
                raise
        finally:
            os.close(fd)
