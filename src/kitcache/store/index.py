"""index.json on disk: read while others rewrite it, written so that nobody sees half of it.

BuildKit overwrites the file in place, so a reader can see a torn one for a moment. We write beside
and rename, under BuildKit's own lock.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Generic, NamedTuple, TypeVar

from kitcache.errors import NOTHING_CHANGED, NOTHING_DELETED, Damaged, Unsafe
from kitcache.oci.digest import Digest
from kitcache.oci.document import DocumentError, read_plain
from kitcache.oci.index import IndexEntry, read_entries
from kitcache.store.ioerrors import io_error, repair_command
from kitcache.store.layout import (
    NEW_FILE_FLAGS,
    Layout,
    excess_values,
    look_at,
    look_at_open,
    open_file,
    read_at_most,
)
from kitcache.store.protocol import STRUCTURAL_LIMIT_BYTES

INDEX = "index.json"
INDEX_TEMP = "index.json.kitcache-new"

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
        found = os.fstat(fd)
        data = read_at_most(fd, STRUCTURAL_LIMIT_BYTES)
    except OSError as error:
        raise io_error(layout.path, f"cannot read {INDEX}", error) from None
    finally:
        os.close(fd)
    if len(data) > STRUCTURAL_LIMIT_BYTES:
        raise Unsafe(
            layout.path,
            f"{INDEX} is larger than any index may be"
            f" ({found.st_size:,} of at most {STRUCTURAL_LIMIT_BYTES:,} bytes)",
            hints=(f"restore {INDEX} from a copy",),
        )
    excess = excess_values(data)
    if excess:
        raise Unsafe(
            layout.path,
            f"{INDEX} has more values than any index may ({excess})",
            hints=(f"restore {INDEX} from a copy",),
        )
    return IndexFile(data, Digest("sha256", hashlib.sha256(data).hexdigest()), found.st_mtime_ns)


def read_stable_index(
    layout: Layout, pause: Callable[[float], None]
) -> tuple[IndexFile, tuple[IndexEntry, ...]]:
    """Read index.json and its entries; read again for half a second while it is not an index.

    A missing file has no entries.

    Args:
        pause: Waits for that many seconds.

    Raises:
        Damaged: It still is not an index, or it is ambiguous.
        KitcacheError: As read_index.

    """
    for _ in range(10):
        index = read_index(layout)
        with suppress(DocumentError):
            return index, () if index.data is None else read_entries(index.data)
        pause(0.05)
    index = read_index(layout)
    return index, parse_index(layout.path, index.data)


def parse_index(
    path: str, data: bytes | None, effect: str = NOTHING_DELETED
) -> tuple[IndexEntry, ...]:
    """Return the entries of an index.json that was read before; raise Damaged if it is invalid."""
    try:
        return () if data is None else read_entries(data)
    except DocumentError as error:
        raise index_error(path, error, effect) from None


def check_rewritable(path: str, data: bytes) -> None:
    """Raise Damaged if an index.json has a value that cannot be written back, such as 1e400."""
    try:
        read_plain(data)
    except DocumentError as error:
        raise index_error(path, error, NOTHING_CHANGED) from None


def index_error(path: str, error: DocumentError, effect: str = NOTHING_DELETED) -> Damaged:
    """Return the error for an index.json that is not an index, or cannot be written back."""
    hints: tuple[str, ...] = (
        repair_command(path),
        f"restore {INDEX} from a copy",
        "move it aside and export again: then only the blobs of that export are kept",
    )
    if error.kind == "unwritable":
        hints = (f"edit {INDEX} by hand",)
    problem = f"{INDEX} is invalid or ambiguous: {error.reason}"
    return Damaged(path, problem, kind=error.kind, effect=effect, hints=hints)


def stamp_index(layout: Layout) -> Stamp | None:
    """Changes whenever index.json does, for the price of one stat; None where there is none.

    Raises KitcacheError where it cannot be looked at.
    """
    found = look_at(layout, INDEX)
    if found is None:
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
    replace_file(layout, INDEX, after)
    sync_root(layout)
    return answer


def publish_index(
    layout: Layout,
    room_fd: int | None,
    lock: AbstractContextManager[None],
    edit: Callable[[bytes | None], tuple[bytes, Answer]],
) -> Answer:
    """edit_index for those who hold kitcache.lock shared, so that several may be at it at once.

    lock: BuildKit's, not taken yet: it is held for a read and a rename, since the new file is on
    the disk before. Only where index.json changed meanwhile it is also held for the write. room_fd:
    a directory of ours below DIR for that file; None: there is none. Afterwards index.json is no
    older than now, also where its bytes were right already: that is how others see who published.
    """
    prepared = None if room_fd is None else _prepare(layout, room_fd, edit)
    try:
        with lock:
            if prepared is not None and _put(layout, prepared):
                answer = prepared.answer
            else:
                answer = edit_index(layout, edit)
            date_index(layout)
    except DocumentError as error:
        raise index_error(layout.path, error, NOTHING_CHANGED) from None
    finally:
        if prepared is not None:
            with suppress(OSError):
                os.unlink(prepared.name, dir_fd=prepared.room_fd)
    sync_root(layout)
    return answer


def date_index(layout: Layout) -> None:
    """Date index.json now, if the caller may: what ended in ingest/ before was published or ours.

    Who finds ingest/ newer than index.json takes that for an export that has yet to publish.
    """
    with suppress(OSError):
        os.utime(INDEX, dir_fd=layout.root_fd, follow_symlinks=False)


class IndexChangedError(Exception):
    """index.json is no longer what it was."""


def replace_index_if_unchanged(
    layout: Layout,
    room_fd: int | None,
    lock: AbstractContextManager[None],
    before: bytes | None,
    after: bytes,
) -> bool:
    """publish_index for bytes that were made of others: False, and no change, if those are gone.

    before: index.json as it was judged; None where there was none. Also raises Unsafe, with no
    change, for one that would be too large to be read again.
    """
    if len(after) > STRUCTURAL_LIMIT_BYTES:
        raise Unsafe(
            layout.path,
            f"{INDEX} would be larger than any index may be"
            f" ({len(after):,} of at most {STRUCTURAL_LIMIT_BYTES:,} bytes)",
            effect=f"{INDEX} is as it was",
        )

    def edit(now: bytes | None) -> tuple[bytes, bool]:
        if now != before:
            raise IndexChangedError
        return after, True

    try:
        return publish_index(layout, room_fd, lock, edit)
    except IndexChangedError:
        return False


class _Prepared(NamedTuple, Generic[Answer]):
    room_fd: int
    name: str
    before: bytes | None
    answer: Answer


def _prepare(
    layout: Layout, room_fd: int, edit: Callable[[bytes | None], tuple[bytes, Answer]]
) -> _Prepared[Answer] | None:
    """What edit makes of index.json as it is now, on the disk; None where only the lock will do."""
    before = read_index(layout).data
    try:
        after, answer = edit(before)
    except (DocumentError, OSError):
        return None
    if after == before:
        return None
    name = f"{INDEX}.{os.urandom(8).hex()}"
    try:
        write_new(room_fd, name, after, reference_stat(layout))
    except OSError:
        with suppress(OSError):
            os.unlink(name, dir_fd=room_fd)
        return None
    return _Prepared(room_fd, name, before, answer)


def _put(layout: Layout, prepared: _Prepared[Answer]) -> bool:
    if read_index(layout).data != prepared.before:
        return False
    try:
        os.rename(prepared.name, INDEX, src_dir_fd=prepared.room_fd, dst_dir_fd=layout.root_fd)
    except OSError:
        return False
    return True


def replace_file(layout: Layout, name: str, data: bytes) -> None:
    """A file directly below DIR: old or new, nothing in between. The caller holds BuildKit's lock.

    Raises KitcacheError; then the old one is in place.
    """
    root_fd = layout.root_fd
    try:
        # A killed writer left it, if it is there.
        _unlink_temp(root_fd)
        write_new(root_fd, INDEX_TEMP, data, reference_stat(layout))
        os.rename(INDEX_TEMP, name, src_dir_fd=root_fd, dst_dir_fd=root_fd)
    except OSError as error:
        _unlink_temp(root_fd)
        raise io_error(layout.path, f"cannot write {name}", error) from None


def sync_index(layout: Layout) -> None:
    """Put index.json on the disk, whoever wrote it: BuildKit does not, and a power cut undoes it.

    Raises KitcacheError.
    """
    fd = open_file(layout, INDEX)
    try:
        for each in (layout.root_fd,) if fd is None else (fd, layout.root_fd):
            os.fsync(each)
    except OSError as error:
        raise io_error(layout.path, f"cannot sync {INDEX}", error) from None
    finally:
        if fd is not None:
            os.close(fd)


def sync_root(layout: Layout) -> None:
    """Put names directly below DIR on the disk. Raises KitcacheError."""
    try:
        os.fsync(layout.root_fd)
    except OSError as error:
        raise io_error(
            layout.path,
            f"cannot sync the directory of {INDEX}",
            error,
            effect=f"the new {INDEX} is in place, but a power cut may undo it",
        ) from None


def _unlink_temp(root_fd: int) -> None:
    with suppress(OSError):
        os.unlink(INDEX_TEMP, dir_fd=root_fd)


def write_new(
    dir_fd: int, name: str, data: bytes, owner: os.stat_result, mode: int | None = None
) -> None:
    """Write a new file with these bytes, on the disk, for the users of another. Raises OSError.

    mode: the permissions of the file, if they are not to be those of the other one.
    """
    fd = os.open(name, NEW_FILE_FLAGS, 0o600, dir_fd=dir_fd)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        copy_owner_and_mode(fd, owner)
        if mode is not None:
            # By the open file: its name may lead elsewhere by now.
            os.fchmod(fd, mode)
        os.fsync(fd)


def reference_stat(layout: Layout) -> os.stat_result:
    """Whose owner, group and permissions new files take: index.json's, or else the directory's.

    Raises KitcacheError.
    """
    return look_at(layout, INDEX) or look_at_open(layout, layout.root_fd, "the directory")


def copy_owner_and_mode(fd: int, owner: os.stat_result) -> None:
    """Give a new file the owner, group and permissions of another; as far as the caller may."""
    copy_owner(fd, owner)
    os.fchmod(fd, owner.st_mode & 0o666)


def copy_owner(fd: int, owner: os.stat_result) -> None:
    """Give something new the owner and group of another, as far as the caller may."""
    mine = os.fstat(fd)
    if mine.st_gid != owner.st_gid:
        with suppress(OSError):
            os.fchown(fd, -1, owner.st_gid)
    if mine.st_uid != owner.st_uid:
        with suppress(OSError):
            os.fchown(fd, owner.st_uid, -1)
