"""The code blocks of README and docs, and what makes a sandbox to run them in."""

import re
import tarfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
SAMPLE = ROOT / "demo" / "sample-cache.tar.gz"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its page, its language, its text, and its line for the test's name."""

    page: str
    language: str
    text: str
    line: int


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(str(page.relative_to(ROOT)), match[1], match[2], line))
    return found


def of(language: str, *, naming: str = "", without: str = "") -> list[Block]:
    """The blocks of a language whose text has, and has not, these words in it."""
    return [
        block
        for block in blocks()
        if block.language == language
        and naming in block.text
        and not (without and without in block.text)
    ]


def name_of(block: Block) -> str:
    return f"{block.page}:{block.line}"


def unpack_sample(directory: Path) -> None:
    """Put the sample cache where the pages expect it: in ./cache."""
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(directory, filter="data")
