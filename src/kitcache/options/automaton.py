"""A lazy DFA that matches many patterns at once, in time linear in the text for every pattern.

Each place of each pattern is one bit of an integer, and a step over a character moves all bits.
Steps are cached, so a text costs one lookup per character.
Sources: RE2, "Regular Expression Matching in the Wild" (a lazy DFA with a bounded cache); Navarro
and Raffinot (the epsilon closure by one addition).
"""

import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import chain
from typing import NamedTuple

Span = tuple[str, str]

# At about this size the cache of states and steps is cleared.
_CACHE_BYTES = 32 * 2**20
_STATE_BYTES = 1024


class Chars(NamedTuple):
    """One character of these spans, ends included. A span whose end precedes its start is empty."""

    spans: tuple[Span, ...]

    def has(self, char: str) -> bool:
        """Return True if the character is in a span."""
        return any(low <= char <= high for low, high in self.spans)


class Star(NamedTuple):
    """Any number of characters, including zero."""

    chars: Chars


class Directories(NamedTuple):
    """`(chars*/)?`: nothing, or a text that ends in a slash."""

    chars: Chars


class Edge(Enum):
    """An item without a character: start or end of the text, or an edge of a word, or no edge."""

    BEGIN = "begin"
    END = "end"
    WORD = "word"
    NO_WORD = "no word"


Item = str | Chars | Star | Directories | Edge
"""Part of a pattern; a str is one literal character."""


def complement(spans: Iterable[Span]) -> Chars:
    """Return every character outside of the spans."""
    outside = []
    free = 0
    for low, high in sorted(spans):
        if free < ord(low) <= ord(high):
            outside.append((chr(free), chr(ord(low) - 1)))
        free = max(free, ord(high) + 1) if low <= high else free
    if free <= sys.maxunicode:
        outside.append((chr(free), chr(sys.maxunicode)))
    return Chars(tuple(outside))


ANY = complement(())
NO_NEWLINE = complement([("\n", "\n")])
NO_SLASH = complement([("/", "/")])
WORD = Chars((("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z")))


class _Before(Enum):
    """The kind of the last character; NOTHING if no pattern has an edge."""

    NOTHING = 0
    WORD = 1
    OTHER = 2


class State(dict[str, "State"]):
    """The progress of each pattern in the text so far: state[char] is the state after char."""

    __slots__ = ("_automaton", "_hits", "_key")

    def __init__(self, automaton: "Automaton", key: tuple[int, int, _Before]) -> None:
        super().__init__()
        self._automaton = automaton
        self._key = key
        self._hits: tuple[int, ...] | None = None

    def __missing__(self, char: str) -> "State":
        after = self[char] = self._automaton.step(*self._key, char)
        return after

    def after(self, text: str) -> "State":
        """Return the state after the text."""
        state = self
        for char in text:
            state = state[char]
        return state

    @property
    def hits(self) -> tuple[int, ...]:
        """The indices of the patterns that match all of the text so far, ascending."""
        if self._hits is None:
            places, _, before = self._key
            self._hits = self._automaton.find_hits(places, before)
        return self._hits


class Automaton:
    """The automaton of several patterns, each a sequence of items.

    Attributes:
        start: The state before the first character.
    """

    def __init__(self, patterns: Sequence[Sequence[Item]]) -> None:
        self._literals: dict[str, list[int]] = {}
        self._chars: dict[Chars, list[int]] = {}
        self._stars: dict[Chars, list[int]] = {}
        self._directories: dict[Chars, list[int]] = {}
        edges: dict[Edge, list[int]] = {}
        starts, self._pattern_at = [], {}
        place = 0
        for number, items in enumerate(patterns):
            starts.append(place)
            for item in items:
                match item:
                    case str():
                        self._literals.setdefault(item, []).append(place)
                    case Chars():
                        self._chars.setdefault(item, []).append(place)
                    case Star():
                        self._stars.setdefault(item.chars, []).append(place)
                    case Directories():
                        self._directories.setdefault(item.chars, []).append(place)
                    case Edge():
                        edges.setdefault(item, []).append(place)
                place += 1
            self._pattern_at[place] = number
            place += 1
        self._width = place
        self._ends = self._bits(self._pattern_at)
        self._edges = {edge: self._bits(places) for edge, places in edges.items()}
        self._within = self._bits(chain.from_iterable(self._directories.values()))
        self._skipped = self._bits(chain.from_iterable(self._stars.values())) | self._within
        self._moves: dict[str, tuple[int, int, int]] = {}
        self._states: dict[tuple[int, int, _Before], State] = {}
        self._max_cached = _CACHE_BYTES // (place // 2 + _STATE_BYTES) + 2
        self.start = State(self, (self._bits(starts), 0, _Before.NOTHING))

    def step(self, places: int, within: int, before: _Before, char: str) -> State:
        """Return the state after one more character. within: the Directories that have begun."""
        if len(self._states) + len(self._moves) >= self._max_cached:
            for cached in (*self._states.values(), self.start):
                cached.clear()
            self._states, self._moves = {}, {}
        moves = self._moves.get(char)
        if moves is None:
            moves = self._moves[char] = self._find_moves(char)
        taken, looped, kept = moves
        is_word = WORD.has(char)
        places = self._spread(places, before, is_word=is_word)
        within |= places & self._within
        after = ((places & taken) << 1) | (places & looped)
        if char == "/":
            after |= within
        last = before
        if self._edges:
            last = _Before.WORD if is_word else _Before.OTHER
        key = (after, within & kept, last)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = State(self, key)
        return state

    def find_hits(self, places: int, before: _Before) -> tuple[int, ...]:
        """Return the indices of the patterns that match if the text ends here."""
        ends = self._spread(places, before, is_word=False, is_end=True) & self._ends
        hits = []
        while ends:
            lowest = ends & -ends
            hits.append(self._pattern_at[lowest.bit_length() - 1])
            ends ^= lowest
        return tuple(hits)

    def _spread(self, places: int, before: _Before, *, is_word: bool, is_end: bool = False) -> int:
        """Add the places after items that can be empty here. is_word: the next character's kind."""
        empty = self._skipped
        for edge, mask in self._edges.items():
            match edge:
                case Edge.BEGIN:
                    holds = before is _Before.NOTHING
                case Edge.END:
                    holds = is_end
                case _:
                    is_edge = (before is _Before.WORD) != is_word
                    holds = is_edge == (edge is Edge.WORD)
            if holds:
                empty |= mask
        # The carry of the addition runs through a row of ones from its lowest active place.
        return places | ((empty + (places & empty)) ^ empty)

    def _find_moves(self, char: str) -> tuple[int, int, int]:
        """Return the places that a character advances, keeps, and keeps within a directory."""
        taken = _having(self._chars, char)
        taken += self._literals.get(char, ())
        looped = _having(self._stars, char)
        kept = _having(self._directories, char)
        return self._bits(taken), self._bits(looped), self._bits(kept)

    def _bits(self, places: Iterable[int]) -> int:
        data = bytearray(self._width // 8 + 1)
        for place in places:
            data[place >> 3] |= 1 << (place & 7)
        return int.from_bytes(data, "little")


def _having(places: dict[Chars, list[int]], char: str) -> list[int]:
    return [place for chars, at in places.items() if chars.has(char) for place in at]
