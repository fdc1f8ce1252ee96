"""index.json, replaced in one step: a new file is written and renamed, under BuildKit's lock.

Exports, tag, untag, merge, prune, trim and repair change the roots through this module only.
"""

import os
import time
from typing import NamedTuple

from kitcache.errors import NOTHING_CHANGED, Unsafe
from kitcache.oci.digest import sha256_of
from kitcache.oci.document import DocumentError
from kitcache.store.files import (
    INDEX,
    INDEX_TEMP,
    delete_file,
    reference_stat,
    replace_file,
    temporary_name,
    write_file,
)
from kitcache.store.index import date_index, parse_index, read_index, sync_root
from kitcache.store.ioerrors import index_error, io_error
from kitcache.store.layout import Layout
from kitcache.store.locks import lock_index
from kitcache.store.state import delete_stale_files, open_state_dir
from kitcache.store.values import STRUCTURAL_LIMIT_BYTES, IndexChange, Roots, WaitPolicy


def commit_index(
    layout: Layout, change: IndexChange, wait_policy: WaitPolicy, *, before: Roots | None = None
) -> Roots | None:
    """Replace index.json in one step: a reader finds the old or the new file, also after a crash.

    Owner, group and mode are kept. The time of the file is set to now even if its bytes are the
    same: else a reset would wait for an export to publish. The caller holds kitcache.lock, shared
    or exclusive.

    Args:
        change: Called once or twice, with index.json as it is at that moment. It may raise.
        wait_policy: For BuildKit's lock. BuildKit never waits for it, so it is held for a read and
            a rename, and for a write only if index.json changed just before.
        before: The roots that the change was decided from; None to accept any roots.

    Returns:
        The new roots. None, and nothing was changed, if index.json is not `before`.

    Raises:
        Damaged: It is invalid, or cannot be written back.
        Unsafe: The new file would be too large to be read again.
        Busy: BuildKit's lock was not acquired.
        KitcacheError: Disk full, read-only. The old file is in place.
    """

    def make(data: bytes | None) -> bytes:
        if before is not None and data != before.data:
            raise _OutdatedError
        after = change(data)
        if len(after) > STRUCTURAL_LIMIT_BYTES:
            raise Unsafe(
                layout.path,
                f"{INDEX} would be larger than any index may be"
                f" ({len(after):,} of at most {STRUCTURAL_LIMIT_BYTES:,} bytes)",
                effect=NOTHING_CHANGED,
            )
        return after

    try:
        with open_state_dir(layout) as state_fd:
            after = _commit(layout, state_fd, make, wait_policy)
    except _OutdatedError:
        return None
    except DocumentError as error:
        raise index_error(layout.path, error, NOTHING_CHANGED) from None
    sync_root(layout)
    return Roots(after, sha256_of(after), time.time_ns(), parse_index(layout.path, after))


class _OutdatedError(Exception):
    """index.json is not the file that the change was decided from."""


def _commit(
    layout: Layout, state_fd: int | None, make: IndexChange, wait_policy: WaitPolicy
) -> bytes:
    prepared = None if state_fd is None else _prepare(layout, state_fd, make)
    try:
        with lock_index(layout, wait_policy):
            data = read_index(layout).data
            if prepared is not None and data == prepared.before and _rename(layout, prepared):
                after = prepared.after
            else:
                after = make(data)
                if after != data:
                    replace_root_file(layout, INDEX, after)
            date_index(layout)
    finally:
        if prepared is not None:
            delete_file(prepared.state_fd, prepared.name)
    return after


class _Prepared(NamedTuple):
    """A new index.json in .kitcache/, made from `before`."""

    state_fd: int
    name: str
    before: bytes | None
    after: bytes


def _prepare(layout: Layout, state_fd: int, make: IndexChange) -> _Prepared | None:
    """Write the new index.json before the lock is acquired; None if that is not possible."""
    delete_stale_files(state_fd)
    before = read_index(layout).data
    name = temporary_name(INDEX)
    try:
        after = make(before)
        if after == before:
            return None
        write_file(state_fd, name, (after,), reference_stat(layout))
    except DocumentError:
        return None  # BuildKit may be writing it just now; under the lock it is complete.
    except OSError:
        delete_file(state_fd, name)
        return None
    return _Prepared(state_fd, name, before, after)


def _rename(layout: Layout, prepared: _Prepared) -> bool:
    try:
        os.rename(prepared.name, INDEX, src_dir_fd=prepared.state_fd, dst_dir_fd=layout.root_fd)
    except OSError:
        return False
    return True


def replace_root_file(layout: Layout, name: str, data: bytes) -> None:
    """Replace a file directly below DIR in one step. The caller holds BuildKit's lock.

    Raises KitcacheError; the old file is in place then.
    """
    # A killed writer may not have deleted its temporary file.
    delete_file(layout.root_fd, INDEX_TEMP)
    target, temporary = (layout.root_fd, name), (layout.root_fd, INDEX_TEMP)
    try:
        replace_file(target, temporary, (data,), reference_stat(layout))
    except OSError as error:
        raise io_error(layout.path, f"cannot write {name}", error) from None
