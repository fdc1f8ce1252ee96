"""Every command block in README and docs does what it says; and every link leads somewhere."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, Block, blocks, name_of, of, unpack_sample

RUN = {"console", "python", "sh", "yaml", "cron"}
_VARIES = re.compile(r"\b\d+ (?:d|h|min|s)\b|\(\d+\.\d s\)|\"seconds\": [\d.]+")


def mask(line: str) -> str:
    """The line without what differs from day to day, and so without the columns' widths."""
    return re.sub(r" +", " ", _VARIES.sub("#", line)).rstrip()


def matches(expected: list[str], printed: list[str]) -> bool:
    """Whether the output is as the page shows it; a last line `...` stands for any more lines."""
    if expected and expected[-1] == "...":
        expected, printed = expected[:-1], printed[: len(expected) - 1]
    return len(expected) == len(printed) and all(
        given.startswith(wanted[:-3]) if wanted.endswith("...") else given == wanted
        for wanted, given in zip(map(mask, expected), map(mask, printed), strict=True)
    )


def shell(command: str, directory: Path, bin_directory: Path) -> str:
    env = {**os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout


def test_every_block_is_of_a_kind_that_is_run() -> None:
    strangers = [name_of(block) for block in blocks() if block.language not in RUN]
    assert strangers == []


@pytest.mark.parametrize("block", of("console"), ids=name_of)
def test_a_transcript_is_real(block: Block, tmp_path: Path) -> None:
    unpack_sample(tmp_path)
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *expected = part.splitlines()
        printed = shell(command, tmp_path, Path(sys.executable).parent).splitlines()
        assert matches(expected, printed), f"$ {command}\n" + "\n".join(printed)


@pytest.mark.parametrize("block", of("python"), ids=name_of)
def test_python_runs_and_says_something(block: Block, tmp_path: Path) -> None:
    unpack_sample(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("block", of("sh", naming="pip install ."), ids=name_of)
def test_an_installation_works(block: Block, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    printed = shell(f"set -e\n{block.text}", ROOT, tmp_path / "venv" / "bin")
    assert re.search(r"^kitcache \d+\.\d+", printed, re.MULTILINE), printed


@pytest.mark.parametrize("block", of("cron"), ids=name_of)
def test_a_cron_line_resets_every_cache(block: Block, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        unpack_sample(tmp_path / name)
    command = block.text.strip().split(maxsplit=5)[5]
    command = command.replace("/var/cache/buildkit/*/", "*/cache/").replace("1h", "1s")
    printed = shell(f"{command}; echo exit $?", tmp_path, Path(sys.executable).parent)
    assert printed == "exit 0\n"
    for name in ("one", "two"):
        assert len(list((tmp_path / name / "cache/blobs/sha256").iterdir())) == 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    for target, anchor in re.findall(r"\]\(([^):#]*)#([^)]+)\)", text):
        linked = (page.parent / target).read_text() if target else text
        titles = re.findall(r"^#+ (.+)$", linked, re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles]
