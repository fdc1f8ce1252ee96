"""A directory becomes a cache: made, found fit and writable, given oci-layout and index.json.

And what is below it is made so that the users of the cache can open it.
"""

import errno
import os
from contextlib import AbstractContextManager, suppress

from kitcache.errors import NotACache
from kitcache.oci.index import EMPTY_INDEX
from kitcache.store.commit import replace_root_file
from kitcache.store.directory import DirectoryStore
from kitcache.store.files import (
    INDEX,
    PROBE,
    delete_file,
    reference_stat,
    temporary_name,
    write_file,
)
from kitcache.store.index import sync_root
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import Layout, check_version, is_bare, open_checked

OCI_LAYOUT = "oci-layout"
_LAYOUT_DOCUMENT = b'{"imageLayoutVersion":"1.0.0"}'
_PROBE_BYTES = 4096


def make_layout(path: str | os.PathLike[str]) -> DirectoryStore:
    """The directory at that path, opened to be written to as a cache, and made if it is not there.

    It and missing parents get mode 0755. Besides a cache, only a directory that holds nothing but
    a cache's own names will do; its oci-layout and index.json are make_index's to write. Raises
    NotACache, Unsafe as open_store does, and KitcacheError where it cannot be made.
    """
    name = os.fspath(path)
    try:
        _make_directories(name)
    except NotADirectoryError:
        raise NotACache(name, "a part of its path is no directory") from None
    except PermissionError as error:
        failure = io_error(name, "cannot be made", error)
        failure.hints = ("name a directory that you may make, or have it made for you",)
        raise failure from None
    except OSError as error:
        raise io_error(name, "cannot be made", error) from None
    except ValueError as error:
        raise NotACache(name, str(error)) from None
    return open_checked(DirectoryStore, name, _check_purpose)


def find_layout(path: str | os.PathLike[str]) -> DirectoryStore | None:
    """What make_layout would open, None where it would make a directory; raises likewise."""
    name = os.fspath(path)
    try:
        return open_checked(DirectoryStore, name, _check_purpose)
    except NotACache:
        if os.path.lexists(name) or "\0" in name:
            raise
        return None


def _make_directories(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return  # whatever it is, opening it will tell
    except FileNotFoundError:
        parent = os.path.dirname(path.rstrip("/"))
        if not parent:
            raise
        _make_directories(parent)
        with suppress(FileExistsError):
            os.mkdir(path, 0o755)


def _check_purpose(layout: Layout) -> None:
    if not is_bare(layout):
        check_version(layout)
        return
    from kitcache.store.fresh import find_strangers  # noqa: PLC0415 - mostly it is a cache

    strangers = find_strangers(_names_in(layout))
    if strangers:
        raise NotACache(
            layout.path,
            f"it has neither oci-layout nor index.json, and holds other things ({strangers[0]!r})",
        )


def _names_in(layout: Layout) -> list[str]:
    """What is directly below DIR. Raises KitcacheError."""
    try:
        return os.listdir(layout.root_fd)
    except OSError as error:
        raise io_error(layout.path, "cannot be listed", error) from None


def make_index(layout: Layout, lock: AbstractContextManager[None]) -> None:
    """oci-layout, and an index.json without entries, where they are missing: an empty cache.

    lock: BuildKit's, not taken yet, and taken only where something is missing. Beside blobs no
    index.json is made, for it would say of each of them that it is garbage. Raises KitcacheError
    (disk full, read-only).
    """
    if not _missing(layout):
        return
    with lock:
        for name, data in _missing(layout):
            replace_root_file(layout, name, data)
    sync_root(layout)


def _missing(layout: Layout) -> list[tuple[str, bytes]]:
    names = _names_in(layout)
    missing = [] if OCI_LAYOUT in names else [(OCI_LAYOUT, _LAYOUT_DOCUMENT)]
    if INDEX not in names and "blobs" not in names:
        missing.append((INDEX, EMPTY_INDEX))
    return missing


def check_writable(layout: Layout, room_fd: int | None) -> None:
    """Find out before a build what would stop its export at the end.

    The layout's directories have been opened. room_fd: a directory of ours, for a file that is gone
    at once; without one it is made in DIR.
    Raises KitcacheError: read-only, no permission, disk full.
    """
    places = {"": layout.root_fd, "blobs": layout.blobs_fd, "ingest": layout.ingest_fd}
    places |= {f"blobs/{algorithm}": fd for algorithm, fd in layout.blobs.items()}
    for name, fd in places.items():
        if fd is not None and not os.access(".", os.W_OK | os.X_OK, dir_fd=fd):
            is_read_only = os.fstatvfs(fd).f_flag & os.ST_RDONLY
            code = errno.EROFS if is_read_only else errno.EACCES
            what = f"cannot write to {name or 'the directory'}"
            raise io_error(layout.path, what, OSError(code, os.strerror(code)))
    probe = (layout.root_fd if room_fd is None else room_fd, temporary_name(PROBE))
    try:
        write_file(*probe, (bytes(_PROBE_BYTES),), reference_stat(layout))
    except OSError as error:
        # A state directory of another user says nothing about the rest.
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise io_error(layout.path, "cannot be written to", error) from None
    finally:
        delete_file(*probe)
