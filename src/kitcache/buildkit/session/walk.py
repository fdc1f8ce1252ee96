"""A local directory as ordered entries, and the bytes of its files. Nothing outside is looked at.

Depth first, names by their bytes, each parent before what is in it; symlinks are entries, never
followed; user and group are not told. Source: tonistiigi/fsutil, fs.go, stat.go, stat_unix.go.
"""

import errno
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from kitcache.buildkit.session.dirroot import DirectoryRoot, split
from kitcache.buildkit.session.packets import FileStat, to_go_mode
from kitcache.buildkit.session.patterns import TOP, PathMatch, Selection
from kitcache.errors import KitcacheError
from kitcache.store.ioerrors import io_error
from kitcache.store.layout import FILE_FLAGS

# What a name says once somebody has taken it away, or put something else there.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
_APPLE = "com.apple."


Identity = tuple[int, int]
"""Device and inode: the same by whatever name, and through a bind mount."""


def identity(found: os.stat_result) -> Identity:
    """Return which file or directory that is."""
    return found.st_dev, found.st_ino


ExcludedDirectories = Mapping[Identity, str]
"""Directories that are not sent, wherever they lie, with what each is called in messages."""
NOTHING_EXCLUDED: ExcludedDirectories = {}


def _ignore(_name: str) -> None:
    """Tell nobody."""


class OpenFile:
    """A file as it was when it was opened: what is appended later is not read."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        # Where the system tells no size, as in /proc, what comes is taken.
        self._left = size or sys.maxsize

    def read(self, size: int) -> bytes:
        """The next bytes, at most size; b"" at the end. Raises OSError."""
        data = os.read(self._fd, min(size, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)


class DirectoryTree:
    """A directory on disk. For one thread, within `with root`.

    on_left_out: called with what left_out calls a directory that the selection takes.
    """

    def __init__(
        self,
        root: DirectoryRoot,
        excluded: ExcludedDirectories = NOTHING_EXCLUDED,
        on_excluded: Callable[[str], None] = _ignore,
    ) -> None:
        self._root = root
        self._left_out = excluded
        self._on_left_out = on_excluded

    def entries(self, selection: Selection) -> Iterator[FileStat]:
        """What the selection takes, in the order of the protocol.

        A directory that is not taken comes too, once something below it is. What vanishes on the
        way is left out. Raises KitcacheError for what is to be sent and cannot be looked at.
        """
        return _Walk(self._root, selection, self._left_out, self._on_left_out).run()

    def open(self, path: str) -> OpenFile | io.BytesIO | None:
        """The file at a path; None where it is gone, or no file any more. A socket is empty.

        Raises KitcacheError where it cannot be read.
        """
        directory, name = split(path)
        try:
            fd = self._root.use(directory, lambda fd: os.open(name, FILE_FLAGS, dir_fd=fd))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return io.BytesIO()
            if error.errno in _GONE:
                return None
            raise unreadable(self._root.path, path, error) from None
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            return None
        return OpenFile(fd, found.st_size)


def unreadable(root: str, path: str, error: OSError) -> KitcacheError:
    """What to say of a name that is to be sent, and cannot be read."""
    failure = io_error(root, f'"{path or "."}" cannot be read', error, effect="")
    if error.errno in (errno.EACCES, errno.EPERM):
        failure.hints = ("make it readable, or list it in .dockerignore",)
    return failure


class _Frame:
    """A directory on the way down. unsent: its entry, as long as nothing below it was sent."""

    __slots__ = ("names", "path", "unsent", "verdict")

    def __init__(
        self, path: str, names: list[str], verdict: PathMatch, unsent: FileStat | None
    ) -> None:
        self.path = path
        self.names = iter(names)
        self.verdict = verdict
        self.unsent = unsent


class _Walk:
    def __init__(
        self,
        root: DirectoryRoot,
        selection: Selection,
        left_out: ExcludedDirectories,
        on_left_out: Callable[[str], None],
    ) -> None:
        self._root = root
        self._left_out = left_out
        self._on_left_out = on_left_out
        self._judge = selection.match
        self._first_names: dict[Identity, str] = {}

    def run(self) -> Iterator[FileStat]:
        frames = [_Frame("", self._list("", is_sent=True), TOP, None)]
        while frames:
            frame = frames[-1]
            name = next(frame.names, None)
            if name is None:
                frames.pop()
                continue
            path = f"{frame.path}/{name}" if frame.path else name
            verdict = self._judge(path, frame.verdict)
            entry = self._look(path, verdict)
            if entry is None:
                continue
            if verdict.is_sent:
                yield from _unsent(frames)
                yield entry
            if entry.is_dir and verdict.is_descended:
                names = self._list(path, is_sent=verdict.is_sent)
                frames.append(_Frame(path, names, verdict, None if verdict.is_sent else entry))

    def _list(self, path: str, *, is_sent: bool) -> list[str]:
        try:
            return sorted(self._root.use(path, os.listdir))
        except OSError as error:
            if error.errno in _GONE or (error.errno == errno.EACCES and not is_sent):
                return []
            raise unreadable(self._root.path, path, error) from None

    def _look(self, path: str, verdict: PathMatch) -> FileStat | None:
        """The entry at a path; None for what is neither sent nor entered, and for what is gone."""
        if not verdict.is_sent and not verdict.is_descended:
            return None
        directory, name = split(path)
        try:
            fd = self._root.directory(directory)
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not verdict.is_sent and not stat.S_ISDIR(found.st_mode):
                return None
            left_out = self._left_out.get(identity(found))
            if left_out is not None:
                if verdict.is_sent:
                    self._on_left_out(left_out)
                return None
            return self._entry(path, found, fd, name)
        except OSError as error:
            if error.errno in _GONE or (error.errno == errno.EACCES and not verdict.is_sent):
                return None
            raise unreadable(self._root.path, path, error) from None

    def _entry(self, path: str, found: os.stat_result, fd: int, name: str) -> FileStat:
        linkname, major, minor = "", 0, 0
        is_dir = stat.S_ISDIR(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            linkname = os.readlink(name, dir_fd=fd)
        elif found.st_nlink > 1 and not is_dir:
            first = self._first_names.setdefault(identity(found), path)
            linkname = first if first != path else ""
        if found.st_rdev:
            major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        return FileStat(
            path,
            to_go_mode(found.st_mode),
            0 if is_dir else found.st_size,
            found.st_mtime_ns,
            linkname,
            major,
            minor,
            _xattrs(fd, name),
        )


def _xattrs(fd: int, name: str) -> tuple[tuple[str, bytes], ...]:
    """None where the system cannot tell; one that cannot be read is left out, as upstream."""
    found: list[tuple[str, bytes]] = []
    if sys.platform == "linux":
        # listxattr knows no dir_fd; this link leads to the directory that is open.
        place = f"/proc/self/fd/{fd}/{name}"
        with suppress(OSError):
            for key in os.listxattr(place, follow_symlinks=False):
                if not key.startswith(_APPLE):
                    with suppress(OSError):
                        found.append((key, os.getxattr(place, key, follow_symlinks=False)))
    return tuple(found)


def _unsent(frames: list[_Frame]) -> Iterator[FileStat]:
    for frame in frames:
        if frame.unsent is not None:
            yield frame.unsent
            frame.unsent = None
