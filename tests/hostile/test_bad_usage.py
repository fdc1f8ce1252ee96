"""Options that cannot be understood: a sentence and exit code 2, and nothing is touched."""

import pytest

from tests.caches.snapshot import take_snapshot
from tests.hostile.build import Sample
from tests.hostile.command import run, unchanged

AGES = {
    "empty": "",
    "blank": " ",
    "negative": "-1h",
    "no number": "h",
    "another unit": "5y",
    "two units": "5hh",
    "an exponent": "1e5",
    "infinite": "inf",
    "no number at all": "nan",
    "hex": "0x10",
    "underscores": "1_000",
    "a sign": "+5",
    "a comma": "1,5h",
    "a line break": "1h\n",
    "400 digits": "9" * 400,
    "5,000 digits": "9" * 5000,
    "400 digits and a unit": "9" * 400 + "w",
    "ages of the universe": "99999999999w",
    "a zero byte's neighbour": "1\x01h",
}
OPTIONS = [("--min-age", name) for name in AGES] + [
    (option, name)
    for option in ("--ingest-age", "--lock-timeout")
    for name in ("another unit", "400 digits")
]


@pytest.mark.parametrize(("option", "name"), OPTIONS)
def test_an_age_that_is_none_is_usage(sample: Sample, option: str, name: str) -> None:
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, "reset", "cache", f"{option}={AGES[name]}")
    if name == "a line break" and answer.code == 0:
        return  # Blanks around an age may be forgiven.
    assert unchanged(before, take_snapshot(sample.box.top)) == []
    assert (answer.code, answer.out) == (2, "")
    assert option in answer.err


COMMANDS = {
    "nothing": [],
    "no such command": ["rest", "cache"],
    "no directory": ["reset"],
    "no such option": ["reset", "cache", "--force"],
    "a value for a flag": ["reset", "cache", "--json=yes"],
    "no tag": ["untag", "cache"],
    "no new tag": ["tag", "cache", "main"],
    "no target": ["merge", "cache"],
    "a name without a name": ["merge", "--rename", "main=", "cache", "new"],
    "no tag to trim": ["trim", "cache", "--max-used-space", "1GB"],
    "no limit": ["trim", "cache", "main"],
    "a limit below nothing": ["trim", "cache", "main", "--max-used-space=-1GB"],
    "no blob": ["why", "cache"],
    "a word too many": ["ls", "cache", "main", "dev"],
    "no such shell": ["completion", "ksh"],
    "an option of another command": ["ls", "cache", "--min-age", "1h"],
    "a short prefix": ["why", "cache", "abc"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_line_that_is_none_is_usage(sample: Sample, name: str) -> None:
    before = take_snapshot(sample.box.top)
    answer = run(sample.box.top, *COMMANDS[name])
    assert take_snapshot(sample.box.top) == before
    assert (answer.code, answer.out) == (2, "")
    assert "kitcache" in answer.err
