"""Go's pattern languages as items of an automaton: filepath.Match and regular expressions.

Only the regular expressions that moby/patternmatcher makes from patterns are supported.
Sources: Go, path/filepath/match.go and regexp/syntax; RE2's syntax page.
"""

import re
from collections.abc import Callable

from kitcache.errors import printable
from kitcache.options.automaton import (
    NO_NEWLINE,
    NO_SLASH,
    WORD,
    Automaton,
    Chars,
    Directories,
    Edge,
    Item,
    Span,
    Star,
    complement,
)


class BadPattern(ValueError):
    """A pattern that Go refuses.

    Attributes:
        pattern: As the user wrote it.
        problem: One clause.
    """

    def __init__(self, pattern: str, problem: str) -> None:
        super().__init__(pattern, problem)
        self.pattern = pattern
        self.problem = problem

    def __str__(self) -> str:
        return f'pattern "{printable(self.pattern)}" cannot be used: {self.problem}'


SYNTAX_ERROR = "syntax error in pattern"


def has_wildcard(name: str) -> bool:
    """Return True if the pattern can match more than one name."""
    return bool(_WILDCARD.search(name))


_WILDCARD = re.compile(r"(?:^|[^\\])(?:\\\\)*[*?\[]")


def escape(name: str) -> str:
    """Return the pattern that matches only this name."""
    return re.sub(r"[*?\[\]\\]", r"\\\g<0>", name)


def unescape(pattern: str) -> str:
    """Return the only name that a pattern without wildcards matches."""
    return re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """Return filepath.Match of the pattern for one path component. Raise BadPattern."""
    start = Automaton([glob_items(pattern)]).start
    return lambda name: bool(start.after(name).hits)


def glob_items(pattern: str) -> list[Item]:
    """Return a pattern as filepath.Match reads it. Raise BadPattern where Go has ErrBadPattern."""
    items: list[Item] = []
    at = 0
    while at < len(pattern):
        match = re.compile(_GLOB_ITEM, re.DOTALL).match(pattern, at)
        if match is None:
            raise BadPattern(pattern, SYNTAX_ERROR)
        at = match.end()
        negation, members, escaped = match.groups()
        if members:
            ends = re.findall(_GLOB_SPAN, members, re.DOTALL)
            spans = tuple((low[-1], high[-1] if high else low[-1]) for low, high in ends)
            items.append(complement(spans) if negation else Chars(spans))
        elif match[0] == "*":
            items.append(Star(NO_SLASH))
        elif match[0] == "?":
            items.append(NO_SLASH)
        else:
            items.append(escaped or match[0])
    return items


_GLOB_CHAR = r"\\.|[^\\\]-]"
_GLOB_SPAN = rf"({_GLOB_CHAR})(?:-({_GLOB_CHAR}))?"
_GLOB_ITEM = rf"\[(\^?+)((?:(?:{_GLOB_CHAR})(?:-(?:{_GLOB_CHAR}))?)+)\]|\\(.)|[^\\\[]"


def _spans(text: str) -> tuple[Span, ...]:
    """Return a span for each pair of characters."""
    return tuple(zip(text[::2], text[1::2], strict=True))


_DIGITS = _spans("09")
_SPACES = _spans("\t\n\f\r  ")
_NAMED = {
    "alnum": _spans("09AZaz"),
    "alpha": _spans("AZaz"),
    "ascii": _spans("\0\x7f"),
    "blank": _spans("\t\t  "),
    "cntrl": _spans("\0\x1f\x7f\x7f"),
    "digit": _DIGITS,
    "graph": _spans("!~"),
    "lower": _spans("az"),
    "print": _spans(" ~"),
    "punct": _spans("!/:@[`{~"),
    "space": _spans("\t\r  "),
    "upper": _spans("AZ"),
    "word": WORD.spans,
    "xdigit": _spans("09AFaf"),
}
_ESCAPED: dict[str, Item] = {
    "A": Edge.BEGIN,
    "B": Edge.NO_WORD,
    "D": complement(_DIGITS),
    "S": complement(_SPACES),
    "W": complement(WORD.spans),
    "a": "\a",
    "b": Edge.WORD,
    "d": Chars(_DIGITS),
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "s": Chars(_SPACES),
    "t": "\t",
    "v": "\v",
    "w": WORD,
    "z": Edge.END,
}


def regex_items(regex: str, pattern: str) -> list[Item]:
    """Return the items of a regular expression that patternmatcher made from a pattern.

    It consists of characters, classes, starred classes, escapes, `(.*/)?`, `.*` and `^`. Raise
    BadPattern if Go refuses it, or if it has an octal, hexadecimal or Unicode escape.
    """
    return _Regex(regex, pattern).items()


class _Regex:
    def __init__(self, regex: str, pattern: str) -> None:
        self._regex = regex
        self._pattern = pattern
        self._at = 0

    def items(self) -> list[Item]:
        items: list[Item] = []
        while self._at < len(self._regex):
            char = self._take()
            if char == "[":
                chars = self._class()
                items.append(Star(chars) if self._skips("*") else chars)
            elif char == "\\":
                items.append(self._escape())
            elif char == "(":
                self._skips(".*/)?")
                items.append(Directories(NO_NEWLINE))
            elif char == ".":
                self._skips("*")
                items.append(Star(NO_NEWLINE))
            else:
                items.append(Edge.BEGIN if char == "^" else char)
        return items

    def _take(self) -> str:
        if self._at == len(self._regex):
            raise self._bad()
        self._at += 1
        return self._regex[self._at - 1]

    def _sees(self, text: str) -> bool:
        return self._regex.startswith(text, self._at)

    def _skips(self, text: str) -> bool:
        is_seen = self._sees(text)
        self._at += len(text) * is_seen
        return is_seen

    def _bad(self) -> BadPattern:
        return BadPattern(self._pattern, SYNTAX_ERROR)

    def _escape(self) -> Item:
        char = self._take()
        if char in _ESCAPED:
            return _ESCAPED[char]
        if not char.isascii() or char.isalnum():
            raise self._bad()
        return char

    def _class(self) -> Chars:
        is_negated = self._skips("^")
        spans: list[Span] = []
        is_first = True
        while is_first or not self._skips("]"):
            spans += self._member()
            is_first = False
        return complement(spans) if is_negated else Chars(tuple(spans))

    def _member(self) -> tuple[Span, ...]:
        if self._sees("[:") and (end := self._regex.find(":]", self._at)) > 0:
            name = self._regex[self._at + 2 : end]
            self._at = end + 2
            if name not in _NAMED:
                raise self._bad()
            return _NAMED[name]
        low = self._atom()
        if isinstance(low, Chars):
            return low.spans
        high = low
        if self._sees("-") and not self._sees("-]"):
            self._at += 1
            end_of_span = self._atom()
            if isinstance(end_of_span, Chars) or end_of_span < low:
                raise self._bad()
            high = end_of_span
        return ((low, high),)

    def _atom(self) -> str | Chars:
        char = self._take()
        if char != "\\":
            return char
        item = self._escape()
        if isinstance(item, str | Chars):
            return item
        raise self._bad()
