"""cli/options.py: arguments that mean the same in every command."""

import argparse
from collections.abc import Callable

import pytest

from kitcache.cli import options


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
