"""Tables on a terminal of 80 columns. Into a pipe, as golden/ has them, nothing is cut."""

import re
from pathlib import Path

import pytest

from tests.hostile.command import run
from tests.unit.test_golden import CASES, words_of

TABLES = ("du", "ls", "prune", "trim", "verify")


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.words.startswith(TABLES)])
def test_answers_fit_80_columns(tmp_path: Path, name: str) -> None:
    """All but whole digests and sentences of one line."""
    case = CASES[name]
    words = words_of(case, case.make(tmp_path))
    answer = run(tmp_path, *words, env={"COLUMNS": "80"})
    wide = [line for line in answer.out.splitlines() if len(line) > 80 and "sha256:" not in line]
    assert [line for line in wide if not re.match(r"\w+: ", line)] == []
