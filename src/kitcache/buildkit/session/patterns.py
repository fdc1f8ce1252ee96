"""Which paths of a directory are sent: .dockerignore patterns as BuildKit's client applies them.

The last pattern that matches decides, `!` takes back, what a directory matched holds for all below
it. A path is judged with its directory's state, so each pattern looks at each path once.
Source: moby/patternmatcher, patternmatcher.go; tonistiigi/fsutil, filter.go; Go's filepath.Match.
"""

import posixpath
import re
from collections.abc import Callable
from typing import NamedTuple

from kitcache.buildkit.session.globs import BadPattern, check_glob, to_python

State = tuple[bool, ...]
"""Which patterns matched a directory; () for the root."""


class Pattern(NamedTuple):
    """One pattern. text: cleaned, without its `!`. matches: judges a path, without its parents."""

    text: str
    takes_back: bool
    matches: Callable[[str], bool]


class Matcher:
    """Patterns in their order. Raises BadPattern for one that BuildKit could not use either."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.patterns = tuple(_compile(text) for text in map(str.strip, patterns) if text)

    def match(self, path: str, parent: State) -> tuple[bool, State]:
        """Whether the patterns take the path, and the state for what is below it.

        Mirrors MatchesUsingParentResults: a pattern that could change nothing is not asked, and
        counts as one that did not match.
        """
        known = parent or (False,) * len(self.patterns)
        taken = False
        state = []
        for pattern, is_hit in zip(self.patterns, known, strict=True):
            if not is_hit and pattern.takes_back == taken:
                is_hit = pattern.matches(path)  # noqa: PLW2901
            state.append(is_hit)
            if is_hit:
                taken = not pattern.takes_back
        return taken, tuple(state)

    def reach(self, *, takes_back: bool) -> "Reach":
        """Where those of the patterns that take back (or those that do not) can match."""
        texts = [_without_glob(p.text) for p in self.patterns if p.takes_back == takes_back]
        return Reach(tuple(text + "/" for text in texts), any(map(_SPECIAL.search, texts)))


class Reach(NamedTuple):
    """Where a set of patterns can match. is_everywhere: one begins with a wildcard, or has some."""

    prefixes: tuple[str, ...]
    is_everywhere: bool

    def is_below(self, directory: str) -> bool:
        """Whether one of the patterns could match something below that directory."""
        prefix = directory + "/"
        return self.is_everywhere or any(text.startswith(prefix) for text in self.prefixes)


class Verdict(NamedTuple):
    """is_sent: the path itself. is_entered: a directory that something to send may lie in."""

    is_sent: bool
    is_entered: bool
    includes: State = ()
    excludes: State = ()


TOP = Verdict(is_sent=False, is_entered=True)
"""The root: never sent itself."""
ALL = Verdict(is_sent=True, is_entered=True)


class Selection:
    """What to send of a directory.

    includes: None for all; else only what they match, with its parents. excludes: not what they
    match. Raises BadPattern.
    """

    def __init__(self, includes: tuple[str, ...] | None = None, excludes: tuple[str, ...] = ()):
        self._includes = None if includes is None else Matcher(includes)
        self._excludes = Matcher(excludes) if excludes else None
        if self._includes:
            self._included = self._includes.reach(takes_back=False)
        if self._excludes:
            self._taken_back = self._excludes.reach(takes_back=True)

    def judge(self, path: str, parent: Verdict) -> Verdict:
        """What is to be done with a path; parent is the verdict on its directory."""
        if self._includes is None and self._excludes is None:
            return ALL
        is_sent = is_entered = True
        includes: State = ()
        excludes: State = ()
        if self._includes:
            is_sent, includes = self._includes.match(path, parent.includes)
            is_entered = is_sent or self._included.is_below(path)
        if self._excludes:
            is_out, excludes = self._excludes.match(path, parent.excludes)
            if is_out:
                is_sent = False
                is_entered = is_entered and self._taken_back.is_below(path)
        return Verdict(is_sent, is_entered, includes, excludes)


# What makes fsutil walk everything: a prefix with one of these says nothing of what it can match.
_SPECIAL = re.compile(r"[*\[\]?^\\]")


def _without_glob(text: str) -> str:
    return text.removesuffix("/**").removesuffix("/*")


def _clean(text: str) -> str:
    """Go's filepath.Clean, which unlike ours keeps no second slash in front."""
    cleaned = posixpath.normpath(text)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _compile(text: str) -> Pattern:
    # Cleaned together with its `!`, as upstream does: `!a/..` is no exception any more.
    text = _clean(text)
    takes_back = text.startswith("!")
    if takes_back:
        text = text[1:]
        if not text:
            raise BadPattern("!", "an exception to nothing")
    check_glob(text)
    return Pattern(text, takes_back, _matcher(text))


def _matcher(text: str) -> Callable[[str], bool]:
    """The cheapest test that decides as upstream's does: a literal, a prefix, a suffix, a regex."""
    if not _WILD.search(text):
        return lambda path: path == text
    if text.startswith("**") and not _WILD.search(suffix := text[2:]):
        bare = suffix[1:] if suffix.startswith("/") else None
        return lambda path: path.endswith(suffix) or path == bare
    if text.endswith("**") and not _WILD.search(prefix := text[:-2]):
        return lambda path: path.startswith(prefix)
    return _regex(text)


_WILD = re.compile(r"[*?\[\]\\]")
_PART = re.compile(r"\*\*/?|\*|\?|\\.|.", re.DOTALL)
_QUOTED = frozenset(".+()|{}$")


def _regex(text: str) -> Callable[[str], bool]:
    """By way of upstream's regular expression, with all its oddities inside of brackets."""
    parts = []
    for found in _PART.finditer(text):
        part = found.group()
        if part.startswith("**"):
            parts.append(".*" if found.end() == len(text) else "(.*/)?")
        elif part == "*":
            parts.append("[^/]*")
        elif part == "?":
            parts.append("[^/]")
        else:
            parts.append("\\" + part if part in _QUOTED else part)
    match = re.compile(to_python("".join(parts), text), re.ASCII).fullmatch
    return lambda path: match(path) is not None
