"""Names below blobs/ and ingest/, streamed; a stat only where one is needed."""

import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import compress, islice

from kitcache.oci.digest import are_blob_names, is_blob_name
from kitcache.store.files import INDEX, INDEX_TEMP, STATE_DIR
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import DIR_FLAGS, Layout, look_at_open
from kitcache.store.locks import INDEX_LOCK, KITCACHE_LOCK
from kitcache.store.values import BATCH_SIZE, Batch, Ingest, WriterActivity

OWN_NAMES = frozenset(
    ("oci-layout", INDEX, INDEX_TEMP, INDEX_LOCK, KITCACHE_LOCK, STATE_DIR, "blobs", "ingest")
)
QUARANTINE = "quarantine"
"""The directory below .kitcache/ for bad blobs."""
REMOVING = ".kitcache-removing"
"""The suffix of an upload's name during its deletion. The times of its files are meaningless."""
_TICK_S = 0.02
"""The clock of a local file system ticks at least every 10 ms."""
_TICK_PAUSE_S = 0.0005
_COARSEST_NS = 2 * 10**9
"""FAT rounds times of files to two seconds, old ext4 to one."""
_INGEST_NAME_ALGORITHM = "sha256"


def scan_blobs(layout: Layout, algorithm: str) -> Iterator[Batch]:
    """Yield every name below blobs/<algorithm>/ in directory order. Calls no stat."""
    parent = layout.blobs.get(algorithm)
    if parent is None:
        return
    with _scan(layout, parent, f"blobs/{algorithm}") as entries:
        while True:
            batch = list(islice(entries, BATCH_SIZE))
            yield _make_batch(algorithm, batch)
            if len(batch) < BATCH_SIZE:
                return


def _make_batch(algorithm: str, entries: list[os.DirEntry[str]]) -> Batch:
    names = [entry.name for entry in entries]
    files = [entry.is_file(follow_symlinks=False) for entry in entries]
    if are_blob_names(algorithm, names) and all(files):
        return Batch(algorithm, names, [])
    valid = [f and is_blob_name(algorithm, n) for n, f in zip(names, files, strict=True)]
    foreign = [
        f"blobs/{algorithm}/{n}" for n, is_valid in zip(names, valid, strict=True) if not is_valid
    ]
    return Batch(algorithm, list(compress(names, valid)), foreign)


def scan_ingests(layout: Layout) -> WriterActivity:
    """Return the uploads below ingest/; an upload that ends during the scan is omitted."""
    ingests, other_writes_ns = [], list[int]()
    for ingest, is_foreign in _read_ingests(layout):
        if is_foreign:
            other_writes_ns += ingest.writes_ns
        else:
            ingests.append(ingest)
    # Read the time after the scan: an upload that ends during the scan changes it, too.
    return WriterActivity(
        tuple(sorted(ingests)), tuple(other_writes_ns), uploads_changed_ns(layout)
    )


def _read_ingests(layout: Layout) -> Iterator[tuple[Ingest, bool]]:
    if layout.ingest_fd is not None:
        with _scan(layout, layout.ingest_fd, "ingest") as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    yield _read_ingest(layout, layout.ingest_fd, entry.name)


def read_writes(layout: Layout, name: str) -> tuple[int, ...]:
    """Return when an upload was written, sorted. Raises FileNotFoundError if it is missing."""
    parent = layout.ingest_fd
    return () if parent is None else _read_ingest(layout, parent, name)[0].writes_ns


def is_ingest_name(name: str) -> bool:
    """Return True if the name is the sha256 of a ref, perhaps marked for deletion."""
    return is_blob_name(_INGEST_NAME_ALGORITHM, name.removesuffix(REMOVING))


def scan_foreign(layout: Layout) -> Iterator[str]:
    """Yield paths, relative to DIR, that neither BuildKit nor kitcache creates.

    Directories end in a slash. scan_blobs lists the foreign names below blobs/<algorithm>/.
    """
    yield from _unknown_names(layout, layout.root_fd, "", OWN_NAMES)
    if layout.blobs_fd is not None:
        yield from _unknown_names(layout, layout.blobs_fd, "blobs/", layout.blobs.keys())
    if layout.ingest_fd is not None:
        uploads = frozenset(ingest.name for ingest in scan_ingests(layout).ingests)
        yield from _unknown_names(layout, layout.ingest_fd, "ingest/", uploads)


def foreign_bytes(layout: Layout, path: str) -> int:
    """Return the size of a foreign file, or of all files below a foreign directory."""
    parent, _, name = path.rstrip("/").rpartition("/")
    directories = {"": layout.root_fd, "blobs": layout.blobs_fd, "ingest": layout.ingest_fd}
    directories |= {f"blobs/{algorithm}": fd for algorithm, fd in layout.blobs.items()}
    fd = directories.get(parent)
    if fd is None:
        return 0
    return sum(_sizes_below(name, fd)) if path.endswith("/") else _file_bytes(name, fd)


def quarantined(layout: Layout) -> tuple[int, int]:
    """Return how many files a repair has quarantined, and their bytes."""
    try:
        state_fd = os.open(STATE_DIR, DIR_FLAGS, dir_fd=layout.root_fd)
    except OSError:
        return 0, 0
    try:
        sizes = _sizes_below(QUARANTINE, state_fd)
    finally:
        os.close(state_fd)
    return len(sizes), sum(sizes)


def uploads_changed_ns(layout: Layout) -> int:
    """Return when an upload last began or ended, in ns since 1970; 0 without ingest/."""
    fd = layout.ingest_fd
    return 0 if fd is None else look_at_open(layout, fd, "ingest").st_mtime_ns


def next_tick_ns(fd: int) -> int:
    """Wait for the next tick of the file system's clock; return its time, in ns since 1970.

    Later changes have this time or a later one; changes before the call have an earlier one. If the
    clock stands still for 20 ms, as a clock of whole seconds does, changes before the call can have
    this time as well. If the time of the file cannot be set, the machine's time is returned, but
    rounded down as a file system may round. Changes before the call can have a later time then.

    Args:
        fd: A file of kitcache on that file system. Its time is set to now.

    """
    try:
        first_ns = _date_now(fd)
        ends_s = time.monotonic() + _TICK_S
        while (now_ns := _date_now(fd)) == first_ns and time.monotonic() < ends_s:
            time.sleep(_TICK_PAUSE_S)
    except OSError:
        now_ns = time.time_ns() - int(_TICK_S * 10**9)
        return now_ns - now_ns % _COARSEST_NS
    return now_ns


def _date_now(fd: int) -> int:
    os.utime(fd)
    status = os.fstat(fd)
    # A file system without a change time may show 0, or when the file was created.
    return max(status.st_mtime_ns, status.st_ctime_ns)


@contextmanager
def _scan(layout: Layout, fd: int, label: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    try:
        # A duplicated fd shares its position with the original: a second thread would miss names.
        own = os.open(".", DIR_FLAGS, dir_fd=fd)
        try:
            with os.scandir(own) as entries:
                yield entries
        finally:
            os.close(own)
    except OSError as error:
        raise io_error(layout.path, f"cannot list {label}", error) from None


def _unknown_names(layout: Layout, fd: int, prefix: str, known: Collection[str]) -> Iterator[str]:
    with _scan(layout, fd, prefix or layout.path) as entries:
        for entry in entries:
            if entry.name not in known:
                slash = "/" if entry.is_dir(follow_symlinks=False) else ""
                yield f"{prefix}{entry.name}{slash}"


def _read_ingest(layout: Layout, parent: int, name: str) -> tuple[Ingest, bool]:
    """Return an upload, and True if it is foreign by its name or has more than regular files."""
    own = os.stat(name, dir_fd=parent, follow_symlinks=False)
    is_foreign = not is_ingest_name(name)
    is_marked = not is_foreign and name.endswith(REMOVING)
    if not stat.S_ISDIR(own.st_mode):
        # oras and similar clients upload to a file of another name.
        return Ingest(name, (own.st_mtime_ns,), own.st_size), True
    writes_ns, size = [own.st_mtime_ns], 0
    try:
        fd = os.open(name, DIR_FLAGS, dir_fd=parent)
    except PermissionError:
        # The upload of another user: only the time of its directory is known.
        return Ingest(name, tuple(writes_ns), size, is_marked), is_foreign
    try:
        with _scan(layout, fd, f"ingest/{name}") as entries:
            for inner in entries:
                with suppress(FileNotFoundError):
                    status = inner.stat(follow_symlinks=False)
                    writes_ns.append(status.st_mtime_ns)
                    size += status.st_size
                    is_foreign = is_foreign or not stat.S_ISREG(status.st_mode)
    finally:
        os.close(fd)
    return Ingest(name, tuple(sorted(writes_ns)), size, is_marked), is_foreign


def _sizes_below(name: str, parent_fd: int) -> list[int]:
    """Return the size of each file below a directory; none if it cannot be listed completely."""
    try:
        walk = os.fwalk(name, dir_fd=parent_fd, follow_symlinks=False)
        return [_file_bytes(inner, fd) for _, _, names, fd in walk for inner in names]
    except (OSError, RecursionError):  # fwalk of some Pythons calls itself for each level
        return []


def _file_bytes(name: str, fd: int) -> int:
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
