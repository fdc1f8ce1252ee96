"""The command line: the commands, and an argparse parser for the requested command.

Only the module of that command is imported, so that kitcache starts fast.
"""

import argparse
import io
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from kitcache import __version__
from kitcache.cli.options import HELP, Argument, Command, argument
from kitcache.cli.terminal import print_stdout, terminal_width
from kitcache.errors import UsageError

PROGRAM = "kitcache"
COMMANDS = {
    "build": "build with BuildKit, export the cache, and sweep it",
    "exec": "run a build command of docker or buildctl, and sweep the caches that it exported",
    "reset": "delete every blob that no entry of index.json reaches",
    "prune": "remove tags by a policy, then delete the blobs that only they reached",
    "trim": "make a tag smaller: remove its least recently used steps",
    "du": "show the live and the reclaimable bytes, and the share of each tag",
    "ls": "list the tags of a cache, or the blobs of one tag",
    "why": "show which tags keep a blob, and by which path",
    "untag": "remove entries from index.json",
    "verify": "hash every blob, find tags that cannot be imported, repair them",
    "tag": "add a tag to an entry of index.json",
    "merge": "copy all tags of several caches into one",
    "copy": "copy tags between directories, S3 and Azure Blob Storage",
    "plugin": "install `docker kitcache`, or show whether it works",
    "completion": "print a completion script for a shell",
}
DESCRIPTION = """\
BuildKit from Python, with local caches (--cache-to type=local,dest=DIR) that do
not grow. build talks to a Docker Engine or to buildkitd. The other commands
need no daemon: they delete the blobs that no tag reaches, and show which blobs
are live and why, in caches of every BuildKit version in a directory, on S3 or
in Azure Blob Storage, and in any other OCI image layout."""
EPILOG = """\
examples:
  kitcache build --cache-to type=local,dest=cache,mode=max,reset=true .
  kitcache du ./cache               how much of it is reclaimable?
  kitcache reset --dry-run ./cache  what would be deleted?
  kitcache reset ./cache            delete the blobs that no tag reaches
  kitcache prune --max-used-space 5GB --keep-tag main ./cache
  kitcache COMMAND --help           more about one command

exit codes: 0 done, 1 failed, 2 usage, 3 done in part, 10 not a cache,
11 busy, 12 damaged, 13 unsafe, 14 limit not reached, 15 not confirmed,
20 no daemon, 21 build failed, 126 not executable, 127 not installed,
130 interrupted"""
VERSION = argument(
    "--version",
    "",
    "show the version and exit",
    action="version",
    version=f"kitcache {__version__}",
)

_CODES = "exit codes:\n  kitcache --help lists them"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hints=(f"{self.prog} --help",))


def load_command(name: str) -> ModuleType:
    """Import the module of a command: it has its Command, `COMMAND`, and `run`."""
    return import_module(f"kitcache.cli.commands.{name}")


def parse_words(words: Sequence[str], program: str = PROGRAM) -> argparse.Namespace | None:
    """Return the arguments of a command line, with its `command`; None if help was printed.

    Args:
        words: The command line without the program.
        program: The program as usage lines name it.

    Raises:
        UsageError: The words are not a command line of kitcache.
    """
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    name = words[0] if words else ""
    if name in COMMANDS:
        command: Command = load_command(name).COMMAND
        parser, known = make_parser(name, command, program), command.arguments
        words = command.rewrite(list(words[1:]))
    elif name.startswith("-"):
        parser, known, words = make_top_parser(program), (VERSION,), words[:1]
    else:
        meant = _guess(name, (*COMMANDS, *VERSION.names, *HELP.names))
        raise UsageError(f"unknown command {name!r}{meant}", hints=(f"{program} --help",))
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            args, unknown = parser.parse_known_args(words, argparse.Namespace(command=name))
    except SystemExit:  # After --help and --version. argparse itself ignores errors of stdout.
        print_stdout(printed.getvalue().rstrip("\n"))
        return None
    if unknown or name not in COMMANDS:
        parser.error(_describe_unknown(unknown or words, (HELP, *known)))
    return args


def make_top_parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """Return the parser of a command line without a command, for its help."""
    parser = _make_parser(program, Command(DESCRIPTION, EPILOG, (VERSION,)), program)
    commands = parser.add_subparsers(prog=program, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser


def make_parser(name: str, command: Command, program: str = PROGRAM) -> argparse.ArgumentParser:
    """Return the parser of one command."""
    epilog = f"{command.epilog}\n\n{_CODES}"
    return _make_parser(f"{program} {name}", command._replace(epilog=epilog), program)


def _make_parser(prog: str, command: Command, program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog,
        usage=f"%(prog)s {command.usage}" if command.usage else None,
        description=command.description,
        epilog=command.epilog.replace(f"\n  {PROGRAM} ", f"\n  {program} "),
        # Without a width argparse imports shutil, which makes the start slower.
        formatter_class=partial(
            argparse.RawDescriptionHelpFormatter,
            max_help_position=22,
            width=terminal_width() - 2,
        ),
        allow_abbrev=False,
        add_help=False,
    )
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    for names, text, _, title, keywords in (HELP, *command.arguments):
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        help_text = text.replace("%", "%%") or argparse.SUPPRESS
        groups[title].add_argument(*names, help=help_text, **keywords)
    return parser


def _describe_unknown(words: Sequence[str], arguments: Iterable[Argument]) -> str:
    """Return the message for words that a command does not accept."""
    known = [name for each in arguments if each.is_option for name in each.names]
    for word in words:
        if word.startswith("-") and word != "-":
            name = word.partition("=")[0]
            return f"unknown option {name}{_guess(name, known)}"
    number = "one word" if len(words) == 1 else f"{len(words)} words"
    return f"{number} too many: {', '.join(map(repr, words))}"


def _guess(word: str, known: Iterable[str]) -> str:
    """Return a question that suggests a similar word, "" if there is none."""
    from kitcache.options.attributes import suggest  # noqa: PLC0415 - seldom needed

    letters = word.strip("-")
    spellings = {name.strip("-"): name for name in known}
    if len(letters) == 1:
        starting = [name for name in spellings.values() if name.startswith(f"--{letters}")]
        meant = starting[0] if len(starting) == 1 else None
    else:
        meant = spellings.get(suggest(letters, spellings) or "")
    return f"; did you mean {meant}?" if meant else ""
