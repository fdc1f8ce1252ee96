"""Generate docs/kitcache.1, the manual page, from the declarations that --help prints.

python scripts/generate_man.py [FILE]    write another file, to compare
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from kitcache import __version__
from kitcache.cli.options import Argument
from kitcache.cli.parser import COMMANDS, DESCRIPTION, EPILOG, load_command

PAGE = Path(__file__).resolve().parent.parent / "docs" / "kitcache.1"
_ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "~": r"\(ti", "^": r"\(ha"}
_CODES = "exit codes:"


def make_page() -> str:
    lines = [
        '.\\" Made by scripts/generate_man.py of what kitcache --help says.',
        f'.TH KITCACHE 1 "" "kitcache {__version__}" "User Commands"',
        ".nh",
        ".ad l",
        ".ds AD l",
        ".SH NAME",
        r"kitcache \- BuildKit from Python, with caches that do not grow",
        ".SH SYNOPSIS",
        ".B kitcache",
        ".I COMMAND",
        "[OPTIONS] ...",
        ".SH DESCRIPTION",
        *_paragraphs(DESCRIPTION),
        *_epilog(EPILOG),
        ".SH COMMANDS",
    ]
    for name, text in COMMANDS.items():
        lines += [f".SS {_escape(name)}", *_command(name, text)]
    lines += [".SH EXIT STATUS", *_exit_codes(EPILOG)]
    lines += [".SH SEE ALSO", r"docker(1), docker\-buildx\-build(1), buildctl(1)"]
    return "\n".join(lines) + "\n"


def _command(name: str, text: str) -> Iterator[str]:
    command = load_command(name).COMMAND
    shown = [each for each in command.arguments if each.help]
    positionals = [_usage(each) for each in shown if not each.is_option]
    yield _escape(f"{text[0].upper()}{text[1:]}.")
    yield ".PP"
    yield f".B kitcache {_escape(name)}"
    yield _escape(command.usage or " ".join(["[OPTIONS]", *positionals]))
    yield ".PP"
    yield from _paragraphs(command.description)
    for title in ("positional arguments", "options", *dict.fromkeys(each.group for each in shown)):
        arguments = [each for each in shown if _title(each) == title]
        if arguments:
            yield ".PP"
            yield f"{_escape(title.capitalize())}:"
        for each in arguments:
            yield ".TP"
            yield _head(each)
            yield _escape(each.help)
    yield from _epilog(command.epilog)


def _title(argument: Argument) -> str:
    return argument.group or ("options" if argument.is_option else "positional arguments")


def _usage(argument: Argument) -> str:
    name = argument.keywords["metavar"]
    return {"+": f"{name} [{name} ...]", "?": f"[{name}]"}.get(argument.nargs or "", name)


def _head(argument: Argument) -> str:
    """Return the spellings of an option and its value, or the name of a positional argument."""
    names = ", ".join(rf"\fB{_escape(name)}\fR" for name in argument.names if argument.is_option)
    metavar = argument.keywords.get("metavar")
    return " ".join(filter(None, (names, metavar and rf"\fI{_escape(metavar)}\fR")))


def _epilog(text: str) -> Iterator[str]:
    """Yield the paragraphs below the options; lines of examples are not joined."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(_CODES):
            continue
        yield ".PP"
        head, _, rest = paragraph.partition("\n")
        if head.endswith(":") and rest:
            yield _escape(head.capitalize())
            yield from (".PP", ".RS 2", ".nf")
            yield from (_escape(line.removeprefix("  ")) for line in rest.splitlines())
            yield from (".fi", ".RE")
        else:
            yield from _paragraphs(paragraph)


def _exit_codes(text: str) -> Iterator[str]:
    (paragraph,) = (p for p in text.split("\n\n") if p.startswith(_CODES))
    for code in " ".join(paragraph.removeprefix(_CODES).split()).split(", "):
        number, _, meaning = code.partition(" ")
        yield from (".TP", rf"\fB{number}\fR", _escape(meaning))


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield from (_escape(line) for line in paragraph.splitlines())


def _escape(text: str) -> str:
    """Return text that troff prints as it is."""
    escaped = "".join(
        _ESCAPES.get(char, char if char.isascii() else rf"\[u{ord(char):04X}]") for char in text
    )
    # A long list of attributes may continue in the next line.
    escaped = re.sub(r",(?=\S)", r",\:", escaped)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(make_page())
