"""The order in which a tree is told, checked: what breaks it could write where it must not. Pure.

Source: tonistiigi/fsutil, validator.go.
"""

from kitcache.buildkit.session.dirroot import split
from kitcache.buildkit.session.packets import FileStat
from kitcache.errors import KitcacheError


class Order:
    """What may come next. root: the directory's name, for messages."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._levels: list[tuple[str, bytes]] = [("", b"")]

    def check(self, entry: FileStat) -> None:
        """Raises KitcacheError for a path that leads out, comes twice, or before its directory.

        A parent that was sent as anything else than a directory is none.
        """
        path = entry.path
        names = path.split("/")
        if any(name in ("", ".", "..") for name in names) or "\0" in path + entry.linkname:
            raise self._refused(path, "is no path below the output directory")
        parent, name = split(path)
        while self._levels and self._levels[-1][0] != parent:
            self._levels.pop()
        if not self._levels:
            raise self._refused(path, "comes without its directory, or after it was left")
        last = self._levels[-1][1]
        if name.encode() <= last:
            raise self._refused(path, "comes twice, or out of order")
        self._levels[-1] = (parent, name.encode())
        if entry.is_dir:
            self._levels.append((path, b""))

    def _refused(self, path: str, problem: str) -> KitcacheError:
        return KitcacheError(self._root, f'the daemon sends "{path}", which {problem}', effect="")
