"""A directory that is not on disk: a Dockerfile from stdin."""

import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kitcache.buildkit.session.packets import MODE_DIR, FileStat
from kitcache.buildkit.session.patterns import TOP, PathMatch, Selection


class MemoryFiles(NamedTuple):
    """Files by their relative paths, clean and with slashes."""

    files: Mapping[str, bytes]


class MemoryTree:
    """MemoryFiles to be sent. mtime_ns: when; a file that looks like an older one is not asked for.

    BuildKit takes a file of the same name, size and time for the one that it has.
    """

    def __init__(self, files: MemoryFiles, mtime_ns: int) -> None:
        self._files = files.files
        self._mtime_ns = mtime_ns

    def entries(self, selection: Selection) -> Iterator[FileStat]:
        """What the selection takes, in the order of the protocol; parents where needed."""
        verdicts: dict[str, PathMatch] = {"": TOP}
        sent = set()
        paths = {tuple(path.split("/")[:n]) for path in self._files for n in _depths(path)}
        for parts in sorted(paths):
            path, parent = "/".join(parts), "/".join(parts[:-1])
            verdict = verdicts[path] = selection.match(path, verdicts[parent])
            if not verdict.is_sent:
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
        """The file at a path."""
        data = self._files.get(path)
        return None if data is None else io.BytesIO(data)


def _depths(path: str) -> range:
    return range(1, path.count("/") + 2)
