"""The commands on the pages do what the pages show; links and paths exist."""

import os
import re
import sys
import venv
from pathlib import Path

import pytest

from kitcache.options.policyfile import read_policy
from tests.docs.blocks import PAGES, ROOT, Block, blocks, name_of, of, unpack_sample
from tests.docs.running import check_python, check_transcript, shell

PACKAGE = ROOT / "src" / "kitcache"
RUN = {"console", "python", "sh", "yaml", "cron", "toml", "json"}
# Each sh block contains one of these; the test that runs the block looks for it.
# tests/docs/test_objects.py runs the blocks of any kind that need an object store.
SHELL = ("pip install .", "make demo", "flock", "kitcache reset cache ||", "kitcache build")


def test_every_block_is_of_a_kind_that_is_run() -> None:
    unknown = [name_of(block) for block in blocks() if block.language not in RUN]
    unknown += [name_of(b) for b in of("sh") if not any(word in b.text for word in SHELL)]
    assert [name for name in unknown if not name.startswith("CONTRIBUTING.md")] == []


@pytest.mark.parametrize("block", of("console", builds=False), ids=name_of)
def test_a_transcript_is_real(block: Block, tmp_path: Path) -> None:
    unpack_sample(tmp_path)
    check_transcript(block, tmp_path)


@pytest.mark.parametrize("block", of("python", builds=False), ids=name_of)
def test_python_runs_and_prints(block: Block, tmp_path: Path) -> None:
    unpack_sample(tmp_path)
    check_python(block, tmp_path)


@pytest.mark.parametrize("block", of("sh", naming="pip install ."), ids=name_of)
def test_an_installation_works(block: Block, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    env = {**os.environ, "HOME": str(tmp_path)}
    printed = shell(f"set -e\n{block.text}", ROOT, tmp_path / "venv" / "bin", env)
    assert re.search(r"^kitcache \d+\.\d+", printed, re.MULTILINE), printed


@pytest.mark.parametrize("block", of("toml"), ids=name_of)
def test_a_policy_on_a_page_is_valid(block: Block) -> None:
    assert not read_policy(block.text, block.page).is_empty


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
def test_links_between_pages_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    for target, anchor in re.findall(r"\]\(([^):#]*)#([^)]+)\)", text):
        linked = (page.parent / target).read_text() if target else text
        linked = re.sub(r"^```.*?^```$", "", linked, flags=re.MULTILINE | re.DOTALL)
        titles = re.findall(r"^#+ (.+)$", linked, re.MULTILINE)
        slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert anchor in slugs, f"{target}#{anchor}"


def test_every_path_in_contributing_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = [path for path in re.findall(r"`([\w./-]+)`", text) if "/" in path or ".py" in path]
    assert len(paths) > 40
    missing = [path for path in paths if not any((d / path).exists() for d in (ROOT, PACKAGE))]
    assert missing == []
