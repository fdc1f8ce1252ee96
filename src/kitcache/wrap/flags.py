"""Reads a command line as its own parser does, into options, values and arguments.

docker and its plugins use pflag, buildctl Go's flag package. If an unknown option could hide a
watched option, the command is refused.
Sources: spf13/pflag (parseLongArg, parseSingleShortArg), Go flag (parseOne).
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from kitcache.errors import UsageError
from kitcache.options.attributes import is_false


class NotUnderstood(UsageError):
    """The exports of a command are unknown."""


class FlagTable(NamedTuple):
    """The options of one command.

    Attributes:
        values: Options with a value.
        flags: Options without a value.
        short_values, short_flags: The same for single letters.
        is_go: True for Go's flag package: "-" means "--", and letters cannot be combined.
    """

    values: frozenset[str]
    flags: frozenset[str]
    short_values: str = ""
    short_flags: str = ""
    is_go: bool = False


class Option(NamedTuple):
    """An option on a command line.

    Attributes:
        name: Without dashes.
        value: None for an option without a value.
        first: The position of the word with the name.
        at: The position of the word with the value, or with the name if there is no value.
        prefix: The part of that word before the value.
    """

    name: str
    value: str | None
    first: int
    at: int
    prefix: str = ""

    @property
    def positions(self) -> range:
        """The positions of its words."""
        return range(self.first, self.at + 1)


def option_values(options: Iterable[Option], *names: str) -> list[str]:
    """Return the values of these options, "" for an option without a value."""
    return [option.value or "" for option in options if option.name in names]


def is_flag_set(options: Iterable[Option], names: Collection[str]) -> bool:
    """Return True if one of these is set to a value other than false and "build"."""
    off = ("", "build")
    return any(o.name in names and o.value not in off and not is_false(o.value or "true")
               for o in options)  # fmt: skip


class ParsedArgs(NamedTuple):
    """A parsed command line.

    Attributes:
        positionals: The positions of the arguments.
        end: The position of the first word that was not read.
    """

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
    """Parse the options and arguments from position `start` on.

    Args:
        watched: Options that must not be overlooked.
        stops_at_argument: Stop before the first argument.

    Raises:
        NotUnderstood: An unknown option precedes a word that may be its value or a watched option.
            With stops_at_argument: There is an unknown option.
    """
    options: list[Option] = []
    positionals: list[int] = []
    at = start
    while at < len(words):
        word = words[at]
        is_option = len(word) > 1 and word[0] == "-"
        if stops_at_argument and (word == "--" or not is_option):
            break
        if word == "--":
            positionals += range(at + 1, len(words))
            at = len(words)
        elif not is_option:
            positionals.append(at)
            at += 1
        else:
            is_long = table.is_go or word.startswith("--")
            option = (_read_long if is_long else _read_short)(words, at, table)
            if option is None:
                _check_unknown(words, at, watched, is_strict=stops_at_argument)
            else:
                options.append(option)
                at = option.at
            at += 1
    return ParsedArgs(tuple(options), tuple(positionals), at)


def _read_long(words: Sequence[str], at: int, table: FlagTable) -> Option | None:
    dashes = "--" if words[at].startswith("--") else "-"
    name, equals, value = words[at].removeprefix(dashes).partition("=")
    is_letter = table.is_go and len(name) == 1
    if equals:
        return Option(name, value, at, at, f"{dashes}{name}=")
    if name in table.flags or (is_letter and name in table.short_flags):
        return Option(name, None, at, at)
    if name in table.values or (is_letter and name in table.short_values):
        return _with_next_word(words, name, at)
    return None


def _read_short(words: Sequence[str], at: int, table: FlagTable) -> Option | None:
    """Return the option at the end of a group of letters; None if a letter is unknown."""
    word = words[at]
    for n, letter in enumerate(word[1:], start=1):
        rest = word[n + 1 :]
        if letter in table.short_values:
            if not rest:
                return _with_next_word(words, letter, at)
            value = rest.removeprefix("=")
            return Option(letter, value, at, at, word[: len(word) - len(value)])
        if letter not in table.short_flags:
            return None
        if rest.startswith("="):
            return Option(letter, rest[1:], at, at, word[: n + 2])
    return Option(word[-1], None, at, at)


def _with_next_word(words: Sequence[str], name: str, at: int) -> Option:
    if at + 1 >= len(words):
        return Option(name, None, at, at)  # The client will report it.
    return Option(name, words[at + 1], at, at + 1)


def _check_unknown(
    words: Sequence[str], at: int, watched: Collection[str], *, is_strict: bool
) -> None:
    following = words[at + 1] if at + 1 < len(words) else ""
    name = following.lstrip("-").partition("=")[0]
    matters = following.startswith("-") and (name in watched or following == "--")
    if is_strict or matters:
        raise NotUnderstood(
            f"unknown option {words[at]}: it may take the next word, {following!r}, as its value",
            hints=(f"write {words[at]}=VALUE, or put it after the others",),
        )
