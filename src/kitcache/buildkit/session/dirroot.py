"""A directory opened once, and what lies below it reached by open directories. No link is followed.

The root itself may be a link. A directory that is swapped for a link while we are at it is refused.
"""

import errno
import os
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

Answer = TypeVar("Answer")

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KEPT = 8
"""Few: each context and output has its own, and macOS grants a process 256 files."""
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


class DirectoryRoot:
    """A context manager that closes what it opened. For one thread.

    path: as the caller named it, for messages.
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
        self._close_kept()
        os.close(self._root_fd)

    def use(self, path: str, work: Callable[[int], Answer]) -> Answer:
        """What work does with the open directory at a relative path; see directory.

        Where too many files are open, ours are closed, and it is tried once more.
        """
        try:
            return work(self._reach(path))
        except OSError as error:
            if error.errno not in _TOO_MANY:
                raise
        self._close_kept()
        return work(self._reach(path))

    def directory(self, path: str) -> int:
        """The open directory at a relative path, "" for the root; open until the next call.

        Raises OSError: NotADirectoryError for a link, anywhere on the way. The last ones are kept
        open, so that neighbours, parents and deep trees cost little.
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
            self._keep(step, fd)
        return fd

    def forget(self, path: str) -> None:
        """Something else is to be at that path from now on."""
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)

    def _close_kept(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open = {}

    def _keep(self, path: str, fd: int) -> None:
        if len(self._open) == _KEPT:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = fd


def split(path: str) -> tuple[str, str]:
    """A relative path's directory, "" for the root, and its last name."""
    directory, _, name = path.rpartition("/")
    return directory, name
