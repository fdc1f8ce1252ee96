"""cli/options.py: arguments that mean the same in every command."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from kitcache.cli import options
from kitcache.cli.main import COMMANDS, make_parser
from kitcache.options.units import AGE_FORMS
from tests.hostile.command import run

NO_AGE = ("du", "ls", "why", "plugin", "completion")


def parse(add: Callable[[argparse.ArgumentParser], None], *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add(parser)
    return parser.parse_args(words)


def test_dirs_are_one_or_more() -> None:
    assert parse(options.add_dirs, "a", "b").dirs == ["a", "b"]
    assert parse(options.add_dir, "a").dir == "a"


def test_flags_are_off_by_default() -> None:
    assert parse(options.add_dry_run).dry_run is False
    assert parse(options.add_dry_run, "--dry-run").dry_run is True
    assert vars(parse(options.add_output)) == {"json": False, "quiet": False}
    assert vars(parse(options.add_output, "--json", "--quiet")) == {"json": True, "quiet": True}


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in make_parser(None)._actions if a.dest == "command")
    assert isinstance(action.choices, dict)
    return action.choices


def test_a_letter_means_the_same_everywhere() -> None:
    """A new letter is a decision. buildx has options that kitcache only names, -m and -c."""
    letters: dict[str, set[str]] = {}
    for parser in commands().values():
        for action in parser._actions:
            if "--rm" not in action.option_strings:
                for letter in (word for word in action.option_strings if len(word) == 2):
                    letters.setdefault(letter, set()).add(action.option_strings[-1])
    assert letters == {
        "-h": {"--help"},
        "-n": {"--dry-run"},
        "-q": {"--quiet"},
        "-f": {"--file"},
        "-o": {"--output"},
        "-t": {"--tag"},
    }


def test_every_command_that_is_quiet_or_rehearses_has_the_letter_too() -> None:
    for name, parser in commands().items():
        known = parser._option_string_actions
        for letter, word in (("-n", "--dry-run"), ("-q", "--quiet")):
            assert known.get(letter) is known.get(word), (name, letter)
    quiet = [name for name, parser in commands().items() if "-q" in parser._option_string_actions]
    assert set(COMMANDS) - set(quiet) == {"completion"}
    # docker build -q prints the image: there the words of docker count.
    texts = {name: commands()[name]._option_string_actions["-q"].help for name in quiet}
    assert set(texts.values()) == {"print only warnings and errors", texts["build"]}


def test_every_command_has_an_example_and_says_where_exit_codes_are() -> None:
    for name, parser in commands().items():
        epilog = parser.epilog or ""
        assert f"examples:\n  kitcache {name} " in epilog, name
        assert epilog.endswith("exit codes:\n  kitcache --help lists them"), name


def test_every_unit_and_every_default_is_in_the_help() -> None:
    forms = {"AGE": AGE_FORMS, "SIZE": "5GB (10^9 bytes each), 5GiB (2^30)"}
    for name, parser in commands().items():
        if name != "build":  # which takes the units of docker build
            texts = " ".join(action.help or "" for action in parser._actions)
            for form in {str(action.metavar) for action in parser._actions} & set(forms):
                assert forms[form] in texts, (name, form)
        for action in parser._actions:
            if action.option_strings and action.default and action.nargs is None:
                assert action.default == argparse.SUPPRESS or "(default: " in (action.help or "")


def test_a_lock_is_waited_for_thirty_seconds_unless_told_otherwise() -> None:
    assert parse(options.add_lock_timeout).lock_timeout == 30 * 10**9
    assert parse(options.add_lock_timeout, "--lock-timeout", "2m").lock_timeout == 120 * 10**9
    assert parse(options.add_lock_timeout, "--lock-timeout", "0").lock_timeout == 0


def test_an_age_that_is_none_says_what_is_known() -> None:
    with pytest.raises(argparse.ArgumentError, match="'soon' is not an age; known forms: 90"):
        parse(options.add_lock_timeout, "--lock-timeout", "soon")


@pytest.mark.parametrize(
    ("words", "undone"),
    [
        ("prune --policy p.toml .", "nothing was changed"),
        ("build --prune-policy p.toml .", "nothing was built"),
        ("exec --prune-policy p.toml -- docker build .", "nothing was run"),
    ],
)
def test_a_bad_policy_says_what_was_left_alone_and_what_next(
    tmp_path: Path, words: str, undone: str
) -> None:
    (tmp_path / "p.toml").write_text('keep-tog = ["main"]\n')
    answer = run(tmp_path, *words.split())
    assert (answer.code, answer.out) == (2, "")
    first, *_, left, step = answer.err.splitlines()
    assert first.startswith("kitcache: p.toml: line 1: ")
    assert (left, step) == (f"  {undone}", f"  hint: {options.MEND_POLICY}")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in NO_AGE])
def test_the_help_says_what_an_age_is(tmp_path: Path, command: str) -> None:
    said = " ".join(run(tmp_path, command, "--help").out.split())
    assert "an AGE: 90s, 15m, 36h, 7d, 2w, 1h30m" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples(tmp_path: Path, command: str) -> None:
    assert "\nexamples:\n  " in run(tmp_path, command, "--help").out
