"""cli/options.py: arguments that mean the same in every command."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from kitcache.cli import options
from kitcache.cli.main import COMMANDS
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


def test_a_lock_is_waited_for_thirty_seconds_unless_told_otherwise() -> None:
    assert parse(options.add_lock_timeout).lock_timeout == 30 * 10**9
    assert parse(options.add_lock_timeout, "--lock-timeout", "2m").lock_timeout == 120 * 10**9
    assert parse(options.add_lock_timeout, "--lock-timeout", "0").lock_timeout == 0


def test_an_age_that_is_none_says_what_is_known() -> None:
    with pytest.raises(argparse.ArgumentError, match="'soon' is no age; known forms: 90"):
        parse(options.add_lock_timeout, "--lock-timeout", "soon")


@pytest.mark.parametrize(
    ("words", "undone"),
    [
        ("prune --policy p.toml .", "nothing was changed"),
        ("build --prune-policy p.toml .", "nothing was built"),
        ("exec --policy p.toml -- docker build .", "nothing was run"),
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
    assert (left, step) == (f"  {undone}", f"  next: {options.MEND_POLICY}")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in NO_AGE])
def test_the_help_says_what_an_age_is(tmp_path: Path, command: str) -> None:
    said = " ".join(run(tmp_path, command, "--help").out.split())
    assert "an AGE: 90s, 15m, 36h, 7d, 2w, 1h30m" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples(tmp_path: Path, command: str) -> None:
    assert "\nexamples:\n  " in run(tmp_path, command, "--help").out
