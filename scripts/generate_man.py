"""Generates docs/kitcache.1, the manual page, from the parsers that print --help.

python scripts/generate_man.py [FILE]    to another file: to compare
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from kitcache import __version__
from kitcache.cli.main import COMMANDS, make_parser

PAGE = Path(__file__).resolve().parent.parent / "docs" / "kitcache.1"
_ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "~": r"\(ti", "^": r"\(ha"}
_CODES = "exit codes:"


def make_page() -> str:
    parser = make_parser(None)
    (commands,) = (action for action in parser._actions if action.dest == "command")
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
        *_paragraphs(parser.description or ""),
        *_epilog(parser.epilog or ""),
        ".SH COMMANDS",
    ]
    for name, text in COMMANDS.items():
        lines += [f".SS {_escape(name)}", *_command(commands.choices[name], name, text)]
    lines += [".SH EXIT STATUS", *_exit_codes(parser.epilog or "")]
    lines += [".SH SEE ALSO", r"docker(1), docker\-buildx\-build(1), buildctl(1)"]
    return "\n".join(lines) + "\n"


def _command(parser: argparse.ArgumentParser, name: str, text: str) -> Iterator[str]:
    places = [action for action in parser._actions if not action.option_strings]
    yield _escape(f"{text[0].upper()}{text[1:]}.")
    yield ".PP"
    yield f".B kitcache {_escape(name)}"
    yield _escape(_words_of(parser) or " ".join(["[OPTIONS]", *map(_usage, places)]))
    yield ".PP"
    yield from _paragraphs(parser.description or "")
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        shown = [
            a for a in group._group_actions if a.help != argparse.SUPPRESS and a.dest != "help"
        ]
        if shown:
            yield ".PP"
            yield f"{_escape(str(group.title).capitalize())}:"
        for action in shown:
            yield ".TP"
            yield _head(action)
            yield _escape(formatter._expand_help(action))
    yield from _epilog(parser.epilog or "")


def _words_of(parser: argparse.ArgumentParser) -> str:
    """What a usage line that is written by hand has behind `kitcache COMMAND`; "" without one."""
    return " ".join((parser.usage or "").removeprefix("%(prog)s").removeprefix(parser.prog).split())


def _usage(action: argparse.Action) -> str:
    name = str(action.metavar)
    return {"+": f"{name} [{name} ...]", "?": f"[{name}]"}.get(str(action.nargs), name)


def _head(action: argparse.Action) -> str:
    """What an option is called, and its value."""
    if not action.option_strings:
        return rf"\fI{_escape(str(action.metavar))}\fR"
    names = ", ".join(rf"\fB{_escape(word)}\fR" for word in action.option_strings)
    return names if action.nargs == 0 else rf"{names} \fI{_escape(str(action.metavar))}\fR"


def _epilog(text: str) -> Iterator[str]:
    """The paragraphs below the options; lines of examples stay as they are."""
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
    """Text that troff prints as it is."""
    escaped = "".join(
        _ESCAPES.get(char, char if char.isascii() else rf"\[u{ord(char):04X}]") for char in text
    )
    # A long list of attributes may go on in the next line.
    escaped = re.sub(r",(?=\S)", r",\:", escaped)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(make_page())
