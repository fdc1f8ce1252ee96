"""Blobs that kitcache makes: rewritten manifests and cacheconfigs.

They are not written in ingest/: a reset would regard them as uploads of a running export.
"""

import os
import sys

from kitcache.errors import NOTHING_CHANGED, KitcacheError
from kitcache.oci.digest import Digest, sha256_of
from kitcache.store.files import NEW_BLOB, reference_stat, replace_file, temporary_name
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import Layout
from kitcache.store.state import require_state_dir


def write_blob(layout: Layout, data: bytes) -> Digest:
    """Write a blob below blobs/sha256/ and sync its bytes; sync_blobs makes its name durable.

    If the blob exists with these bytes, only its time is set to now. The caller holds kitcache.lock
    and has opened the layout's directories.

    Raises:
        KitcacheError: Disk full, read-only. No file of the blob remains.
    """
    digest = sha256_of(data)
    target_fd = layout.blobs.get(digest.algorithm)
    if target_fd is None:
        raise KitcacheError(layout.path, "blobs/sha256 is missing", effect=NOTHING_CHANGED)
    if not _renew(layout, digest, data):
        with require_state_dir(layout) as state_fd:
            target, temporary = (target_fd, digest.hex), (state_fd, temporary_name(NEW_BLOB))
            try:
                replace_file(target, temporary, (data,), reference_stat(layout), 0o444)
            except OSError as error:
                raise io_error(layout.path, "cannot write a new blob", error) from None
    return digest


def _renew(layout: Layout, digest: Digest, data: bytes) -> bool:
    """Set the time of an intact blob to now; return False if there is none."""
    try:
        if layout.read_blob(digest, len(data)) is None:
            return False
        os.utime(digest.hex, dir_fd=layout.blobs[digest.algorithm], follow_symlinks=False)
    except (KitcacheError, OSError):
        return False
    return True


def sync_blobs(layout: Layout, *, with_bytes: bool = False) -> None:
    """Make the names of all blobs, and of their directories, durable. Raises KitcacheError.

    Args:
        with_bytes: First sync the bytes of all files: a file that was linked may not be synced.
    """
    try:
        if with_bytes:
            _sync_file_system(layout.root_fd)
        for fd in (*layout.blobs.values(), layout.blobs_fd, layout.root_fd):
            if fd is not None:
                os.fsync(fd)
    except OSError as error:
        raise io_error(layout.path, "cannot sync blobs", error) from None


def _sync_file_system(fd: int) -> None:
    """Sync all files in one call. Raises OSError."""
    if sys.platform != "linux":
        os.sync()
        return
    import ctypes  # noqa: PLC0415 - most commands never sync a file system

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
