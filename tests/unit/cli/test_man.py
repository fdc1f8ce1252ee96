"""docs/kitcache.1: what --help says, as a manual page that troff prints without a warning.

test_golden.py compares it with the parsers.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from kitcache.cli.parser import COMMANDS, load_command

PAGE = Path(__file__).parents[3] / "docs" / "kitcache.1"


@pytest.fixture(scope="module")
def printed() -> str:
    if shutil.which("groff") is None:
        pytest.skip("no groff on this machine")
    command = ["groff", "-man", "-Tutf8", "-P-cbou", "-ww", str(PAGE)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    return done.stdout


def test_every_command_and_every_option_is_printed(printed: str) -> None:
    starts = [printed.index(f"\n   {name}\n") for name in COMMANDS]
    ends = [*starts[1:], printed.index("\nEXIT STATUS\n")]
    assert starts == sorted(starts)
    for name, start, end in zip(COMMANDS, starts, ends, strict=True):
        part = " ".join(printed[start:end].split())
        for option in load_command(name).COMMAND.arguments:
            if option.help and option.is_option:
                assert ", ".join(option.names) in part, (name, option)
        assert f"Examples: kitcache {name} " in part


def test_characters_are_printed_as_they_are(printed: str) -> None:
    assert "'pr-*'" in printed
    assert "kitcache tag ./cache sha256:9c1e6f\u2026 rescued" in printed
    assert "--tlsdir ~/certs" in printed
    assert "5GB (10^9 bytes" in " ".join(printed.split())
    assert "`docker tag`" in printed
    assert "build \\\n" in printed
