"""Creation of a cache: its directory, oci-layout and an empty index.json."""

import errno
import os
from contextlib import suppress

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
from kitcache.store.locks import lock_index
from kitcache.store.state import delete_stale_files, open_state_dir
from kitcache.store.values import WaitPolicy

OCI_LAYOUT = "oci-layout"
_LAYOUT_DOCUMENT = b'{"imageLayoutVersion":"1.0.0"}'
_PROBE_BYTES = 4096


def make_layout(path: str | os.PathLike[str]) -> DirectoryStore:
    """Open a directory to write a cache to; create it, and its parents, with mode 0755 if missing.

    The directory is a cache, or has no foreign names. make_index writes oci-layout and index.json.

    Raises:
        NotACache: It has foreign names, or a part of its path is not a directory.
        Unsafe: As open_store.
        KitcacheError: It cannot be created.
    """
    name = os.fspath(path)
    try:
        _make_directories(name)
    except NotADirectoryError:
        raise NotACache(name, "a part of its path is not a directory") from None
    except PermissionError as error:
        failure = io_error(name, "cannot be created", error)
        failure.hints = ("name a directory that you may create, or ask its owner to create it",)
        raise failure from None
    except OSError as error:
        raise io_error(name, "cannot be created", error) from None
    except ValueError as error:
        raise NotACache(name, str(error)) from None
    return open_checked(DirectoryStore, name, _check_purpose)


def find_layout(path: str | os.PathLike[str]) -> DirectoryStore | None:
    """Open a directory as make_layout does; return None if it is missing. Raises as make_layout."""
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
        return  # If it is not a directory, open_checked reports it.
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
    from kitcache.store.fresh import find_foreign  # noqa: PLC0415 - mostly it is a cache

    foreign = find_foreign(_list_names(layout))
    if foreign:
        raise NotACache(
            layout.path,
            f"it has neither oci-layout nor index.json, and contains other files ({foreign[0]!r})",
        )


def _list_names(layout: Layout) -> list[str]:
    try:
        return os.listdir(layout.root_fd)
    except OSError as error:
        raise io_error(layout.path, "cannot be listed", error) from None


def make_index(layout: Layout, wait_policy: WaitPolicy) -> None:
    """Write oci-layout and an empty index.json if they are missing, under BuildKit's lock.

    If there are blobs, no index.json is written: it would make all of them unreachable.

    Raises:
        Busy: BuildKit's lock was not acquired.
        KitcacheError: Disk full, read-only.
    """
    if not _missing_files(layout):
        return
    with lock_index(layout, wait_policy):
        for name, data in _missing_files(layout):
            replace_root_file(layout, name, data)
    sync_root(layout)


def _missing_files(layout: Layout) -> list[tuple[str, bytes]]:
    names = _list_names(layout)
    missing = [] if OCI_LAYOUT in names else [(OCI_LAYOUT, _LAYOUT_DOCUMENT)]
    if INDEX not in names and "blobs" not in names:
        missing.append((INDEX, EMPTY_INDEX))
    return missing


def check_writable(layout: Layout) -> None:
    """Raise before a build if its export could not write to the cache.

    The caller has opened the layout's directories. A file is written to .kitcache/, or to DIR if
    .kitcache/ cannot be created, and deleted at once.

    Raises:
        KitcacheError: Read-only, no permission, disk full.
    """
    directories = {"": layout.root_fd, "blobs": layout.blobs_fd, "ingest": layout.ingest_fd}
    directories |= {f"blobs/{algorithm}": fd for algorithm, fd in layout.blobs.items()}
    for name, fd in directories.items():
        if fd is not None and not os.access(".", os.W_OK | os.X_OK, dir_fd=fd):
            is_read_only = os.fstatvfs(fd).f_flag & os.ST_RDONLY
            code = errno.EROFS if is_read_only else errno.EACCES
            doing = f"cannot write to {name or 'the directory'}"
            raise io_error(layout.path, doing, OSError(code, os.strerror(code)))
    with open_state_dir(layout) as state_fd:
        if state_fd is not None:
            delete_stale_files(state_fd)
        probe = (layout.root_fd if state_fd is None else state_fd, temporary_name(PROBE))
        try:
            write_file(*probe, (bytes(_PROBE_BYTES),), reference_stat(layout))
        except OSError as error:
            # If only .kitcache/ belongs to another user, the export can write to the rest.
            if error.errno not in (errno.EACCES, errno.EPERM):
                raise io_error(layout.path, "cannot be written to", error) from None
        finally:
            delete_file(*probe)
