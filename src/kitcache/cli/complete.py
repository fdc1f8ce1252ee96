"""Shell completion: candidates for the word at the cursor.

Shells run `kitcache __complete SHELL WORDS…`; the last word is unfinished. The output is a line
with the kind of completion, then one candidate per line. Errors are not printed.
"""

import os
import shlex
from argparse import REMAINDER
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from kitcache.cli.options import HELP, Argument
from kitcache.cli.parser import COMMANDS, VERSION, load_command
from kitcache.cli.terminal import print_stdout
from kitcache.errors import KitcacheError

Kind = Literal["words", "files", "dirs", "command"]

_MAX_TAGS = 1000


class Candidate(NamedTuple):
    """A word that can follow, and its meaning, which can be ""."""

    word: str
    meaning: str = ""


class Completion(NamedTuple):
    """The completion of a word.

    Attributes:
        kind: `words`: `candidates` has them. `files`, `dirs`: the shell lists them. `command`: the
            words from number `start` on are another command, which the shell completes.
        prefix: The part of the word before the completed value, such as --policy=.
    """

    kind: Kind
    candidates: tuple[Candidate, ...] = ()
    start: int = 0
    prefix: str = ""


def run(words: Sequence[str]) -> int:
    """Answer a shell: its name, then the words that follow `kitcache`."""
    shell, *typed = words or ("",)
    with suppress(Exception):  # An error message would disturb the user's command line.
        print_stdout("\n".join(_SHELLS.get(shell, _answer_fish)(typed)))
    return 0


def complete(words: Sequence[str]) -> Completion:
    """Complete the last of these words, which follow `kitcache`."""
    *before, last = words or ("",)
    if not before and last.startswith("-"):
        return _choose(_spellings((HELP, VERSION)), last)
    if before in ([], ["help"]):
        return _choose(COMMANDS.items(), last)
    if before[0] not in COMMANDS:
        return Completion("words")
    line = _Line((HELP, *load_command(before[0]).COMMAND.arguments))
    for number, word in enumerate(before[1:], start=1):
        if line.begins_command(word):
            return Completion("command", start=number + (word == "--"))
        line.read(word)
    if last != "--" and line.begins_command(last):
        return Completion("command", start=len(before))
    return line.complete(last)


def _choose(offers: Iterable[tuple[str, str]], begun: str) -> Completion:
    candidates = (Candidate(*offer) for offer in offers if offer[0].startswith(begun))
    return Completion("words", tuple(candidates))


def _spellings(arguments: Iterable[Argument]) -> Iterator[tuple[str, str]]:
    return ((name, each.help) for each in arguments for name in each.names if each.help)


class _Line:
    """The words of a command before the cursor."""

    def __init__(self, arguments: Sequence[Argument]) -> None:
        self._arguments = arguments
        self._options = {name: each for each in arguments for name in each.names if each.is_option}
        self._values: list[str] = []
        self._used: list[Argument] = []
        self._waiting: Argument | None = None
        self._is_after_dashes = False

    def begins_command(self, word: str) -> bool:
        """Return True if `word` and the words after it are those of another command."""
        positional = self._next_positional()
        if positional is None or positional.nargs != REMAINDER or self._waiting is not None:
            return False
        return self._is_after_dashes or word == "--" or not word.startswith("-")

    def read(self, word: str) -> None:
        """Add a complete word."""
        if self._waiting is not None:
            self._waiting = None
        elif word == "--" and not self._is_after_dashes:
            self._is_after_dashes = True
        elif word.startswith("-") and word != "-" and not self._is_after_dashes:
            name, equals, _ = word.partition("=")
            option = self._options.get(name)
            if option is not None:
                self._used.append(option)
                self._waiting = option if option.takes_value and not equals else None
        else:
            self._values.append(word)

    def complete(self, last: str) -> Completion:
        """Complete the unfinished word that follows."""
        if self._waiting is not None:
            return self._complete_value(self._waiting, last)
        if last.startswith("-") and not self._is_after_dashes:
            name, equals, value = last.partition("=")
            if equals and name in self._options:
                completion = self._complete_value(self._options[name], value)
                return completion._replace(prefix=f"{name}=")
            unused = (a for a in self._arguments if a.repeats or a not in self._used)
            return _choose(_spellings(a for a in unused if a.is_option), last)
        positional = self._next_positional()
        if positional is None:
            return Completion("words")
        return self._complete_value(positional, last)

    def _next_positional(self) -> Argument | None:
        positionals = (each for each in self._arguments if not each.is_option)
        for number, each in enumerate(positionals):
            if number == len(self._values) or each.nargs in ("+", REMAINDER):
                return each
        return None

    def _complete_value(self, argument: Argument, begun: str) -> Completion:
        if choices := argument.keywords.get("choices"):
            return _choose(((choice, "") for choice in choices), begun)
        if argument.completes != "tags":
            return Completion(argument.completes)
        path, *used = self._values or ("",)
        tags = _read_tags(os.path.expanduser(path)) if path else ()
        return _choose(((tag, "") for tag in tags if tag not in used), begun)


def _read_tags(path: str) -> list[str]:
    """Return at most a thousand tags of a cache, none if it cannot be read."""
    from kitcache.store.index import parse_index, read_index  # noqa: PLC0415 - few words need tags
    from kitcache.store.open import open_directory  # noqa: PLC0415

    with suppress(KitcacheError, OSError), open_directory(path) as layout:
        names = [entry.ref_name for entry in parse_index(path, read_index(layout).data)]
        return [n for n in dict.fromkeys(names) if n and n.isprintable()][:_MAX_TAGS]
    return []


def _answer_fish(typed: Sequence[str]) -> Iterator[str]:
    """Yield WORD, tab, MEANING for fish, or any other shell that takes complete words."""
    completion = complete(typed)
    yield _headline(completion)
    for word, meaning in completion.candidates:
        yield f"{completion.prefix}{word}\t{meaning}".rstrip("\t")


def _answer_zsh(typed: Sequence[str]) -> Iterator[str]:
    """Yield lines for _describe of zsh: WORD:MEANING. zsh itself removes the prefix before `=`."""
    completion = complete(typed)
    yield _headline(completion)
    for word, meaning in completion.candidates:
        escaped = word.replace("\\", "\\\\").replace(":", "\\:")
        yield f"{escaped}:{meaning}" if meaning else escaped


def _answer_bash(typed: Sequence[str]) -> Iterator[str]:
    """Yield quoted words for bash. It splits words at = and : and replaces only the last part."""
    joined, numbers = _join(typed)
    words = [_unquote(word) for word in joined]
    completion = complete(words)
    if completion.kind == "command":
        completion = completion._replace(start=numbers[completion.start])
    yield _headline(completion)
    last = words[-1] if words else ""
    cut = max(last.rfind("="), last.rfind(":")) + 1
    for word, _ in completion.candidates:
        yield shlex.quote(f"{completion.prefix}{word}"[cut:])


def _answer_tcsh(typed: Sequence[str]) -> Iterator[str]:
    """Yield words for tcsh, which passes the complete line and cannot list files itself."""
    line = typed[0] if typed else ""
    words = [_unquote(word) for word in line.split()[1:]]
    if line.endswith(" ") or not words:
        words.append("")
    completion = complete(words)
    if completion.kind in ("files", "dirs"):
        yield from _list_paths(words[-1].removeprefix(completion.prefix), completion)
    yield from (f"{completion.prefix}{word}" for word, _ in completion.candidates if word.isascii())


def _list_paths(begun: str, completion: Completion) -> Iterator[str]:
    folder, begun_name = os.path.split(begun)
    with suppress(OSError):
        for entry in sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda e: e.name):
            is_hidden = entry.name.startswith(".") and not begun_name.startswith(".")
            if not entry.name.startswith(begun_name) or is_hidden:
                continue
            if entry.is_dir() or completion.kind == "files":
                path = os.path.join(folder, entry.name) + "/" * entry.is_dir()
                yield completion.prefix + path


def _headline(completion: Completion) -> str:
    is_command = completion.kind == "command"
    return f"command {completion.start}" if is_command else completion.kind


def _join(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """Join the words that bash split at = and :. Return also the number of each first part."""
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
    """Return the word without its quotes, which may be unfinished."""
    for ending in ("", "'", '"'):
        with suppress(ValueError):
            return "".join(shlex.split(word + ending)) if word else ""
    return word


_SHELLS: dict[str, Callable[[Sequence[str]], Iterator[str]]] = {
    "bash": _answer_bash,
    "zsh": _answer_zsh,
    "tcsh": _answer_tcsh,
}
