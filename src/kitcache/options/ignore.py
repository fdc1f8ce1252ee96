"""Which paths .dockerignore patterns take, as BuildKit's client applies them.

The last pattern that matches decides, `!` takes back, what a directory matched holds for all below
it. All patterns read a path at once, and go on where they stopped at its directory.
Source: moby/patternmatcher, patternmatcher.go and ignorefile/ignorefile.go; Go's filepath.Match.
"""

import posixpath
import re
from typing import NamedTuple

from kitcache.options.automaton import ANY, Automaton, Directories, Item, Star, State
from kitcache.options.globs import BadPattern, glob_items, regex_items


class Pattern(NamedTuple):
    """One pattern. text: cleaned, without its `!`. items: what it takes, without what is below."""

    text: str
    takes_back: bool
    items: tuple[Item, ...]


class Seen(NamedTuple):
    """What patterns made of a path. hits: the numbers of those that matched it or a parent."""

    state: State
    hits: tuple[int, ...]


class Matcher:
    """Patterns in their order. Raises BadPattern for one that BuildKit could not use either."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.patterns = tuple(_compile(text) for text in map(str.strip, patterns) if text)
        self._start = Automaton([pattern.items for pattern in self.patterns]).start

    def match(self, path: str, parent: Seen | None) -> tuple[bool, Seen]:
        """Whether the patterns take the path. parent: what was seen of its directory.

        Mirrors MatchesUsingParentResults: a pattern that could change nothing is not asked, and
        counts as one that did not match.
        """
        if parent is None:
            state, known = self._start.after(path), frozenset[int]()
        else:
            state, known = parent.state["/"].after(path.rpartition("/")[2]), frozenset(parent.hits)
        taken = False
        hits = []
        for number in sorted(known.union(state.hits)) if known else state.hits:
            takes_back = self.patterns[number].takes_back
            if takes_back == taken or number in known:
                hits.append(number)
                taken = not takes_back
        return taken, Seen(state, tuple(hits))

    def takes(self, path: str) -> bool:
        """Whether the patterns take a relative path, by itself or with a directory of it."""
        taken, seen = False, None
        for name in path.split("/"):
            taken, seen = self.match(name, seen)
        return taken


def parse_ignore_file(text: str) -> tuple[str, ...]:
    """The patterns of a .dockerignore; they name paths from the context's root."""
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
    """Go's filepath.Clean, which unlike ours keeps no second slash in front."""
    cleaned = posixpath.normpath(text)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _compile(text: str) -> Pattern:
    # Cleaned together with its `!`, as upstream does: `!a/..` is no exception any more.
    text = clean(text)
    takes_back = text.startswith("!")
    if takes_back:
        text = text[1:]
        if not text:
            raise BadPattern("!", "an exception to nothing")
    glob_items(text)
    return Pattern(text, takes_back, tuple(_items(text)))


def _items(text: str) -> list[Item]:
    """As upstream decides: by a literal, a prefix, a suffix or a regular expression."""
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
    """Upstream's regular expression, with all its oddities inside of brackets."""
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
    return "".join(parts)
