"""index.json on disk: read while others rewrite it, written so that nobody sees half of it.

BuildKit overwrites the file in place, so a reader can see a torn one for a moment. We write beside
and rename, under BuildKit's own lock.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from kitcache.errors import Unsafe
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError
from kitcache.oci.index import Entry, read_entries
from kitcache.store.layout import STRUCTURAL_LIMIT_BYTES, Layout, io_error, open_file

INDEX = "index.json"
INDEX_TEMP = "index.json.kitcache-new"
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Stamp = tuple[int, int, int, int]
Answer = TypeVar("Answer")


class IndexFile(NamedTuple):
    """index.json as it was at one moment. data: None where there is no such file.

    digest: of its bytes; the same digest means the same roots. changed_ns: its modification time.
    """

    data: bytes | None
    digest: Digest
    changed_ns: int


def read_index(layout: Layout) -> IndexFile:
    """index.json's bytes as they are now.

    Raises Unsafe where it is a link, no regular file or above the cap, KitcacheError where it
    cannot be read.
    """
    fd = open_file(layout, INDEX)
    if fd is None:
        return IndexFile(None, Digest("sha256", hashlib.sha256(b"").hexdigest()), 0)
    try:
        with open(fd, "rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(STRUCTURAL_LIMIT_BYTES + 1)
    except OSError as error:
        raise io_error(layout.path, f"cannot read {INDEX}", error) from None
    if len(data) > STRUCTURAL_LIMIT_BYTES:
        raise Unsafe(
            layout.path,
            f"{INDEX} is larger than any index may be"
            f" ({found.st_size:,} of at most {STRUCTURAL_LIMIT_BYTES:,} bytes)",
            next_steps=(f"restore {INDEX} from a copy",),
        )
    return IndexFile(data, Digest("sha256", hashlib.sha256(data).hexdigest()), found.st_mtime_ns)


def read_settled_index(
    layout: Layout, pause: Callable[[float], None]
) -> tuple[IndexFile, tuple[Entry, ...]]:
    """index.json and its entries, read again for half a second while it is no index.

    pause: waits that many seconds between two tries. A missing file has no entries. Raises
    DocumentError if it still is no index then; otherwise as read_index.
    """
    for _ in range(10):
        index = read_index(layout)
        if index.data is None:
            return index, ()
        with suppress(DocumentError):
            return index, read_entries(index.data)
        pause(0.05)
    index = read_index(layout)
    return index, () if index.data is None else read_entries(index.data)


def stamp_index(layout: Layout) -> Stamp | None:
    """Changes whenever index.json does, for the price of one stat; None where there is none."""
    try:
        found = os.stat(INDEX, dir_fd=layout.root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def edit_index(layout: Layout, edit: Callable[[bytes | None], tuple[bytes, Answer]]) -> Answer:
    """Replace index.json by what `edit` makes of its bytes; the caller holds both locks.

    Old or new, nothing in between, also after a crash. Owner, group and mode stay. Equal bytes
    are not written. Raises KitcacheError (disk full, read-only): then the old index is in place.
    """
    before = read_index(layout).data
    after, answer = edit(before)
    if after == before:
        return answer
    try:
        _write_beside(layout.root_fd, after)
        os.rename(INDEX_TEMP, INDEX, src_dir_fd=layout.root_fd, dst_dir_fd=layout.root_fd)
    except OSError as error:
        _unlink_temp(layout.root_fd)
        raise io_error(layout.path, f"cannot write {INDEX}", error) from None
    try:
        os.fsync(layout.root_fd)
    except OSError as error:
        failure = io_error(layout.path, f"cannot sync the directory of {INDEX}", error)
        failure.untouched = f"the new {INDEX} is in place, but a power cut may undo it"
        raise failure from None
    return answer


def _unlink_temp(root_fd: int) -> None:
    with suppress(OSError):
        os.unlink(INDEX_TEMP, dir_fd=root_fd)


def _write_beside(root_fd: int, data: bytes) -> None:
    owner = os.stat(INDEX, dir_fd=root_fd, follow_symlinks=False)
    # A killed writer left it, if it is there: the locks say that nobody is at work on it.
    _unlink_temp(root_fd)
    fd = os.open(INDEX_TEMP, _WRITE_FLAGS, 0o600, dir_fd=root_fd)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        give_to(fd, owner)
        os.fsync(fd)


def give_to(fd: int, owner: os.stat_result) -> None:
    """Give a new file the owner, group and permissions of another; as far as the caller may."""
    mine = os.fstat(fd)
    if mine.st_gid != owner.st_gid:
        with suppress(OSError):
            os.fchown(fd, -1, owner.st_gid)
    if mine.st_uid != owner.st_uid:
        with suppress(OSError):
            os.fchown(fd, owner.st_uid, -1)
    os.fchmod(fd, owner.st_mode & 0o666)
