"""Each packed cache gets from `kitcache reset` what its entry in expect.json says.

Laws: what a tag reaches stays, what none reaches goes, a refusal removes nothing, and
nothing else in or beside the directory changes; a dry run changes nothing at all.
"""

from pathlib import Path

import pytest

from tests.caches.harness import (
    CACHES,
    judge,
    judge_dry,
    read_expectations,
    run_reset,
    unpack,
)
from tests.caches.snapshot import take_snapshot
from tests.caches.steps import ImpossibleError, Stage

EXPECTATIONS = read_expectations()


def set_up(stage: Stage, name: str) -> None:
    try:
        stage.do(EXPECTATIONS[name].setup)
    except ImpossibleError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_reset_does_what_is_expected(name: str, tmp_path: Path) -> None:
    wanted = EXPECTATIONS[name]
    with Stage(unpack(name, tmp_path)) as stage:
        set_up(stage, name)
        before = take_snapshot(tmp_path)
        run = run_reset(wanted, tmp_path, stage=stage)
        after = take_snapshot(tmp_path)
    assert stage.trouble == []
    assert judge(wanted, before, after, run) == []


@pytest.mark.parametrize("name", [name for name, wanted in EXPECTATIONS.items() if wanted.dry])
def test_a_dry_run_changes_nothing_and_speaks_json(name: str, tmp_path: Path) -> None:
    wanted = EXPECTATIONS[name]
    with Stage(unpack(name, tmp_path)) as stage:
        set_up(stage, name)
        before = take_snapshot(tmp_path)
        run = run_reset(wanted, tmp_path, "--dry-run", "--json", stage=stage)
        after = take_snapshot(tmp_path)
    assert judge_dry(wanted, before, after, run) == []


def test_every_archive_has_an_expectation() -> None:
    archives = {path.name.removesuffix(".tar.gz") for path in CACHES.glob("*.tar.gz")}
    assert archives == EXPECTATIONS.keys()
    assert len(archives) == 79
