"""Selects the paths of a directory that are sent, and the directories that must be listed.

Source: tonistiigi/fsutil, filter.go. The patterns: options/ignore.py.
"""

import re
from bisect import bisect_left
from typing import NamedTuple

from kitcache.options.ignore import Matcher, Seen


class Reach:
    """The directories below which the patterns with (or without) `!` can match."""

    def __init__(self, matcher: Matcher, *, takes_back: bool) -> None:
        texts = [_without_glob(p.text) for p in matcher.patterns if p.is_exception == takes_back]
        self._prefixes = sorted(text + "/" for text in texts)
        self._is_everywhere = any(map(_SPECIAL.search, texts))

    def is_below(self, directory: str) -> bool:
        """Return True if a pattern can match a path below that directory."""
        prefix = directory + "/"
        at = bisect_left(self._prefixes, prefix)
        return self._is_everywhere or any(p.startswith(prefix) for p in self._prefixes[at : at + 1])


class PathMatch(NamedTuple):
    """The result for one path.

    Attributes:
        is_sent: The path is sent.
        is_descended: It is a directory below which a path can be sent.
    """

    is_sent: bool
    is_descended: bool
    includes: Seen | None = None
    excludes: Seen | None = None


TOP = PathMatch(is_sent=False, is_descended=True)
"""The root, which is not sent itself."""
ALL = PathMatch(is_sent=True, is_descended=True)


class Selection:
    """The patterns of one transfer. Raises BadPattern.

    Args:
        includes: Only matching paths are sent, with their parents; None for all paths.
        excludes: Matching paths are not sent.
    """

    def __init__(self, includes: tuple[str, ...] | None = None, excludes: tuple[str, ...] = ()):
        self._includes = None if includes is None else Matcher(includes)
        self._excludes = Matcher(excludes) if excludes else None
        if self._includes:
            self._included = Reach(self._includes, takes_back=False)
        if self._excludes:
            self._reincluded = Reach(self._excludes, takes_back=True)

    def match(self, path: str, parent: PathMatch) -> PathMatch:
        """Return the result for a path, given the result for its directory."""
        if self._includes is None and self._excludes is None:
            return ALL
        is_sent = is_entered = True
        includes = excludes = None
        if self._includes:
            is_sent, includes = self._includes.match(path, parent.includes)
            is_entered = is_sent or self._included.is_below(path)
        if self._excludes:
            is_out, excludes = self._excludes.match(path, parent.excludes)
            if is_out:
                is_sent = False
                is_entered = is_entered and self._reincluded.is_below(path)
        return PathMatch(is_sent, is_entered, includes, excludes)


# fsutil descends everywhere if a prefix has one of these characters.
_SPECIAL = re.compile(r"[*\[\]?^\\]")


def _without_glob(text: str) -> str:
    return text.removesuffix("/**").removesuffix("/*")
