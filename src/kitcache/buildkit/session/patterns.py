"""Which paths of a directory are sent, and which directories are worth a look.

Source: tonistiigi/fsutil, filter.go. What a pattern takes: options/ignore.py.
"""

import re
from bisect import bisect_left
from typing import NamedTuple

from kitcache.options.ignore import Matcher, Seen


class Reach:
    """Where those of the patterns that take back (or those that do not) can match."""

    def __init__(self, matcher: Matcher, *, takes_back: bool) -> None:
        texts = [_without_glob(p.text) for p in matcher.patterns if p.is_exception == takes_back]
        self._prefixes = sorted(text + "/" for text in texts)
        self._is_everywhere = any(map(_SPECIAL.search, texts))

    def is_below(self, directory: str) -> bool:
        """Whether one of the patterns could match something below that directory."""
        prefix = directory + "/"
        at = bisect_left(self._prefixes, prefix)
        return self._is_everywhere or any(p.startswith(prefix) for p in self._prefixes[at : at + 1])


class PathMatch(NamedTuple):
    """is_sent: the path itself. is_entered: a directory that something to send may lie in."""

    is_sent: bool
    is_descended: bool
    includes: Seen | None = None
    excludes: Seen | None = None


TOP = PathMatch(is_sent=False, is_descended=True)
"""The root: never sent itself."""
ALL = PathMatch(is_sent=True, is_descended=True)


class Selection:
    """What to send of a directory.

    includes: None for all; else only what they match, with its parents. excludes: not what they
    match. Raises BadPattern.
    """

    def __init__(self, includes: tuple[str, ...] | None = None, excludes: tuple[str, ...] = ()):
        self._includes = None if includes is None else Matcher(includes)
        self._excludes = Matcher(excludes) if excludes else None
        if self._includes:
            self._included = Reach(self._includes, takes_back=False)
        if self._excludes:
            self._taken_back = Reach(self._excludes, takes_back=True)

    def match(self, path: str, parent: PathMatch) -> PathMatch:
        """What is to be done with a path; parent is the verdict on its directory."""
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
                is_entered = is_entered and self._taken_back.is_below(path)
        return PathMatch(is_sent, is_entered, includes, excludes)


# What makes fsutil walk everything: a prefix with one of these says nothing of what it can match.
_SPECIAL = re.compile(r"[*\[\]?^\\]")


def _without_glob(text: str) -> str:
    return text.removesuffix("/**").removesuffix("/*")
