"""A directory in memory, such as a Dockerfile from stdin."""

import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kitcache.buildkit.session.packets import MODE_DIR, FileStat
from kitcache.buildkit.session.patterns import TOP, PathMatch, Selection


class MemoryFiles(NamedTuple):
    """Files by their relative paths, normalized and with slashes."""

    files: Mapping[str, bytes]


class MemoryTree:
    """MemoryFiles as a source of a transfer, all with one modification time.

    The time must be new for new content: BuildKit does not request a file whose name, size and time
    are equal to those of a file that it has.
    """

    def __init__(self, files: MemoryFiles, mtime_ns: int) -> None:
        self._files = files.files
        self._mtime_ns = mtime_ns

    def entries(self, selection: Selection) -> Iterator[FileStat]:
        """Yield the selected entries in the order of the protocol, with their parents."""
        matches: dict[str, PathMatch] = {"": TOP}
        sent = set()
        paths = {tuple(path.split("/")[:n]) for path in self._files for n in _depths(path)}
        for parts in sorted(paths):
            path, parent = "/".join(parts), "/".join(parts[:-1])
            match = matches[path] = selection.match(path, matches[parent])
            if not match.is_sent:
                continue
            for n in _depths(path):
                name = "/".join(parts[:n])
                if name not in sent:
                    sent.add(name)
                    yield self._entry(name)

    def _entry(self, path: str) -> FileStat:
        data = self._files.get(path)
        if data is None:
            return FileStat(path, MODE_DIR | 0o755, 0, self._mtime_ns)
        return FileStat(path, 0o644, len(data), self._mtime_ns)

    def open(self, path: str) -> io.BytesIO | None:
        """Open the file at a path, None if there is none."""
        data = self._files.get(path)
        return None if data is None else io.BytesIO(data)


def _depths(path: str) -> range:
    return range(1, path.count("/") + 2)
