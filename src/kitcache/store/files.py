"""New files and directories in a cache: owner and mode, and replacement in one step.

New files get the owner, group and mode of index.json, so that each user of the cache can open the
files of another user.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from kitcache.store.ioerrors import io_error
from kitcache.store.layout import (
    NEW_FILE_FLAGS,
    Layout,
    look_at,
    look_at_open,
    open_directory,
)

INDEX = "index.json"
INDEX_TEMP = "index.json.kitcache-new"
STATE_DIR = ".kitcache"
"""The directory below DIR to which only kitcache writes."""
NEW_BLOB = "blob"
PROBE = "probe"
"""The prefixes of temporary names in .kitcache/. A file to replace has its own name as prefix."""


def reference_stat(layout: Layout) -> os.stat_result:
    """Return the stat of index.json, or of the directory if there is no index.json.

    New files copy its owner, group and mode. Raises KitcacheError.
    """
    return look_at(layout, INDEX) or look_at_open(layout, layout.root_fd, "the directory")


def copy_owner(fd: int, reference: os.stat_result) -> None:
    """Give a new file or directory the owner and group of another, as far as the caller may."""
    own = os.fstat(fd)
    if own.st_gid != reference.st_gid:
        with suppress(OSError):
            os.fchown(fd, -1, reference.st_gid)
    if own.st_uid != reference.st_uid:
        with suppress(OSError):
            os.fchown(fd, reference.st_uid, -1)


def copy_owner_and_mode(fd: int, reference: os.stat_result) -> None:
    """Give a new file the owner, group and mode of another, as far as the caller may."""
    copy_owner(fd, reference)
    os.fchmod(fd, reference.st_mode & 0o666)


def temporary_name(prefix: str) -> str:
    """Return a unique temporary name for a file in .kitcache/, with this prefix."""
    return f"{prefix}.{os.urandom(8).hex()}"


def write_file(
    dir_fd: int,
    name: str,
    parts: Iterable[bytes | memoryview],
    reference: os.stat_result,
    mode: int | None = None,
) -> None:
    """Write a new file and sync it. Raises OSError and the exceptions of `parts`.

    Args:
        parts: The contents of the file.
        mode: None if the file gets the mode of the reference.
    """
    fd = os.open(name, NEW_FILE_FLAGS, 0o600, dir_fd=dir_fd)
    with open(fd, "wb") as file:
        file.writelines(parts)
        file.flush()
        copy_owner(fd, reference)
        # Through the fd: another process may have replaced the file of that name.
        os.fchmod(fd, reference.st_mode & 0o666 if mode is None else mode)
        os.fsync(fd)


def replace_file(
    target: tuple[int, str],
    temporary: tuple[int, str],
    parts: Iterable[bytes | memoryview],
    reference: os.stat_result,
    mode: int | None = None,
) -> None:
    """Write a file under a temporary name, then rename it to its own.

    If it raises, the old file is in place and the temporary file is deleted. The name is durable
    once its directory is synced. Raises as write_file.

    Args:
        target: The open directory of the file, and its name.
        temporary: An open directory on the same file system, and an unused name.
    """
    try:
        write_file(*temporary, parts, reference, mode)
        os.rename(temporary[1], target[1], src_dir_fd=temporary[0], dst_dir_fd=target[0])
    except BaseException:
        delete_file(*temporary)
        raise


def delete_file(dir_fd: int, name: str) -> None:
    """Delete a temporary file, if it exists."""
    with suppress(OSError):
        os.unlink(name, dir_fd=dir_fd)


def make_directory(layout: Layout, name: str, parent_fd: int, prefix: str = "") -> int:
    """Open a directory below DIR; create it with the cache's owner and mode if it is missing.

    The caller closes the fd.

    Args:
        prefix: The path of the parent below DIR, for messages.

    Raises:
        Unsafe: The name is a symlink.
        KitcacheError: It cannot be created.
    """
    fd = open_directory(layout, name, parent_fd, prefix)
    if fd is not None:
        return fd
    reference = reference_stat(layout)
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent_fd)
        fd = open_directory(layout, name, parent_fd, prefix)
        if fd is None:
            raise FileNotFoundError(2, os.strerror(2))
        copy_owner(fd, reference)
        os.fchmod(fd, stat.S_IMODE(os.fstat(layout.root_fd).st_mode))
    except OSError as error:
        if fd is not None:
            os.close(fd)
        raise io_error(layout.path, f"cannot create {prefix}{name}", error) from None
    return fd
