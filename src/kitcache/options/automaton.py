"""Many patterns read a text at once, in linear time: no pattern and no text makes it run for ever.

Every place of every pattern is one bit of an integer; a step over a character moves them all. A
step that was made once is remembered, so that a text costs one look-up a character.
Source: RE2, "Regular Expression Matching in the Wild" (a lazy DFA with a bounded cache); the
epsilon closure by one addition is Navarro and Raffinot's.
"""

import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

Span = tuple[str, str]

# States and steps that are remembered take about so much; then all are forgotten.
_CACHE_BYTES = 32 * 2**20
_STATE_BYTES = 1024


class Chars(NamedTuple):
    """One character out of these spans, ends included. A span that runs backwards is empty."""

    spans: tuple[Span, ...]

    def has(self, char: str) -> bool:
        """Whether it is one of them."""
        return any(low <= char <= high for low, high in self.spans)


class Star(NamedTuple):
    """Any number of characters, also none."""

    chars: Chars


class Directories(NamedTuple):
    """`(chars*/)?`: nothing, or what ends in a slash."""

    chars: Chars


class Edge(Enum):
    """Takes no character: the begin or the end of the text, the edge of a word, no such edge."""

    BEGIN = "begin"
    END = "end"
    WORD = "word"
    NO_WORD = "no word"


Item = str | Chars | Star | Directories | Edge
"""Part of a pattern; a text is that one character."""


def complement(spans: Iterable[Span]) -> Chars:
    """Every character outside of the spans."""
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
    """What the last character was; asked for edges only."""

    NOTHING = 0
    WORD = 1
    OTHER = 2


class State(dict[str, "State"]):
    """How far each pattern has come in the text so far: state[char] is the state after it."""

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
        """The state when that was read, too."""
        state = self
        for char in text:
            state = state[char]
        return state

    @property
    def hits(self) -> tuple[int, ...]:
        """The numbers of the patterns, from 0, that match all of the text so far; ascending."""
        if self._hits is None:
            places, _, before = self._key
            self._hits = self._automaton.find_hits(places, before)
        return self._hits


class Automaton:
    """Patterns, each a sequence of items. start: nothing has been read."""

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
        self._within = self._bits(_all_of(self._directories))
        self._skipped = self._bits(_all_of(self._stars)) | self._within
        self._moves: dict[str, tuple[int, int, int]] = {}
        self._states: dict[tuple[int, int, _Before], State] = {}
        self._most = _CACHE_BYTES // (place // 2 + _STATE_BYTES) + 2
        self.start = State(self, (self._bits(starts), 0, _Before.NOTHING))

    def step(self, places: int, within: int, before: _Before, char: str) -> State:
        """The state after one more character. within: the directories that have begun."""
        if len(self._states) + len(self._moves) >= self._most:
            self._forget()
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
        """The patterns that may end here."""
        ends = self._spread(places, before, is_word=False, is_end=True) & self._ends
        hits = []
        while ends:
            lowest = ends & -ends
            hits.append(self._pattern_at[lowest.bit_length() - 1])
            ends ^= lowest
        return tuple(hits)

    def _spread(self, places: int, before: _Before, *, is_word: bool, is_end: bool = False) -> int:
        """With the places behind items that may take nothing here. is_word: what comes next."""
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
        # The carry runs through a row of ones, from the lowest place that was reached.
        return places | ((empty + (places & empty)) ^ empty)

    def _find_moves(self, char: str) -> tuple[int, int, int]:
        """For a character: the places that it moves on, that stay, the directories that go on."""
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

    def _forget(self) -> None:
        for state in self._states.values():
            state.clear()
        self.start.clear()
        self._states = {}
        self._moves = {}


def _all_of(places: dict[Chars, list[int]]) -> list[int]:
    return [place for found in places.values() for place in found]


def _having(places: dict[Chars, list[int]], char: str) -> list[int]:
    return [place for chars, found in places.items() if chars.has(char) for place in found]
