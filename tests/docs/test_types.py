"""Every program on a page passes a strict type checker unchanged."""

import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import name_of, of


def test_the_programs_of_all_pages_are_typed(tmp_path: Path) -> None:
    names = {}
    for n, block in enumerate(of("python")):
        program = tmp_path / f"program_{n}.py"
        program.write_text(block.text)
        names[program.name] = name_of(block)
    assert len(names) > 10
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    done = subprocess.run(
        [*command, f"--cache-dir={tmp_path / 'cache'}", *names],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    output = done.stdout + done.stderr
    for program, name in names.items():
        output = output.replace(program, name)
    assert output == ""
