"""The code blocks of README and docs, and the directories in which they run."""

import re
import tarfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
SAMPLE = ROOT / "demo" / "sample-cache.tar.gz"

_BUILDS = re.compile(r"kitcache build|find_daemon|Client[.(]")
_BUCKET = re.compile(r"type=(?:s3|azblob)|(?:s3|azblob)://")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; the line is part of the test's name."""

    page: str
    language: str
    text: str
    line: int


def blocks() -> list[Block]:
    result = []
    for page in PAGES:
        text = page.read_text()
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            result.append(Block(str(page.relative_to(ROOT)), match[1], match[2], line))
    return result


def of(
    language: str,
    *,
    naming: str = "",
    builds: bool | None = None,
    needs_bucket: bool | None = False,
) -> list[Block]:
    """Return the blocks of a language whose text contains `naming`.

    Args:
        builds: Whether the block must need a daemon (True) or none (False); None for both.
        needs_bucket: Whether it must need an object store; None for both.
    """
    return [
        block
        for block in blocks()
        if block.language == language
        and naming in block.text
        and builds in (None, bool(_BUILDS.search(block.text)))
        and needs_bucket in (None, bool(_BUCKET.search(block.text)))
    ]


def name_of(block: Block) -> str:
    return f"{block.page}:{block.line}"


def write_project(directory: Path) -> None:
    """Write the project that the pages build: two stages, none with a RUN."""
    (directory / "assets").mkdir(parents=True)
    (directory / "assets" / "table").write_text("".join(f"{n}\n" for n in range(1, 2001)))
    (directory / "app.py").write_text('print("hello")\n')
    (directory / "Dockerfile").write_text(
        "FROM scratch AS assets\nCOPY assets /assets\n\n"
        "FROM scratch\nCOPY --from=assets /assets /app/assets\nCOPY app.py /app/\n"
    )


def unpack_sample(directory: Path) -> None:
    """Unpack the sample cache into ./cache, where the pages expect it."""
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(directory, filter="data")
