"""Every command block in README and docs does what it says; and every link leads somewhere."""

import os
import re
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitcache.options.policyfile import read_policy
from tests.docs.blocks import PAGES, ROOT, Block, blocks, name_of, of, unpack_sample
from tests.docs.running import check_python, check_transcript, shell

PACKAGE = ROOT / "src" / "kitcache"
RUN = {"console", "python", "sh", "yaml", "cron", "toml"}
# What a block of a shell has in it; each is run by the test that looks for it.
SHELL = ("pip install .", "make demo", "flock", "kitcache reset cache ||", "kitcache build")


def test_every_block_is_of_a_kind_that_is_run() -> None:
    strangers = [name_of(block) for block in blocks() if block.language not in RUN]
    strangers += [name_of(b) for b in of("sh") if not any(word in b.text for word in SHELL)]
    assert strangers == []


@pytest.mark.parametrize("block", of("console", builds=False), ids=name_of)
def test_a_transcript_is_real(block: Block, tmp_path: Path) -> None:
    unpack_sample(tmp_path)
    check_transcript(block, tmp_path)


@pytest.mark.parametrize("block", of("python", builds=False), ids=name_of)
def test_python_runs_and_says_something(block: Block, tmp_path: Path) -> None:
    unpack_sample(tmp_path)
    check_python(block, tmp_path)


@pytest.mark.parametrize("block", of("sh", naming="pip install ."), ids=name_of)
def test_an_installation_works(block: Block, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    env = {**os.environ, "HOME": str(tmp_path)}
    printed = shell(f"set -e\n{block.text}", ROOT, tmp_path / "venv" / "bin", env)
    assert re.search(r"^kitcache \d+\.\d+", printed, re.MULTILINE), printed


@pytest.mark.parametrize("block", of("toml"), ids=name_of)
def test_a_policy_on_a_page_is_one(block: Block) -> None:
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
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    for target, anchor in re.findall(r"\]\(([^):#]*)#([^)]+)\)", text):
        linked = (page.parent / target).read_text() if target else text
        titles = re.findall(r"^#+ (.+)$", linked, re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles]


def test_the_map_of_the_house_names_rooms_that_are_there() -> None:
    assert all(place.is_file() for place in _places_in_the_map())


def test_the_map_of_the_house_has_each_module() -> None:
    """Commands need no row: each is the file of its name in cli/commands/."""
    modules = {
        module
        for module in PACKAGE.rglob("*.py")
        if not module.stem.startswith("_") and not module.stem.endswith("_pb2")
        if module.parent.name != "commands"
    }
    missing = modules.difference(_places_in_the_map())
    assert not {str(module.relative_to(PACKAGE)) for module in missing}


def _places_in_the_map() -> Iterator[Path]:
    """The files that CONTRIBUTING.md names. A bare name is in the folder of the one before it."""
    for row in (ROOT / "CONTRIBUTING.md").read_text().splitlines():
        folder = ROOT
        for name in re.findall(r"`([\w/]+\.py)`", row):
            rooms = [folder, PACKAGE, PACKAGE / "buildkit", PACKAGE / "upkeep", ROOT]
            found = [room / name for room in rooms if (room / name).is_file()]
            yield found[0] if found else ROOT / name
            folder = found[0].parent if found else ROOT
