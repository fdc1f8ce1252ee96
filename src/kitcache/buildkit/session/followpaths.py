"""followpaths: patterns for a path and for the targets of all symlinks on it.

Symlinks are resolved below the root, as in a chroot. The last component can have wildcards; all
matching names are checked. Source: tonistiigi/fsutil, followlinks.go (which, unlike the kernel,
forgets the second of two paths through one symlink).
"""

import errno
import os

from kitcache.buildkit.session.dirroot import DirectoryRoot
from kitcache.buildkit.session.walk import unreadable
from kitcache.options.globs import (
    BadPattern,
    compile_glob,
    escape,
    has_wildcard,
    unescape,
)

Parts = tuple[str, ...]

# The kernel gives up after 40.
_MAX_SYMLINKS = 1000
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)


def resolve_followpaths(root: DirectoryRoot, paths: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return patterns for the paths and the symlinks on them; None if one of them is the root.

    Raises KitcacheError for a directory that cannot be read.
    """
    follower = _Follower(root)
    for path in paths:
        follower.follow(path)
    resolved = sorted("/".join(parts) for parts in follower.resolved)
    return None if "" in resolved else tuple(resolved)


class _Follower:
    def __init__(self, root: DirectoryRoot) -> None:
        self.resolved: set[Parts] = set()
        self._root = root
        self._seen: set[tuple[Parts, Parts]] = set()

    def follow(self, path: str) -> None:
        waiting = [tuple(part for part in path.split("/") if part not in ("", "."))]
        for _ in range(_MAX_SYMLINKS):
            if not waiting:
                return
            waiting += self._step(waiting.pop())

    def _step(self, parts: Parts) -> list[Parts]:
        """Follow a path to its first symlink, and return the paths from its targets."""
        current: Parts = ()
        for index, part in enumerate(parts):
            if part == "..":
                current = current[:-1]
                continue
            current += (part,)
            targets = self._targets(current)
            if targets:
                rest = parts[index + 1 :]
                self.resolved.add(current)
                if (current, rest) in self._seen:
                    return []
                self._seen.add((current, rest))
                return [target + rest for target in targets]
        self.resolved.add(current)
        return []

    def _targets(self, current: Parts) -> list[Parts]:
        """Return the targets of the symlinks that a path names."""
        *parents, last = current
        if any(map(has_wildcard, parents)):
            return []
        directory = "/".join(map(unescape, parents))
        try:
            names = [unescape(last)]
            if has_wildcard(last):
                names = self._root.use(directory, lambda fd: _matching(fd, last))
            fd = self._root.directory(directory)
            return [_inside(tuple(parents), link) for name in names if (link := _link(fd, name))]
        except OSError as error:
            if error.errno in _MISSING:
                return []
            raise unreadable(self._root.path, directory, error) from None


def _matching(fd: int, pattern: str) -> list[str]:
    try:
        matches = compile_glob(pattern)
    except BadPattern:
        return []
    return sorted(filter(matches, os.listdir(fd)))


def _link(fd: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise


def _inside(parents: Parts, link: str) -> Parts:
    """Return a symlink's target as a path from the root, which `..` cannot leave."""
    target = () if link.startswith("/") else parents
    for name in link.split("/"):
        if name == "..":
            target = target[:-1]
        elif name not in ("", "."):
            target += (escape(name),)
    return target
