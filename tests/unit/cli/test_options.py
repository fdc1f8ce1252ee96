"""cli/options.py: arguments that mean the same in every command."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import pytest

from kitcache.cli import options
from kitcache.cli.options import Argument, Command
from kitcache.cli.parser import COMMANDS, load_command, make_parser
from kitcache.errors import UsageError
from kitcache.options.units import AGE_FORMS
from tests.hostile.command import run

NO_AGE = ("du", "ls", "why", "plugin", "completion")


def parse(arguments: Iterable[Argument], *words: str) -> argparse.Namespace:
    return make_parser("x", Command("", "", tuple(arguments))).parse_args(words)


def test_dirs_are_one_or_more() -> None:
    assert parse([options.DIRS], "a", "b").dirs == ["a", "b"]
    assert parse([options.DIR], "a").dir == "a"


def test_flags_are_off_by_default() -> None:
    output = (options.JSON, options.QUIET)
    assert parse([options.DRY_RUN]).dry_run is False
    assert parse([options.DRY_RUN], "--dry-run").dry_run is True
    assert vars(parse(output)) == {"json": False, "quiet": False}
    assert vars(parse(output, "--json", "--quiet")) == {"json": True, "quiet": True}


def commands() -> dict[str, dict[str, Argument]]:
    """The options of each command, by each of their spellings."""
    return {
        command: {
            name: each for each in load_command(command).COMMAND.arguments for name in each.names
        }
        for command in COMMANDS
    }


def test_a_letter_means_the_same_everywhere() -> None:
    """A new letter is a decision. buildx has options that kitcache only names, -m and -c."""
    letters: dict[str, set[str]] = {}
    for known in commands().values():
        for name, option in known.items():
            if len(name) == 2 and name.startswith("-") and "--rm" not in option.names:
                letters.setdefault(name, set()).add(option.names[-1])
    assert options.HELP.names == ("-h", "--help")
    assert letters == {
        "-n": {"--dry-run"},
        "-q": {"--quiet"},
        "-f": {"--file"},
        "-o": {"--output"},
        "-t": {"--tag"},
    }


def test_every_command_that_is_quiet_or_rehearses_has_the_letter_too() -> None:
    for name, known in commands().items():
        for letter, word in (("-n", "--dry-run"), ("-q", "--quiet")):
            assert known.get(letter) is known.get(word), (name, letter)
    texts = {name: known["-q"].help for name, known in commands().items() if "-q" in known}
    assert set(COMMANDS) - set(texts) == {"completion"}
    # docker build -q prints the image: there the words of docker count.
    assert set(texts.values()) == {options.QUIET.help, texts["build"]}


def test_every_command_has_an_example() -> None:
    for name in COMMANDS:
        assert f"examples:\n  kitcache {name} " in load_command(name).COMMAND.epilog, name


def test_every_unit_and_every_default_is_in_the_help() -> None:
    forms = {"AGE": AGE_FORMS, "SIZE": "5GB (10^9 bytes each), 5GiB (2^30)"}
    for name, known in commands().items():
        if name != "build":  # which takes the units of docker build
            texts = " ".join(option.help for option in known.values())
            for form in {str(option.keywords.get("metavar")) for option in known.values()}:
                assert forms.get(form, "") in texts, (name, form)
        for option in known.values():
            if option.help and option.takes_value and option.keywords.get("default"):
                assert "(default: " in option.help


def test_a_lock_is_waited_for_thirty_seconds_unless_told_otherwise() -> None:
    timeout = [options.LOCK_TIMEOUT]
    assert parse(timeout).lock_timeout_s == 30.0
    assert parse(timeout, "--lock-timeout", "2m").lock_timeout_s == 120.0
    assert parse(timeout, "--lock-timeout", "0").lock_timeout_s == 0


def test_an_age_that_is_none_says_what_is_known() -> None:
    with pytest.raises(UsageError, match="'soon' is not an age; known forms: 90"):
        parse([options.LOCK_TIMEOUT], "--lock-timeout", "soon")


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
    assert first.startswith("kitcache: p.toml: keep-tog: unknown key")
    assert (left, step) == (f"  {undone}", f"  hint: {options.REPAIR_POLICY}")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in NO_AGE])
def test_the_help_says_what_an_age_is(tmp_path: Path, command: str) -> None:
    said = " ".join(run(tmp_path, command, "--help").out.split())
    assert "an AGE: 90s, 15m, 36h, 7d, 2w, 1h30m" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples(tmp_path: Path, command: str) -> None:
    assert "\nexamples:\n  " in run(tmp_path, command, "--help").out
