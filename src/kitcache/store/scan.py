"""Names below blobs/ and ingest/, streamed; a stat only where one is needed."""

import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import compress, islice
from typing import NamedTuple

from kitcache.oci.digest import are_blob_names, is_blob_name
from kitcache.store.index import INDEX, INDEX_TEMP
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import DIR_FLAGS, Layout, look_at_open
from kitcache.store.locks import INDEX_LOCK, KITCACHE_LOCK

STATE_DIR = ".kitcache"
"""The directory below DIR that is kitcache's alone."""
OWN_NAMES = frozenset(
    ("oci-layout", INDEX, INDEX_TEMP, INDEX_LOCK, KITCACHE_LOCK, STATE_DIR, "blobs", "ingest")
)
BATCH_SIZE = 512
_TICK_S = 0.02
"""The clock of a local file system ticks every 10 ms at least."""
_TICK_PAUSE_S = 0.0005
_COARSEST_NS = 2 * 10**9
"""FAT dates files by two seconds, old ext4 by one."""
QUARANTINE = "quarantine"
"""Below .kitcache/: what a repair has put aside."""
REMOVING = ".kitcache-removing"
"""Ends the name of an upload while it is removed: its own files' times say nothing any more."""
_INGEST_NAME_ALGORITHM = "sha256"


class Batch(NamedTuple):
    """Some names below blobs/<algorithm>/. names: exact hex, regular files. odd: all others."""

    names: list[str]
    odd: list[str]


class Ingest(NamedTuple):
    """An upload under way or left behind.

    writes_ns: the modification times of its directory and files. bytes: their sizes summed.
    is_marked: a reset that was killed had begun to remove it. foreign: it is, or holds, something
    that BuildKit's uploads do not make, so it is not touched; but others write there too.
    """

    name: str
    writes_ns: tuple[int, ...]
    bytes: int
    is_marked: bool
    foreign: bool


def scan_blobs(layout: Layout, algorithm: str) -> Iterator[Batch]:
    """Every name below blobs/<algorithm>/, streamed in directory order, in batches. No stat."""
    parent = layout.blobs.get(algorithm)
    if parent is None:
        return
    with _scan(layout, parent, f"blobs/{algorithm}") as entries:
        while True:
            some = list(islice(entries, BATCH_SIZE))
            yield _sort_out(algorithm, some)
            if len(some) < BATCH_SIZE:
                return


def _sort_out(algorithm: str, entries: list[os.DirEntry[str]]) -> Batch:
    names = [entry.name for entry in entries]
    files = [entry.is_file(follow_symlinks=False) for entry in entries]
    if are_blob_names(algorithm, names) and all(files):
        return Batch(names, [])
    good = [f and is_blob_name(algorithm, n) for n, f in zip(names, files, strict=True)]
    odd = [name for name, is_good in zip(names, good, strict=True) if not is_good]
    return Batch(list(compress(names, good)), odd)


def scan_ingests(layout: Layout) -> tuple[Ingest, ...]:
    """All that is below ingest/, in name order; what vanishes meanwhile is left out."""
    if layout.ingest_fd is None:
        return ()
    found = []
    with _scan(layout, layout.ingest_fd, "ingest") as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                found.append(_look_at_ingest(layout, layout.ingest_fd, entry.name))
    return tuple(sorted(found))


def read_writes(layout: Layout, name: str) -> tuple[int, ...]:
    """writes_ns of one upload as it is now. Raises FileNotFoundError where it is gone."""
    parent = layout.ingest_fd
    return () if parent is None else _look_at_ingest(layout, parent, name).writes_ns


def is_ingest_name(name: str) -> bool:
    """Whether a directory below ingest/ is an upload's: the sha256 of its ref, perhaps marked."""
    return is_blob_name(_INGEST_NAME_ALGORITHM, name.removesuffix(REMOVING))


def scan_foreign(layout: Layout) -> Iterator[str]:
    """Paths, relative to DIR, of what is neither BuildKit's nor ours; directories end in a slash.

    What lies inside blobs/<known algorithm>/ is scan_blobs' to tell.
    """
    yield from _strangers(layout, layout.root_fd, "", OWN_NAMES)
    if layout.blobs_fd is not None:
        yield from _strangers(layout, layout.blobs_fd, "blobs/", layout.blobs.keys())
    if layout.ingest_fd is not None:
        uploads = frozenset(i.name for i in scan_ingests(layout) if not i.foreign)
        yield from _strangers(layout, layout.ingest_fd, "ingest/", uploads)


def weigh_foreign(layout: Layout, path: str) -> int:
    """The bytes of a foreign file, or of all files below a foreign directory. Follows no link."""
    place, _, name = path.rstrip("/").rpartition("/")
    places = {"": layout.root_fd, "blobs": layout.blobs_fd, "ingest": layout.ingest_fd}
    places |= {f"blobs/{algorithm}": fd for algorithm, fd in layout.blobs.items()}
    place_fd = places.get(place)
    if place_fd is None:
        return 0
    return sum(_sizes_below(name, place_fd)) if path.endswith("/") else _file_bytes(name, place_fd)


def weigh_quarantine(layout: Layout) -> tuple[int, int]:
    """How many files a repair has put aside, and their bytes. Follows no link."""
    try:
        room_fd = os.open(STATE_DIR, DIR_FLAGS, dir_fd=layout.root_fd)
    except OSError:
        return 0, 0
    try:
        sizes = _sizes_below(QUARANTINE, room_fd)
    finally:
        os.close(room_fd)
    return len(sizes), sum(sizes)


def uploads_changed_ns(layout: Layout) -> int:
    """When names in ingest/ last came or went, ns since 1970; 0 where there is none."""
    fd = layout.ingest_fd
    return 0 if fd is None else look_at_open(layout, fd, "ingest").st_mtime_ns


def next_tick_ns(fd: int) -> int:
    """Wait for the next tick of the clock of that file system; return its time, ns since 1970.

    What changes from now on has this time or a later one, and what changed before the call has an
    earlier one. Only where the clock stands still for 20 ms, as one that counts whole seconds does,
    what changed before may have this time as well. fd: a file of ours there, which is dated now. If
    it cannot be, the time is that of the machine, rounded down as a file system may round: what
    changed before the call may have a later time then.
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
    found = os.fstat(fd)
    # Some file systems without a change time show 0, or when the file was made.
    return max(found.st_mtime_ns, found.st_ctime_ns)


@contextmanager
def _scan(layout: Layout, fd: int, what: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    try:
        # A duplicated fd shares its position with the original: a second thread would miss names.
        own = os.open(".", DIR_FLAGS, dir_fd=fd)
        try:
            with os.scandir(own) as entries:
                yield entries
        finally:
            os.close(own)
    except OSError as error:
        raise io_error(layout.path, f"cannot list {what}", error) from None


def _strangers(layout: Layout, fd: int, prefix: str, known: Collection[str]) -> Iterator[str]:
    with _scan(layout, fd, prefix or layout.path) as entries:
        for entry in entries:
            if entry.name not in known:
                slash = "/" if entry.is_dir(follow_symlinks=False) else ""
                yield f"{prefix}{entry.name}{slash}"


def _look_at_ingest(layout: Layout, parent: int, name: str) -> Ingest:
    itself = os.stat(name, dir_fd=parent, follow_symlinks=False)
    writes, size, foreign = [itself.st_mtime_ns], 0, not is_ingest_name(name)
    is_marked = not foreign and name.endswith(REMOVING)
    if not stat.S_ISDIR(itself.st_mode):
        # oras and its like upload to a file of another name.
        return Ingest(name, tuple(writes), itself.st_size, is_marked=False, foreign=True)
    try:
        fd = os.open(name, DIR_FLAGS, dir_fd=parent)
    except PermissionError:
        # Somebody else's: its own time has to do.
        return Ingest(name, tuple(writes), size, is_marked, foreign)
    try:
        with _scan(layout, fd, f"ingest/{name}") as entries:
            for inner in entries:
                with suppress(FileNotFoundError):
                    found = inner.stat(follow_symlinks=False)
                    writes.append(found.st_mtime_ns)
                    size += found.st_size
                    foreign = foreign or not stat.S_ISREG(found.st_mode)
    finally:
        os.close(fd)
    return Ingest(name, tuple(writes), size, is_marked, foreign)


def _sizes_below(name: str, place_fd: int) -> list[int]:
    """Return the bytes of each file below a directory; none where it cannot be walked whole."""
    try:
        walk = os.fwalk(name, dir_fd=place_fd, follow_symlinks=False)
        return [_file_bytes(inner, fd) for _, _, names, fd in walk for inner in names]
    except (OSError, RecursionError):  # the walk of some Pythons calls itself for each level
        return []


def _file_bytes(name: str, fd: int) -> int:
    try:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
