"""The paths that .dockerignore patterns match, as BuildKit's client applies them.

The last matching pattern decides, `!` negates, and a match of a directory applies to everything
below it. All patterns read a path at once, and continue from the state of its directory.
Sources: moby/patternmatcher, patternmatcher.go and ignorefile/ignorefile.go; Go's filepath.Match.
"""

import posixpath
import re
from typing import NamedTuple

from kitcache.options.automaton import ANY, Automaton, Directories, Item, Star, State
from kitcache.options.globs import BadPattern, glob_items, regex_items


class Pattern(NamedTuple):
    """A pattern.

    Attributes:
        text: The cleaned pattern without its `!`.
        is_exception: True for a pattern with `!`.
        items: The paths that it matches, without the paths below them.
    """

    text: str
    is_exception: bool
    items: tuple[Item, ...]


class Seen(NamedTuple):
    """The patterns' state after a path. hits: the indices that match it or a parent."""

    state: State
    hits: tuple[int, ...]


class Matcher:
    """Patterns in their order. Raises BadPattern for a pattern that BuildKit refuses."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.patterns = tuple(_compile(text) for text in map(str.strip, patterns) if text)
        self._start = Automaton([pattern.items for pattern in self.patterns]).start

    def match(self, path: str, parent: Seen | None) -> tuple[bool, Seen]:
        """Return True if the patterns match the path, and the state for paths below it.

        As in MatchesUsingParentResults, a pattern that could not change the result is skipped, and
        counts as one that does not match.

        Args:
            parent: The state of the path's directory; None at the top.
        """
        if parent is None:
            state, known = self._start.after(path), frozenset[int]()
        else:
            state, known = parent.state["/"].after(path.rpartition("/")[2]), frozenset(parent.hits)
        is_match = False
        hits = []
        for number in sorted(known.union(state.hits)) if known else state.hits:
            is_exception = self.patterns[number].is_exception
            if is_exception == is_match or number in known:
                hits.append(number)
                is_match = not is_exception
        return is_match, Seen(state, tuple(hits))

    def takes(self, path: str) -> bool:
        """Return True if the patterns match a relative path or one of its directories."""
        is_match, seen = False, None
        for name in path.split("/"):
            is_match, seen = self.match(name, seen)
        return is_match


def parse_ignore_file(text: str) -> tuple[str, ...]:
    """Return the patterns of a .dockerignore, relative to the root of the context."""
    patterns = []
    for line in text.removeprefix("\ufeff").split("\n"):
        pattern = line.strip()
        if line.startswith("#") or not pattern:
            continue
        mark = "!" * pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip()
        if pattern:
            pattern = clean(pattern)
            pattern = pattern.removeprefix("/") or pattern
        patterns.append(mark + pattern)
    return tuple(patterns)


def clean(text: str) -> str:
    """Return the path as Go's filepath.Clean, which unlike normpath keeps no second slash."""
    cleaned = posixpath.normpath(text)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _compile(text: str) -> Pattern:
    # Upstream cleans the text together with its `!`, so `!a/..` is not an exception.
    text = clean(text)
    is_exception = text.startswith("!")
    if is_exception:
        text = text[1:]
        if not text:
            raise BadPattern("!", "an exception to nothing")
    glob_items(text)
    return Pattern(text, is_exception, tuple(_items(text)))


def _items(text: str) -> list[Item]:
    """Read a literal, a prefix, a suffix or a regular expression, as upstream does."""
    if not _WILD.search(text):
        return list(text)
    if text.startswith("**") and not _WILD.search(suffix := text[2:]):
        if suffix.startswith("/"):
            return [Directories(ANY), *suffix[1:]]
        return [Star(ANY), *suffix]
    if text.endswith("**") and not _WILD.search(prefix := text[:-2]):
        return [*prefix, Star(ANY)]
    return regex_items(_to_regex(text), text)


_WILD = re.compile(r"[*?\[\]\\]")
_PART = re.compile(r"\*\*/?|\*|\?|\\.|.", re.DOTALL)
_QUOTED = frozenset(".+()|{}$")


def _to_regex(text: str) -> str:
    """Return upstream's regular expression, with its unusual rules inside of brackets."""
    parts = []
    for match in _PART.finditer(text):
        part = match.group()
        if part.startswith("**"):
            parts.append(".*" if match.end() == len(text) else "(.*/)?")
        elif part == "*":
            parts.append("[^/]*")
        elif part == "?":
            parts.append("[^/]")
        else:
            parts.append("\\" + part if part in _QUOTED else part)
    return "".join(parts)
