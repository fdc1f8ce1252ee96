"""Deletes the files of a directory that a received tree does not have. No symlink is followed."""

import os
import stat
from collections.abc import Iterable

from kitcache.buildkit.session.dirroot import DirectoryRoot, split
from kitcache.buildkit.session.packets import FileStat


class SentNames:
    """The names of a received tree, by directory."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {"": set()}

    def add(self, entry: FileStat) -> None:
        """Add an entry, whose directory was added before."""
        directory, name = split(entry.path)
        self._names[directory].add(name)
        if entry.is_dir:
            self._names[entry.path] = set()

    @property
    def directories(self) -> Iterable[str]:
        """All directories of the tree, the root first."""
        return self._names

    def delete_others(self, directory: str, root: DirectoryRoot) -> None:
        """Delete all files of a directory that were not received. Raises OSError."""
        for name in root.use(directory, os.listdir):
            if name not in self._names[directory]:
                delete(name, root.directory(directory))


def delete(name: str, directory_fd: int) -> None:
    """Delete a file, a symlink, or a directory with its content. Raises OSError."""
    if stat.S_ISDIR(os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode):
        import shutil  # noqa: PLC0415 - slow to import, and seldom needed

        shutil.rmtree(name, dir_fd=directory_fd)
    else:
        os.unlink(name, dir_fd=directory_fd)
