"""Checks the order of a received tree: a path out of order could be written to a wrong place.

Source: tonistiigi/fsutil, validator.go.
"""

from kitcache.buildkit.session.dirroot import split
from kitcache.buildkit.session.packets import FileStat
from kitcache.errors import KitcacheError


class Order:
    """The state of the check. The name of the root is for messages."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._levels: list[tuple[str, bytes]] = [("", b"")]

    def check(self, entry: FileStat) -> None:
        """Raise KitcacheError for a path outside the root, a repeated one, or a missing parent.

        A parent must have been received as a directory.
        """
        path = entry.path
        names = path.split("/")
        if any(name in ("", ".", "..") for name in names) or "\0" in path + entry.linkname:
            raise self._refused(path, "is not a path below the output directory")
        parent, name = split(path)
        while self._levels and self._levels[-1][0] != parent:
            self._levels.pop()
        if not self._levels:
            raise self._refused(path, "does not follow its directory")
        last = self._levels[-1][1]
        if name.encode() <= last:
            raise self._refused(path, "is repeated or out of order")
        self._levels[-1] = (parent, name.encode())
        if entry.is_dir:
            self._levels.append((path, b""))

    def _refused(self, path: str, problem: str) -> KitcacheError:
        return KitcacheError(self._root, f'the daemon sends "{path}", which {problem}', effect="")
