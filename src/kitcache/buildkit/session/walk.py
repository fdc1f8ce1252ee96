"""Walks a local directory for a transfer, and opens its files. No symlink is followed.

Depth first, names in the order of their bytes, each parent before its children. User and group are
not sent. Source: tonistiigi/fsutil, fs.go, stat.go, stat_unix.go.
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

# Errors of a name that another process has deleted or replaced.
_DELETED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
_APPLE = "com.apple."


Identity = tuple[int, int]
"""Device and inode: equal for all names of a file, and through a bind mount."""


def identity(file: os.stat_result) -> Identity:
    """Return the device and inode of a file or directory."""
    return file.st_dev, file.st_ino


ExcludedDirectories = Mapping[Identity, str]
"""Directories that are not sent, wherever they are, with their names for messages."""
NOTHING_EXCLUDED: ExcludedDirectories = {}


class OpenFile:
    """An open file with its size at that time: bytes that are appended later are not read."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        # Files without a size, as in /proc, are read to their end.
        self._remaining = size or sys.maxsize

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; b"" at the end. Raises OSError."""
        data = os.read(self._fd, min(size, self._remaining))
        self._remaining -= len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class DirectoryTree:
    """A directory on disk as the source of a transfer. Not thread-safe; `root` must be entered.

    Args:
        root: The open directory.
        excluded: Directories that are not sent.
        on_excluded: Called with the name of each excluded directory that the selection includes.
    """

    def __init__(
        self,
        root: DirectoryRoot,
        excluded: ExcludedDirectories = NOTHING_EXCLUDED,
        on_excluded: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._root = root
        self._excluded = excluded
        self._on_excluded = on_excluded

    def entries(self, selection: Selection) -> Iterator[FileStat]:
        """Yield the selected entries in the order of the protocol.

        A directory that is not selected is included if an entry below it is. Files that another
        process deletes during the walk are skipped. Raises KitcacheError for unreadable files.
        """
        return _Walk(self._root, selection, self._excluded, self._on_excluded).run()

    def open(self, path: str) -> OpenFile | io.BytesIO | None:
        """Open the file at a path, None if it is no longer a file. A socket is empty.

        Raises KitcacheError if it cannot be read.
        """
        directory, name = split(path)
        try:
            fd = self._root.use(directory, lambda fd: os.open(name, FILE_FLAGS, dir_fd=fd))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return io.BytesIO()
            if error.errno in _DELETED:
                return None
            raise unreadable(self._root.path, path, error) from None
        file = os.fstat(fd)
        if not stat.S_ISREG(file.st_mode):
            os.close(fd)
            return None
        return OpenFile(fd, file.st_size)


def unreadable(root: str, path: str, error: OSError) -> KitcacheError:
    """Return the error to raise for a file that must be sent and cannot be read."""
    failure = io_error(root, f'"{path or "."}" cannot be read', error, effect="")
    if error.errno in (errno.EACCES, errno.EPERM):
        failure.hints = ("make it readable, or list it in .dockerignore",)
    return failure


class _Frame:
    """A directory of the walk; `unsent` is its entry until an entry below it is sent."""

    __slots__ = ("match", "names", "path", "unsent")

    def __init__(
        self, path: str, names: list[str], match: PathMatch, unsent: FileStat | None
    ) -> None:
        self.path = path
        self.names = iter(names)
        self.match = match
        self.unsent = unsent


class _Walk:
    def __init__(
        self,
        root: DirectoryRoot,
        selection: Selection,
        excluded: ExcludedDirectories,
        on_excluded: Callable[[str], None],
    ) -> None:
        self._root = root
        self._excluded = excluded
        self._on_excluded = on_excluded
        self._select = selection.match
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
            match = self._select(path, frame.match)
            entry = self._look(path, match)
            if entry is None:
                continue
            if match.is_sent:
                for parent in frames:
                    if parent.unsent is not None:
                        yield parent.unsent
                        parent.unsent = None
                yield entry
            if entry.is_dir and match.is_descended:
                names = self._list(path, is_sent=match.is_sent)
                frames.append(_Frame(path, names, match, None if match.is_sent else entry))

    def _list(self, path: str, *, is_sent: bool) -> list[str]:
        try:
            return sorted(self._root.use(path, os.listdir))
        except OSError as error:
            if error.errno in _DELETED or (error.errno == errno.EACCES and not is_sent):
                return []
            raise unreadable(self._root.path, path, error) from None

    def _look(self, path: str, match: PathMatch) -> FileStat | None:
        """Return the entry at a path, None if it is not needed or was deleted."""
        if not match.is_sent and not match.is_descended:
            return None
        directory, name = split(path)
        try:
            fd = self._root.directory(directory)
            file = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not match.is_sent and not stat.S_ISDIR(file.st_mode):
                return None
            excluded = self._excluded.get(identity(file))
            if excluded is not None:
                if match.is_sent:
                    self._on_excluded(excluded)
                return None
            return self._entry(path, file, fd, name)
        except OSError as error:
            if error.errno in _DELETED or (error.errno == errno.EACCES and not match.is_sent):
                return None
            raise unreadable(self._root.path, path, error) from None

    def _entry(self, path: str, file: os.stat_result, fd: int, name: str) -> FileStat:
        linkname, major, minor = "", 0, 0
        is_dir = stat.S_ISDIR(file.st_mode)
        if stat.S_ISLNK(file.st_mode):
            linkname = os.readlink(name, dir_fd=fd)
        elif file.st_nlink > 1 and not is_dir:
            first = self._first_names.setdefault(identity(file), path)
            linkname = first if first != path else ""
        if file.st_rdev:
            major, minor = os.major(file.st_rdev), os.minor(file.st_rdev)
        return FileStat(
            path,
            to_go_mode(file.st_mode),
            0 if is_dir else file.st_size,
            file.st_mtime_ns,
            linkname,
            major,
            minor,
            _xattrs(fd, name),
        )


def _xattrs(fd: int, name: str) -> tuple[tuple[str, bytes], ...]:
    # As in fsutil, an attribute that cannot be read is skipped.
    attributes: list[tuple[str, bytes]] = []
    if sys.platform == "linux":
        # listxattr has no dir_fd; this symlink names the open directory.
        path = f"/proc/self/fd/{fd}/{name}"
        with suppress(OSError):
            for key in os.listxattr(path, follow_symlinks=False):
                if not key.startswith(_APPLE):
                    with suppress(OSError):
                        attributes.append((key, os.getxattr(path, key, follow_symlinks=False)))
    return tuple(attributes)
