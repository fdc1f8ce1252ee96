"""unlinkat: the only code that deletes blobs and uploads. It requires the exclusive lock."""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from kitcache.errors import NOTHING_DELETED
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import DIR_FLAGS, Layout
from kitcache.store.scan import REMOVING
from kitcache.store.values import DeleteResult, HeldLock


def delete_blobs(
    layout: Layout, lock: HeldLock[Layout], algorithm: str, names: Sequence[str]
) -> DeleteResult:
    """Delete blobs in order. Callable from several threads; raises ValueError without the lock.

    Raises:
        KitcacheError: The file system is read-only, so no blob can be deleted.
    """
    _require_exclusive(layout, lock)
    fd, unlink = layout.blobs[algorithm], os.unlink
    missing: list[str] = []
    failures: dict[str, str] = {}
    todo = iter(names)
    while True:
        name = ""
        try:
            for name in todo:
                unlink(name, dir_fd=fd)
        except FileNotFoundError:
            missing.append(name)
        except OSError as error:
            # After the first name, the next call raises it: this one has deleted blobs.
            if error.errno == errno.EROFS and name == names[0]:
                raise io_error(
                    layout.path, "no blob can be deleted", error, effect=NOTHING_DELETED
                ) from None
            failures[name] = error.strerror or str(error)
        else:
            return DeleteResult(missing, failures)


def delete_ingest(layout: Layout, lock: HeldLock[Layout], name: str) -> None:
    """Mark an upload, delete its regular files, then its directory. Raises OSError, ValueError.

    If it contains anything but regular files, nothing is deleted. If this process is killed, or
    fails after the first file, the next reset recognizes the rest by the mark, not by its times.
    """
    _require_exclusive(layout, lock)
    parent = layout.ingest_fd
    fd = os.open(name, DIR_FLAGS, dir_fd=parent)
    try:
        names = os.listdir(fd)
        for inner in names:
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(os.stat(inner, dir_fd=fd, follow_symlinks=False).st_mode):
                    raise OSError(0, f"{inner} in it is not a regular file")
        marked = name.removesuffix(REMOVING) + REMOVING
        os.rename(name, marked, src_dir_fd=parent, dst_dir_fd=parent)
        deleted = 0
        try:
            for inner in names:
                with suppress(FileNotFoundError):
                    os.unlink(inner, dir_fd=fd)
                    deleted += 1
            os.rmdir(marked, dir_fd=parent)
        except OSError:
            if not deleted:
                os.rename(marked, name, src_dir_fd=parent, dst_dir_fd=parent)
            raise
    finally:
        os.close(fd)


def _require_exclusive(layout: Layout, lock: HeldLock[Layout]) -> None:
    if lock.kind != "exclusive" or lock.store is not layout:
        raise ValueError("deletion requires the exclusive lock of the same store")
