"""Check that the tree is ready for a release, and print the release's notes.

usage: check_release.py TAG

TAG is vX.Y.Z. The notes are the section of CHANGELOG.md.
"""

import re
import sys
from pathlib import Path


def main(root: Path, tag: str) -> int:
    text = (root / "src/kitcache/__init__.py").read_text(encoding="utf-8")
    version = re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]
    changes = [p.name for p in (root / "changelog.d").iterdir() if p.name != "README.md"]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    notes = [section for section in sections if section.partition("\n")[0] == version]
    problems = []
    if tag != f"v{version}":
        problems.append(f"the tag is {tag}, and kitcache's version is {version}")
    if changes:
        problems.append(f"changelog.d has changes that CHANGELOG.md lacks: {', '.join(changes)}")
    if not notes:
        problems.append(f"CHANGELOG.md has no section '## {version}'")
    for problem in problems:
        print(f"not ready for a release: {problem}", file=sys.stderr)
    if not problems:
        print(notes[0].partition("\n")[2].strip())
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent, *sys.argv[1:]))
