"""cli/parser.py: words that are not understood, and what was meant by them."""

import json
from pathlib import Path

import pytest

from kitcache.cli.parser import COMMANDS, parse_words
from kitcache.errors import UsageError
from tests.hostile.command import run


def refuse(*words: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_words(words)
    return caught.value


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("rest cache", "unknown command 'rest'; did you mean reset?"),
        ("version", "unknown command 'version'; did you mean --version?"),
        ("quux", "unknown command 'quux'"),
        ("reset --dryrun cache", "unknown option --dryrun; did you mean --dry-run?"),
        ("reset --minage=1h cache", "unknown option --minage; did you mean --min-age?"),
        ("du -j cache", "unknown option -j; did you mean --json?"),
        ("du -n cache", "unknown option -n"),
        ("prune -k cache", "unknown option -k"),
        ("du --quux cache", "unknown option --quux"),
        ("--quiet du cache", "unknown option --quiet"),
        ("why cache a other", "one word too many: 'other'"),
        ("ls a b c d", "2 words too many: 'c', 'd'"),
        ("ls", "the following arguments are required: DIR"),
        ("tag cache", "the following arguments are required: SOURCE, TARGET"),
        ("plugin", "the following arguments are required: ACTION"),
        ("reset cache --min-age", "argument --min-age: expected one argument"),
    ],
)
def test_what_is_wrong_and_what_was_meant(words: str, problem: str) -> None:
    error = refuse(*words.split())
    assert error.problem == problem
    first, *_ = words.split()
    asked = f"kitcache {first}" if first in COMMANDS else "kitcache"
    assert error.hints == (f"{asked} --help",)


def test_what_is_behind_two_dashes_is_no_option() -> None:
    words = ["du", "cache", "--", "-x", "-y"]
    args = parse_words(words)
    assert args is not None
    assert args.dirs == ["cache", "-x", "-y"]


def test_a_word_of_many_letters_is_judged_soon() -> None:
    assert refuse("du", "cache", "--" + "x" * 100_000).problem.endswith("xx")


def test_argparse_says_the_rest() -> None:
    assert refuse("plugin", "list").problem.startswith("argument ACTION: invalid choice: 'list'")
    assert refuse("reset", "--dry-run=yes", "cache").problem.endswith("explicit argument 'yes'")


def test_help_is_a_command_too(tmp_path: Path) -> None:
    assert run(tmp_path, "help") == run(tmp_path, "--help")
    for more in ((), ("--", "cache"), ("cache",)):
        assert run(tmp_path, "help", "reset", *more) == run(tmp_path, "reset", "--help")
    assert run(tmp_path, "help", "rest").err.startswith("kitcache: unknown command 'rest'; did")


def test_the_words_of_a_command_to_run_say_nothing_of_our_own_output(tmp_path: Path) -> None:
    answer = run(tmp_path, "exec", "--quux", "--", "docker", "build", "--json")
    assert (answer.code, answer.out) == (2, "")
    value = json.loads(run(tmp_path, "reset", "--json", "--quux", "cache").out)
    assert value["message"].startswith("unknown option --quux\n")
