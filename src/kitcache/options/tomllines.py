"""Where in a TOML document a key stands, which tomllib does not tell.

Source: TOML 1.0. It looks at documents that tomllib has read, and at what starts a statement only:
a key within an inline table has the line of the statement.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping

Path = tuple[str | int, ...]
"""Keys from the top down; a number is a place in an array of tables: ("rule", 0, "keep-last")."""

_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'"
    r"|#[^\n]*"
    r"|[][{},.=\n]"
    r"|[^\s\"'#\[\]{},.=]+",
    re.DOTALL,
)


def find_lines(text: str) -> dict[Path, int]:
    """The line, from 1, of each table's header and of each key that starts a statement."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for line, tokens in _statements(text):
        if tokens[0] == "[":
            table = _resolve((), _words(tokens), counts)
            if tokens[1] == "[":
                counts[table] = counts.get(table, -1) + 1
                lines.setdefault(table, line)
                table = (*table, counts[table])
            lines.setdefault(table, line)
            continue
        path = table
        for word in _words(tokens[: tokens.index("=")]):
            path = (*path, word)
            lines.setdefault(path, line)
    return lines


def line_of(path: Path, lines: Mapping[Path, int]) -> int | None:
    """The line of that key; where it is not known, of the nearest table around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Headers and assignments, each with the line on which it starts."""
    line, at, depth, start = 1, 0, 0, 1
    tokens: list[str] = []
    for match in _TOKEN.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        word = match[0]
        if word == "\n" and depth == 0 and tokens:
            yield start, tokens
            tokens = []
        if word == "\n" or word.startswith("#"):
            continue
        if not tokens:
            start = line
        depth += (word in ("[", "{")) - (word in ("]", "}"))
        tokens.append(word)
    if tokens:
        yield start, tokens


def _words(tokens: list[str]) -> list[str]:
    """The keys of a dotted key, unquoted."""
    return [
        tomllib.loads(f"key = {token}")["key"] if token[0] in "\"'" else token
        for token in tokens
        if token not in ("[", "]", ".")
    ]


def _resolve(path: Path, words: list[str], counts: Mapping[Path, int]) -> Path:
    """The path of a header: in an array of tables its words lead on from the last one so far."""
    for word in words:
        if path in counts:
            path = (*path, counts[path])
        path = (*path, word)
    return path
