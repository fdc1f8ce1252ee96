"""Blobs that kitcache makes itself: a manifest and a cacheconfig that were rewritten.

They do not come by way of ingest/, where others would take them for an export under way.
"""

import hashlib
import os
import sys
from contextlib import suppress

from kitcache.errors import NOTHING_CHANGED, KitcacheError
from kitcache.oci.digest import Digest
from kitcache.store.index import reference_stat, write_new
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import Layout
from kitcache.store.state import require_state_dir


def new_name() -> str:
    """What the file of a new blob is called, in .kitcache/, until it has its name."""
    return f"blob.{os.urandom(8).hex()}"


def write_blob(layout: Layout, data: bytes) -> Digest:
    """Put a new blob below blobs/sha256/: its bytes are on the disk, its name is after sync_blobs.

    One that is there with just these bytes is dated now instead; another in its place is replaced.
    The caller holds kitcache.lock; the layout's directories are open. Raises KitcacheError (disk
    full, read-only): then nothing is left of it.
    """
    digest = Digest("sha256", hashlib.sha256(data).hexdigest())
    target = layout.blobs.get(digest.algorithm)
    if target is None:
        raise KitcacheError(layout.path, "blobs/sha256 is not there", effect=NOTHING_CHANGED)
    if _is_there(layout, digest, data):
        return digest
    with require_state_dir(layout) as room_fd:
        name = new_name()
        try:
            write_new(room_fd, name, data, reference_stat(layout), 0o444)
            os.rename(name, digest.hex, src_dir_fd=room_fd, dst_dir_fd=target)
        except OSError as error:
            with suppress(OSError):
                os.unlink(name, dir_fd=room_fd)
            raise io_error(layout.path, "cannot write a new blob", error) from None
    return digest


def _is_there(layout: Layout, digest: Digest, data: bytes) -> bool:
    try:
        if layout.read_blob(digest, len(data)) is None:
            return False
        os.utime(digest.hex, dir_fd=layout.blobs[digest.algorithm], follow_symlinks=False)
    except (KitcacheError, OSError):
        return False
    return True


def sync_blobs(layout: Layout, *, with_bytes: bool = False) -> None:
    """Put the names of all blobs on the disk. Raises KitcacheError.

    with_bytes: what is in them first. Of a file that was linked nobody knows whether it was synced.
    """
    try:
        if with_bytes:
            _sync_file_system(layout.root_fd)
        for fd in (*layout.blobs.values(), layout.blobs_fd):
            if fd is not None:
                os.fsync(fd)
    except OSError as error:
        raise io_error(layout.path, "cannot sync blobs", error) from None


def _sync_file_system(fd: int) -> None:
    """In one call, however many files there are. Raises OSError."""
    if sys.platform != "linux":
        os.sync()
        return
    import ctypes  # noqa: PLC0415 - most commands link nothing

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
