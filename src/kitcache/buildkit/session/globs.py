"""Go's pattern languages in Python's: filepath.Match, and the regular expressions built from it.

Source: Go, path/filepath/match.go and regexp/syntax; RE2's syntax page.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from kitcache.errors import printable


class BadPattern(ValueError):
    """A pattern that cannot be understood. pattern: as it was given, problem: one clause."""

    def __init__(self, pattern: str, problem: str) -> None:
        super().__init__(pattern, problem)
        self.pattern = pattern
        self.problem = problem

    def __str__(self) -> str:
        return f'pattern "{printable(self.pattern)}" cannot be used: {self.problem}'


SYNTAX_ERROR = "syntax error in pattern"


def has_wildcard(name: str) -> bool:
    """Whether filepath.Match would match more than one name."""
    return bool(_WILDCARD.search(name))


_WILDCARD = re.compile(r"(?:^|[^\\])(?:\\\\)*[*?\[]")


def escape(name: str) -> str:
    """A pattern that matches that name alone."""
    return re.sub(r"[*?\[\]\\]", r"\\\g<0>", name)


def unescape(pattern: str) -> str:
    """The only name that a pattern without wildcards matches."""
    return re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)


def check_glob(pattern: str) -> None:
    """Raises BadPattern where filepath.Match would say ErrBadPattern."""
    _glob_to_regex(pattern)


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """Whether filepath.Match takes a name (no path: one component). Raises BadPattern."""
    match = re.compile(_glob_to_regex(pattern), re.DOTALL).fullmatch
    return lambda name: match(name) is not None


def _glob_to_regex(pattern: str) -> str:
    parts = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif char == "[":
            text, at = _glob_class(pattern, at)
            parts.append(text)
        else:
            if char == "\\":
                char, at = _glob_char(pattern, at - 1)
            parts.append(re.escape(char))
    return "".join(parts)


def _glob_class(pattern: str, at: int) -> tuple[str, int]:
    """at: behind the opening bracket."""
    is_negated = pattern.startswith("^", at)
    at += is_negated
    spans: list[str] = []
    count = 0
    while not (count and pattern.startswith("]", at)):
        low, at = _class_end(pattern, at)
        high = low
        if pattern[at] == "-":
            high, at = _class_end(pattern, at + 1)
        # A span that runs backwards is legal, and empty.
        if low <= high:
            spans.append(f"{_quote(low)}-{_quote(high)}")
        count += 1
    if not spans:
        return ("." if is_negated else "(?!)"), at + 1
    return f"[{'^' * is_negated}{''.join(spans)}]", at + 1


def _class_end(pattern: str, at: int) -> tuple[str, int]:
    """One end of a span; something has to follow, at least the closing bracket."""
    if pattern[at : at + 1] in ("", "-", "]"):
        raise BadPattern(pattern, SYNTAX_ERROR)
    char, at = _glob_char(pattern, at)
    if at == len(pattern):
        raise BadPattern(pattern, SYNTAX_ERROR)
    return char, at


def _glob_char(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\":
        at += 1
        if at == len(pattern):
            raise BadPattern(pattern, SYNTAX_ERROR)
    return pattern[at], at + 1


def _quote(char: str) -> str:
    return "\\" + char if char.isascii() and not char.isalnum() else char


# What a backslash and a letter mean in both languages alike (with re.ASCII), and where they differ.
_SAME = frozenset("dDsSwWbBAafnrtv")
_OTHER = {"z": r"\Z"}
_NAMED = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


def to_python(regex: str, pattern: str) -> str:
    """A regular expression of Go's that was made from a pattern, for Python's re.

    Raises BadPattern (naming the pattern) for what Go refuses, and for the few escapes that only
    Go knows (octal, hexadecimal and Unicode ones).
    """
    return _Translation(regex, pattern).run()


class _Atom(NamedTuple):
    """Part of a class. char: None where it is a set of its own and no end of a span."""

    text: str
    char: str | None


class _Translation:
    def __init__(self, regex: str, pattern: str) -> None:
        self._regex = regex
        self._pattern = pattern
        self._at = 0

    def run(self) -> str:
        parts = []
        while self._at < len(self._regex):
            char = self._take()
            if char == "[":
                parts.append(self._class())
            elif char == "\\":
                parts.append(self._escape().text)
            else:
                parts.append("\\]" if char == "]" else char)
        return "".join(parts)

    def _take(self) -> str:
        if self._at == len(self._regex):
            raise self._bad()
        self._at += 1
        return self._regex[self._at - 1]

    def _sees(self, text: str) -> bool:
        return self._regex.startswith(text, self._at)

    def _bad(self) -> BadPattern:
        return BadPattern(self._pattern, SYNTAX_ERROR)

    def _escape(self) -> _Atom:
        char = self._take()
        if char in _SAME:
            return _Atom("\\" + char, None)
        if char in _OTHER:
            return _Atom(_OTHER[char], None)
        if not char.isascii() or char.isalnum():
            raise self._bad()
        return _Atom("\\" + char, char)

    def _class(self) -> str:
        is_negated = self._sees("^")
        self._at += is_negated
        parts: list[str] = []
        while not (parts and self._sees("]")):
            parts.append(self._member())
        self._at += 1
        return f"[{'^' * is_negated}{''.join(parts)}]"

    def _member(self) -> str:
        if self._sees("[:") and (end := self._regex.find(":]", self._at)) > 0:
            name = self._regex[self._at + 2 : end]
            self._at = end + 2
            if name not in _NAMED:
                raise self._bad()
            return _NAMED[name]
        low = self._atom()
        if low.char is None or not self._sees("-") or self._sees("-]"):
            return low.text
        self._at += 1
        high = self._atom()
        if high.char is None or high.char < low.char:
            raise self._bad()
        return f"{low.text}-{high.text}"

    def _atom(self) -> _Atom:
        char = self._take()
        if char != "\\":
            return _Atom(_quote(char), char)
        found = self._escape()
        if found.text in (r"\b", r"\B", r"\A", r"\Z"):
            raise self._bad()
        return found
