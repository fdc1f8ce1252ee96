"""What can stand where a shell's cursor is: words, tags of a cache, files, or another command's.

Shells ask with `kitcache __complete SHELL WORDS…`; the last word is the unfinished one. The answer
is a line that says what to complete, then one candidate per line. It never is an error.
"""

import argparse
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from kitcache.cli.main import COMMANDS, make_parser
from kitcache.cli.terminal import print_stdout
from kitcache.errors import KitcacheError

CandidateKind = Literal["words", "files", "dirs", "command"]

_GLOBAL = {"--help": "show the help and exit", "--version": "show the version and exit"}
_TAGS_SHOWN = 1000


class Candidate(NamedTuple):
    """A word that can stand there, and what it means; "" if there is nothing to say."""

    word: str
    meaning: str = ""


class Completion(NamedTuple):
    """What can stand there. kind: words are the candidates; files and dirs are the shell's to list.

    command: the words are those of another command, which begins at the word of number `start`.
    prefix: of the unfinished word, what is not to be completed, such as --policy=.
    """

    kind: CandidateKind
    candidates: tuple[Candidate, ...] = ()
    start: int = 0
    prefix: str = ""


def run(words: Sequence[str]) -> int:
    """Answer a shell."""
    shell, *rest = words or ("",)
    with suppress(Exception):  # an error would be in the way of what is being typed
        print_stdout("\n".join(_SHELLS.get(shell, _answer_plain)(rest)))
    return 0


def complete(words: Sequence[str]) -> Completion:
    """What can stand in place of the last of these words, which follow `kitcache`."""
    *before, last = words or ("",)
    if not before:
        offers = _GLOBAL if last.startswith("-") else COMMANDS
        return _choose((Candidate(*item) for item in offers.items()), last)
    if before[0] == "help" and len(before) == 1:
        return _choose((Candidate(*item) for item in COMMANDS.items()), last)
    if before[0] not in COMMANDS:
        return Completion("words")
    line = _Line(_parser_of(before[0]))
    for number, word in enumerate(before[1:], start=1):
        if line.begins_command(word):
            return Completion("command", start=number + (word == "--"))
        line.read(word)
    if last != "--" and line.begins_command(last):
        return Completion("command", start=len(before))
    return line.complete(last)


def _parser_of(command: str) -> argparse.ArgumentParser:
    (action,) = (a for a in make_parser(command)._actions if a.dest == "command")  # noqa: SLF001
    parser: argparse.ArgumentParser = action.choices[command]  # type: ignore[index]
    return parser


def _choose(offers: Iterator[Candidate], begun: str) -> Completion:
    return Completion("words", tuple(offer for offer in offers if offer.word.startswith(begun)))


class _Line:
    """The words of a command as far as they were read."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._options = parser._option_string_actions  # noqa: SLF001
        self._places = [a for a in parser._actions if not a.option_strings]  # noqa: SLF001
        self._used: list[str] = []
        self._given: set[str] = set()
        self._waiting: argparse.Action | None = None
        self._has_ended = False

    def begins_command(self, word: str) -> bool:
        """Whether from here on the words are those of another command."""
        place = self._place()
        if place is None or place.nargs != argparse.REMAINDER or self._waiting is not None:
            return False
        return self._has_ended or word == "--" or not word.startswith("-")

    def read(self, word: str) -> None:
        """Take a word that is finished."""
        if self._waiting is not None:
            self._waiting = None
        elif word == "--" and not self._has_ended:
            self._has_ended = True
        elif word.startswith("-") and word != "-" and not self._has_ended:
            name, equals, _ = word.partition("=")
            action = self._options.get(name)
            if action is not None:
                self._given.add(action.dest)
                self._waiting = action if action.nargs is None and not equals else None
        else:
            self._used.append(word)

    def complete(self, last: str) -> Completion:
        """What can stand in place of the unfinished word."""
        name, equals, value = last.partition("=")
        if self._waiting is not None:
            return self._values(self._waiting, last)
        if last.startswith("-") and not self._has_ended:
            if equals and name in self._options:
                found = self._values(self._options[name], value)
                return found._replace(prefix=f"{name}=")
            return _choose(self._offer_options(), last)
        place = self._place()
        return Completion("words") if place is None else self._values(place, last)

    def _place(self) -> argparse.Action | None:
        """The argument that the next word is."""
        at = len(self._used)
        for number, place in enumerate(self._places):
            if number == at or place.nargs in ("+", argparse.REMAINDER):
                return place
        return None

    def _offer_options(self) -> Iterator[Candidate]:
        formatter = self._parser._get_formatter()  # noqa: SLF001
        for word, action in self._options.items():
            is_spent = action.dest in self._given and not _can_repeat(action)
            if action.help != argparse.SUPPRESS and not is_spent:
                yield Candidate(word, formatter._expand_help(action))  # noqa: SLF001

    def _values(self, action: argparse.Action, begun: str) -> Completion:
        if action.choices is not None:
            return _choose((Candidate(str(choice)) for choice in action.choices), begun)
        how = getattr(action, "complete", None)
        if how == "tags":
            return _choose((Candidate(tag) for tag in self._tags()), begun)
        return Completion(how or "words")

    def _tags(self) -> Iterator[str]:
        """The tags of the cache that was named first, without those that were named already."""
        if self._used:
            tags = _read_tags(os.path.expanduser(self._used[0]))
            yield from (tag for tag in tags if tag not in self._used[1:])


def _can_repeat(action: argparse.Action) -> bool:
    return isinstance(action, argparse._AppendAction)  # noqa: SLF001


def _read_tags(path: str) -> list[str]:
    """The tags of a cache, at most a thousand; none where they cannot be read."""
    from kitcache.store.index import parse_index, read_index  # noqa: PLC0415 - few words need tags
    from kitcache.store.open import open_store  # noqa: PLC0415

    with suppress(KitcacheError, OSError), open_store(path) as layout:
        names = [entry.ref_name for entry in parse_index(path, read_index(layout).data)]
        return [n for n in dict.fromkeys(names) if n and n.isprintable()][:_TAGS_SHOWN]
    return []


def _answer_plain(words: Sequence[str]) -> Iterator[str]:
    """For fish, and whoever takes whole words: WORD, a tab, what it means."""
    found = complete(words)
    yield _head(found)
    yield from (f"{found.prefix}{c.word}\t{c.meaning}".rstrip("\t") for c in found.candidates)


def _answer_zsh(words: Sequence[str]) -> Iterator[str]:
    """WORD:MEANING, as _describe takes it. zsh sets what stands before = aside itself."""
    found = complete(words)
    yield _head(found)
    for word, meaning in found.candidates:
        escaped = word.replace("\\", "\\\\").replace(":", "\\:")
        yield f"{escaped}:{meaning}" if meaning else escaped


def _answer_bash(words: Sequence[str]) -> Iterator[str]:
    """Words alone, quoted. bash splits words at = and : and replaces what stands behind."""
    joined, numbers = _join(words)
    typed = [_unquote(word) for word in joined]
    found = complete(typed)
    if found.kind == "command":
        found = found._replace(start=numbers[found.start])
    yield _head(found)
    last = typed[-1] if typed else ""
    cut = max(last.rfind("="), last.rfind(":")) + 1
    yield from (shlex.quote(f"{found.prefix}{c.word}"[cut:]) for c in found.candidates)


def _answer_tcsh(words: Sequence[str]) -> Iterator[str]:
    """Words alone, from the whole line; tcsh cannot say that it wants the names of files."""
    line = words[0] if words else ""
    typed = [_unquote(word) for word in line.split()[1:]]
    found = complete([*typed, ""] if line.endswith(" ") or not typed else typed)
    last = "" if line.endswith(" ") or not typed else typed[-1]
    if found.kind in ("files", "dirs"):
        yield from _list_paths(last.removeprefix(found.prefix), found)
    yield from (f"{found.prefix}{c.word}" for c in found.candidates if c.word.isascii())


def _list_paths(begun: str, found: Completion) -> Iterator[str]:
    folder, name = os.path.split(begun)
    with suppress(OSError):
        for entry in sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda e: e.name):
            is_hidden = entry.name.startswith(".") and not name.startswith(".")
            if entry.name.startswith(name) and not is_hidden:
                if entry.is_dir():
                    yield f"{found.prefix}{os.path.join(folder, entry.name)}/"
                elif found.kind == "files":
                    yield f"{found.prefix}{os.path.join(folder, entry.name)}"


def _head(found: Completion) -> str:
    return f"command {found.start}" if found.kind == "command" else found.kind


def _join(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """Words of bash as they were typed, for it makes words of = and :; and where each began."""
    joined: list[str] = []
    numbers: list[int] = []
    is_open = False
    for number, word in enumerate(words):
        is_break = word != "" and not word.strip("=:")
        if joined and (is_break or is_open):
            joined[-1] += word
        else:
            joined.append(word)
            numbers.append(number)
        is_open = is_break
    return joined, numbers


def _unquote(word: str) -> str:
    """What a shell makes of a word; of an unfinished quote what is there."""
    for ending in ("", "'", '"'):
        with suppress(ValueError):
            return "".join(shlex.split(word + ending)) if word else ""
    return word


_SHELLS: dict[str, Callable[[Sequence[str]], Iterator[str]]] = {
    "bash": _answer_bash,
    "zsh": _answer_zsh,
    "tcsh": _answer_tcsh,
}
