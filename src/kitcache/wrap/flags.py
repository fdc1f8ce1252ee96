"""Command lines as their own parsers read them: which word is an option, which its value.

docker and its plugins use pflag, buildctl Go's flag package. What an option is that no table
knows is never guessed: where it would matter, the command is refused.
Sources: spf13/pflag (parseLongArg, parseSingleShortArg), Go flag (parseOne).
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from kitcache.errors import UsageError
from kitcache.options.attributes import is_false


class NotUnderstood(UsageError):
    """It cannot be told from a command what it exports."""


class FlagTable(NamedTuple):
    """The options of one command. values: those that take one; flags: those that take none.

    short_values, short_flags: the same for single letters. is_go: one dash is as good as two, and
    letters do not gather.
    """

    values: frozenset[str]
    flags: frozenset[str]
    short_values: str = ""
    short_flags: str = ""
    is_go: bool = False


class Option(NamedTuple):
    """An option that was given. name: without dashes. value: None where it has none.

    at: the word that holds the value, or else the name; prefix: what comes before the value there;
    first: the word that holds the name.
    """

    name: str
    value: str | None
    first: int
    at: int
    prefix: str = ""


def is_flag_set(options: Iterable[Option], names: Collection[str]) -> bool:
    """Whether one of these is given, and not with a value that makes a build of it after all."""
    off = ("", "build")
    return any(o.name in names and o.value not in off and not is_false(o.value or "true")
               for o in options)  # fmt: skip


class ParsedArgs(NamedTuple):
    """What was read. positionals: which words are arguments. end: the first word not looked at."""

    options: tuple[Option, ...]
    positionals: tuple[int, ...]
    end: int


def read_line(
    words: Sequence[str],
    start: int,
    table: FlagTable,
    *,
    watched: Collection[str] = (),
    stops_at_argument: bool = False,
) -> ParsedArgs:
    """The options and arguments from a word on.

    stops_at_argument: end before the first argument. watched: options that must not be missed.
    Raises NotUnderstood where an unknown option stands before a word that may be one of them, or
    its value, and, with stops_at_argument, wherever its value may be taken for an argument.
    """
    options: list[Option] = []
    positionals: list[int] = []
    at = start
    while at < len(words):
        word = words[at]
        if word == "--":
            if stops_at_argument:
                break
            positionals += range(at + 1, len(words))
            at = len(words)
            break
        if len(word) < 2 or word[0] != "-":
            if stops_at_argument:
                break
            positionals.append(at)
            at += 1
            continue
        is_long = table.is_go or word.startswith("--")
        option = (_read_long if is_long else _read_short)(words, at, table)
        if option is None:
            _check_unknown(words, at, watched, is_strict=stops_at_argument)
            at += 1
            continue
        options.append(option)
        at = option.at + 1
    return ParsedArgs(tuple(options), tuple(positionals), at)


def _read_long(words: Sequence[str], at: int, table: FlagTable) -> Option | None:
    dashes = "--" if words[at].startswith("--") else "-"
    name, equals, value = words[at].removeprefix(dashes).partition("=")
    if name not in table.values and name not in table.flags and not _is_letter(name, table):
        return Option(name, value, at, at, f"{dashes}{name}=") if equals else None
    if equals:
        return Option(name, value, at, at, f"{dashes}{name}=")
    if name in table.flags or name in table.short_flags:
        return Option(name, None, at, at)
    return _with_next(words, name, at)


def _is_letter(name: str, table: FlagTable) -> bool:
    return table.is_go and len(name) == 1 and name in table.short_values + table.short_flags


def _read_short(words: Sequence[str], at: int, table: FlagTable) -> Option | None:
    """The option that a group of letters ends with; None where a letter is unknown."""
    word = words[at]
    for n, letter in enumerate(word[1:], start=1):
        rest = word[n + 1 :]
        if letter in table.short_values:
            if not rest:
                return _with_next(words, letter, at)
            value = rest.removeprefix("=")
            return Option(letter, value, at, at, word[: len(word) - len(value)])
        if letter not in table.short_flags:
            return None
        if rest.startswith("="):
            return Option(letter, rest[1:], at, at, word[: n + 2])
    return Option(word[-1], None, at, at)


def _with_next(words: Sequence[str], name: str, at: int) -> Option:
    if at + 1 >= len(words):
        return Option(name, None, at, at)  # the client will say so
    return Option(name, words[at + 1], at, at + 1)


def _check_unknown(
    words: Sequence[str], at: int, watched: Collection[str], *, is_strict: bool
) -> None:
    following = words[at + 1] if at + 1 < len(words) else ""
    name = following.lstrip("-").partition("=")[0]
    matters = following.startswith("-") and (name in watched or following == "--")
    if is_strict or matters:
        raise NotUnderstood(
            f"cannot tell whether the option {words[at]} takes a value, and {following!r} follows",
            hints=(f"write {words[at]}=VALUE, or put it behind the others",),
        )
