"""The directory store: a cache directory behind the protocols of store/protocol.py."""

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Self

from kitcache.errors import KitcacheError
from kitcache.oci.digest import Digest, is_blob_name
from kitcache.store import delete, index, scan
from kitcache.store.files import INDEX, STATE_DIR
from kitcache.store.ioerrors import io_error, unreadable
from kitcache.store.layout import Layout, blob_stat, look_at_open
from kitcache.store.locks import is_locked_elsewhere, lock_store, unlock
from kitcache.store.values import (
    NO_REPORT,
    NOTHING_REMEMBERED,
    Batch,
    BlobStat,
    DeleteResult,
    HeldLock,
    IndexChange,
    Ingest,
    LockKind,
    Remembered,
    Roots,
    StoredTimes,
    StoreReport,
    TagUse,
    WaitPolicy,
    WriterActivity,
)


class DirectoryStore(Layout):
    """A cache directory. Locks protect an export from a sweep, so no age is required."""

    blobs_are_leaves = False
    roots_name = INDEX
    min_age_floor_ns = 0
    # Some file systems skip names while others are deleted.
    scans_completely = False
    delete_batch_size = 64
    delete_threads = 2

    def refresh(self) -> None:
        self.open_directories()

    def now_ns(self) -> int:
        return time.time_ns()

    def roots_stamp(self) -> index.Stamp | None:
        return index.stamp_index(self)

    def read_roots(self, pause: Callable[[float], None]) -> Roots:
        return index.read_stable_index(self, pause)

    def commit_roots(
        self, change: IndexChange, wait_policy: WaitPolicy, *, before: Roots | None = None
    ) -> Roots | None:
        from kitcache.store.commit import commit_index  # noqa: PLC0415 - a reset needs none

        return commit_index(self, change, wait_policy, before=before)

    def read_raw_roots(self) -> Roots:
        """Read index.json without parsing it, for a repair: it has no entries."""
        return Roots(*index.read_index(self), ())

    def write_blob(self, data: bytes) -> Digest:
        from kitcache.store.write import write_blob  # noqa: PLC0415 - a reset needs none

        return write_blob(self, data)

    def read_parts(self, digest: Digest, size: int) -> Iterator[memoryview]:
        from kitcache.store.transfer import read_blob_parts  # noqa: PLC0415 - few commands need it

        return read_blob_parts(self, digest, size)

    def put_blob(self, digest: Digest, size: int, parts: Iterable[bytes | memoryview]) -> None:  # noqa: ARG002
        from kitcache.store.transfer import put_blob  # noqa: PLC0415

        put_blob(self, digest, parts)

    def reuse_blob(self, digest: Digest, stat: BlobStat) -> bool:
        from kitcache.store.ingest import find_blob  # noqa: PLC0415

        return find_blob(self, digest, stat.size) is not None

    def sync_blobs(self) -> None:
        from kitcache.store.write import sync_blobs  # noqa: PLC0415

        sync_blobs(self)

    def write_tag_uses(self, changed: Mapping[str, TagUse]) -> None:
        from kitcache.store.state import write_tag_uses  # noqa: PLC0415

        write_tag_uses(self, changed)

    def stat_blobs(self, digests: Collection[Digest]) -> Iterator[tuple[Digest, BlobStat]]:
        for digest in digests:
            stat = self.stat_blob(digest)
            if stat is not None:
                yield digest, stat

    def follow_symlink(self, digest: Digest) -> tuple[BlobStat | None, Digest | None]:
        """Return the stat of a symlink's target, and the digest that the target's name has.

        If the target cannot be inspected, return the stat of the symlink. Reads no content.
        """
        target: BlobStat | None = None
        try:
            target = blob_stat(os.stat(digest.hex, dir_fd=self.blobs[digest.algorithm]))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                target = self.stat_blob(digest)
        try:
            path = os.readlink(digest.hex, dir_fd=self.blobs[digest.algorithm])
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return target, None  # it was deleted or replaced
            raise unreadable(self.path, f"link {digest.short}", error) from None
        name = os.path.basename(path)
        return target, next((Digest(a, name) for a in self.blobs if is_blob_name(a, name)), None)

    def scan_blobs(self) -> Iterator[Batch]:
        for algorithm in self.blobs:
            yield from scan.scan_blobs(self, algorithm)

    def writer_activity(self) -> WriterActivity:
        return scan.scan_ingests(self)

    def read_tag_uses(self) -> Mapping[str, TagUse]:
        from kitcache.store.state import read_tag_uses  # noqa: PLC0415 - a reset needs none

        return read_tag_uses(self)

    def read_layer_uses(self) -> Mapping[str, int]:
        from kitcache.store.state import read_layer_uses  # noqa: PLC0415

        return read_layer_uses(self)

    def lock(
        self, kind: LockKind, wait_policy: WaitPolicy
    ) -> AbstractContextManager[HeldLock[Self]]:
        return lock_store(self, kind, wait_policy)

    def release(self, lock: HeldLock[Self]) -> None:
        """Release a lock, even if another process has inherited its fd."""
        unlock(lock.fd)

    def is_locked_elsewhere(self) -> bool:
        """Return True if another process holds kitcache.lock, False if that is unknown."""
        return is_locked_elsewhere(self)

    def reopen(self) -> Self:
        try:
            return type(self)(self.path, os.dup(self.root_fd))
        except OSError as error:
            raise io_error(self.path, "cannot be opened once more", error) from None

    def disk_size(self) -> tuple[int, int]:
        """Return the size of the file system and its free space for the user, in bytes."""
        try:
            stat = os.fstatvfs(self.root_fd)
        except OSError as error:
            raise io_error(self.path, "cannot read the free space of the disk", error) from None
        return stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize

    def identity(self) -> tuple[int, int]:
        """Return the device and the inode of the directory: equal for the same directory only."""
        stat = look_at_open(self, self.root_fd, "the directory")
        return stat.st_dev, stat.st_ino

    def check_exists(self) -> None:
        if look_at_open(self, self.root_fd, "the directory").st_nlink == 0:
            raise KitcacheError(
                self.path,
                "another process deleted the directory",
                effect="",
                hints=("look at the directory, then run the command again",),
            )

    def next_tick_ns(self, lock: HeldLock[Self]) -> int:
        return scan.next_tick_ns(lock.fd)

    def recall(self, grace_ns: int) -> Remembered:  # noqa: ARG002 - of the protocol
        return NOTHING_REMEMBERED

    def check_confirmed(self, live: Collection[Digest], *, confirmed: bool) -> None:
        """Return: locks protect exports to a directory, so each run may delete."""

    def check_sweep(self, live: Collection[Digest], *, may_write: bool) -> None:
        """Return: locks protect exports to a directory."""

    def prepare_sweep(self, live: Collection[Digest]) -> None:  # noqa: ARG002
        index.sync_index(self)

    def restore_blobs(self, digests: Collection[Digest]) -> Collection[Digest]:  # noqa: ARG002
        return ()

    def touch_roots(self) -> None:
        index.date_index(self)

    def stat_names(self, algorithm: str, names: Sequence[str]) -> Sequence[StoredTimes]:
        # First all stats, then all deletions. If the calls alternated, two threads would exchange
        # the GIL at each call, which takes longer than the calls.
        fd, stat = self.blobs[algorithm], os.stat
        return [stat(name, dir_fd=fd, follow_symlinks=False) for name in names]

    def delete_names(
        self,
        lock: HeldLock[Self],
        algorithm: str,
        names: Sequence[str],
        stats: Sequence[StoredTimes] = (),  # noqa: ARG002 - the lock protects
    ) -> DeleteResult:
        return delete.delete_blobs(self, lock, algorithm, names)

    def delete_ingest(self, lock: HeldLock[Self], ingest: Ingest) -> bool:
        try:
            # A build may have resumed it: BuildKit finds an upload by its name.
            if scan.read_writes(self, ingest.name) != ingest.writes_ns:
                return False
            delete.delete_ingest(self, lock, ingest.name)
        except FileNotFoundError:
            return False
        return True

    def foreign_names(self) -> Iterator[str]:
        return scan.scan_foreign(self)

    def foreign_bytes(self, path: str) -> int:
        return scan.foreign_bytes(self, path)

    def quarantined(self) -> tuple[int, int]:
        return scan.quarantined(self)

    def read_skipped_sweeps(self) -> int:
        from kitcache.store.state import read_skipped_sweeps  # noqa: PLC0415

        return read_skipped_sweeps(self)

    def count_skipped_sweep(self) -> int:
        from kitcache.store.state import count_skipped_sweep  # noqa: PLC0415

        return count_skipped_sweep(self)

    def finish_sweep(self) -> None:
        try:
            os.stat(STATE_DIR, dir_fd=self.root_fd, follow_symlinks=False)
        except OSError:
            return
        from kitcache.store.state import finish_sweep_state  # noqa: PLC0415 - rarely needed

        finish_sweep_state(self)

    def report(self) -> StoreReport:
        return NO_REPORT

    def find_risks(self) -> Sequence[str]:
        return ()
