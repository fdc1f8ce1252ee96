"""A directory that is opened once; paths below it are relative to open directories.

No symlink below the root is followed, also not one that replaces a directory during the work.
"""

import errno
import os
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

Result = TypeVar("Result")

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_OPEN = 8
"""Each context and output has its own set, and macOS allows a process 256 files."""
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


class DirectoryRoot:
    """The open root. A context manager; not thread-safe.

    Attributes:
        path: As the caller named it, for messages.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._root_fd = os.open(path, _FLAGS)
        self._open: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_cached()
        os.close(self._root_fd)

    def use(self, path: str, work: Callable[[int], Result]) -> Result:
        """Return `work(fd)` for the directory at a relative path; see `directory`.

        If too many files are open, the cached directories are closed and the work is repeated.
        """
        try:
            return work(self._reach(path))
        except OSError as error:
            if error.errno not in _TOO_MANY:
                raise
        self._close_cached()
        return work(self._reach(path))

    def directory(self, path: str) -> int:
        """Return the directory at a relative path, "" for the root. It is open until the next call.

        Raises OSError, NotADirectoryError for a symlink anywhere on the path. The last directories
        stay open, so siblings, parents and deep trees are fast.
        """
        return self.use(path, lambda fd: fd)

    def _reach(self, path: str) -> int:
        missing = []
        while path and path not in self._open:
            missing.append(path)
            path = path.rpartition("/")[0]
        fd = self._open[path] if path else self._root_fd
        for step in reversed(missing):
            fd = os.open(step.rpartition("/")[2], _FLAGS | os.O_NOFOLLOW, dir_fd=fd)
            self._cache(step, fd)
        return fd

    def forget(self, path: str) -> None:
        """Close the cached directory of a path that is replaced."""
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)

    def _close_cached(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open = {}

    def _cache(self, path: str, fd: int) -> None:
        if len(self._open) == _MAX_OPEN:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = fd


def split(path: str) -> tuple[str, str]:
    """Return the directory of a relative path, "" for the root, and its last name."""
    directory, _, name = path.rpartition("/")
    return directory, name
