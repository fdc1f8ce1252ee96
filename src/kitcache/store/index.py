"""index.json, read while other processes rewrite it.

BuildKit overwrites the file in place, so a reader can see a half-written file.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from kitcache.errors import NOTHING_DELETED, Unsafe
from kitcache.oci.digest import Digest, sha256_of
from kitcache.oci.document import DocumentError
from kitcache.oci.index import IndexEntry, read_entries
from kitcache.store.files import INDEX
from kitcache.store.ioerrors import index_error, io_error
from kitcache.store.layout import (
    Layout,
    excess_values,
    look_at,
    open_file,
    read_at_most,
)
from kitcache.store.values import STRUCTURAL_LIMIT_BYTES, Roots

Stamp = tuple[int, int, int, int]


class IndexFile(NamedTuple):
    """index.json at one moment.

    Attributes:
        data: None if there is no file.
        digest: Of the bytes; equal digests mean equal roots.
        changed_ns: The modification time, 0 if there is no file.
    """

    data: bytes | None
    digest: Digest
    changed_ns: int


def read_index(layout: Layout) -> IndexFile:
    """Read the bytes of index.json.

    Raises:
        Unsafe: It is a symlink, not a regular file, or larger than the caps.
        KitcacheError: It cannot be read.
    """
    fd = open_file(layout, INDEX)
    if fd is None:
        return IndexFile(None, sha256_of(b""), 0)
    try:
        stat = os.fstat(fd)
        data = read_at_most(fd, STRUCTURAL_LIMIT_BYTES)
    except OSError as error:
        raise io_error(layout.path, f"cannot read {INDEX}", error) from None
    finally:
        os.close(fd)
    hints = (f"restore {INDEX} from a copy",)
    if len(data) > STRUCTURAL_LIMIT_BYTES:
        raise Unsafe(
            layout.path,
            f"{INDEX} is larger than any index may be"
            f" ({stat.st_size:,} of at most {STRUCTURAL_LIMIT_BYTES:,} bytes)",
            hints=hints,
        )
    excess = excess_values(data)
    if excess:
        problem = f"{INDEX} has more values than any index may ({excess})"
        raise Unsafe(layout.path, problem, hints=hints)
    return IndexFile(data, sha256_of(data), stat.st_mtime_ns)


def read_stable_index(layout: Layout, pause: Callable[[float], None]) -> Roots:
    """Read index.json and its entries; retry for half a second while it is invalid.

    A missing file has no entries.

    Args:
        pause: Waits for that many seconds.

    Raises:
        Damaged: It remains invalid, or it is ambiguous.
        KitcacheError: As read_index.
    """
    for _ in range(10):
        index = read_index(layout)
        with suppress(DocumentError):
            return Roots(*index, () if index.data is None else read_entries(index.data))
        pause(0.05)
    index = read_index(layout)
    return Roots(*index, parse_index(layout.path, index.data))


def parse_index(
    path: str, data: bytes | None, effect: str = NOTHING_DELETED
) -> tuple[IndexEntry, ...]:
    """Return the entries of an index.json that was read before; raise Damaged if it is invalid."""
    try:
        return () if data is None else read_entries(data)
    except DocumentError as error:
        raise index_error(path, error, effect) from None


def stamp_index(layout: Layout) -> Stamp | None:
    """Return a value that changes if index.json does, None if it is missing. One stat call."""
    stat = look_at(layout, INDEX)
    return stat and (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def date_index(layout: Layout) -> None:
    """Set the time of index.json to now, as far as the caller may.

    If ingest/ is newer than index.json, a reset waits for an export that has yet to publish.
    """
    with suppress(OSError):
        os.utime(INDEX, dir_fd=layout.root_fd, follow_symlinks=False)


def sync_index(layout: Layout) -> None:
    """Make index.json durable, whichever client wrote it. Raises KitcacheError.

    BuildKit does not sync it, so a power cut can bring back an older one.
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
    """Make the names directly below DIR durable. Raises KitcacheError."""
    try:
        os.fsync(layout.root_fd)
    except OSError as error:
        raise io_error(
            layout.path,
            f"cannot sync the directory of {INDEX}",
            error,
            effect=f"the new {INDEX} is in place, but a power cut may undo it",
        ) from None
