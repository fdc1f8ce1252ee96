"""kitcache completion: a script that completes kitcache's words in a shell."""

import argparse

from kitcache.cli.main import make_parser
from kitcache.cli.terminal import print_answer

_EPILOG = """\
examples:
  kitcache completion bash > ~/.local/share/bash-completion/completions/kitcache
  kitcache completion zsh > ~/.zfunc/_kitcache"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description = "Prints a completion script for a shell, to be saved where it looks."
    parser.epilog = _EPILOG
    shells = ("bash", "zsh", "tcsh")
    parser.add_argument(
        "shell", metavar="SHELL", choices=shells, help=f"one of {', '.join(shells)}"
    )


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab  # noqa: PLC0415 - no other command needs it at start-up

    print_answer(shtab.complete(make_parser(None), shell=args.shell))
    return 0
