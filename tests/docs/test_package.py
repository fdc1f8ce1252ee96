"""A release: its files are complete, its links work, its recipes and workflows fit it."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from kitcache import __version__
from tests.ci.runner import check_schema
from tests.docs.blocks import PAGES, ROOT

HOME = "https://github.com/kitcache/kitcache"
GITHUB = ROOT / ".github"
# Anything that installs kitcache from outside of a checkout, and the version in it.
PINNED = re.compile(r"kitcache(?:\[[\w,]+\])?==([\d.]+)|kitcache/kitcache(?:@|/|:)v?(\d[\d.]+)")
UNPINNED = re.compile(r"(?:uses: kitcache/|pip\S* install[^\n`]*[ '\"]kitcache\b(?!.*==)).*")


def test_a_wheel_and_an_sdist_are_built_and_complete(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"kitcache-{__version__}.dist-info/METADATA").decode()
    package = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src").rglob("*.py")}
    assert package | {"kitcache/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "bench", "demo"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    # pip installs it where man looks for the pages of programs in PATH.
    assert any(name.endswith(".data/data/share/man/man1/kitcache.1") for name in names)
    check_metadata(metadata)
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "README.md",
        "LICENSE",
        "Makefile",
        "pyproject.toml",
        "SECURITY.md",
        "docs/marking.md",
    } <= members


def check_metadata(metadata: str) -> None:
    """The index shows the README without the repository: each link is a URL to an existing file."""
    head, _, description = metadata.partition("\n\n")
    assert f"Project-URL: Changelog, {HOME}/blob/main/CHANGELOG.md" in head
    targets = re.findall(r"\]\(([^)]+)\)", description)
    assert len(targets) > 20
    for target in targets:
        prefix, path = f"{HOME}/blob/v{__version__}/", target.partition("#")[0]
        assert path.startswith(prefix), target
        assert (ROOT / path.removeprefix(prefix)).is_file(), target


def test_workflows_and_forms_match_the_schemas_of_github() -> None:
    forms = GITHUB / "ISSUE_TEMPLATE"
    check_schema("github-workflows", *(GITHUB / "workflows").iterdir())
    check_schema("github-issue-forms", *(set(forms.iterdir()) - {forms / "config.yml"}))
    check_schema("github-issue-config", forms / "config.yml")


def test_every_recipe_names_this_version() -> None:
    files = [*PAGES, ROOT / "ci/gitlab/kitcache.yml"]
    texts = {path: path.read_text() for path in files if path.name != "README.md"}
    versions = [a or b for text in texts.values() for a, b in PINNED.findall(text)]
    assert len(versions) > 10
    assert {*versions} == {__version__}
    yaml = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
    blocks = "\n".join(yaml.findall("\n".join(texts.values())))
    assert [m[0] for m in UNPINNED.finditer(blocks) if not PINNED.search(m[0])] == []


@pytest.mark.parametrize(
    ("tag", "changelog", "change", "problem"),
    [
        ("v1.2.3", "## 1.2.3\n\n- New.\n\n## 1.2.2\n", "README.md", ""),
        ("v1.2.4", "## 1.2.3\n", "README.md", "the tag is v1.2.4"),
        ("v1.2.3", "## 1.2.3\n", "x.fix.md", "CHANGELOG.md lacks: x.fix.md"),
        ("v1.2.3", "## 1.2.30\n", "README.md", "has no section '## 1.2.3'"),
    ],
)  # fmt: skip
def test_a_tag_is_released_only_if_the_tree_is_ready(
    tag: str, changelog: str, change: str, problem: str, tmp_path: Path
) -> None:
    for name, text in {
        "src/kitcache/__init__.py": '__version__ = "1.2.3"\n',
        "CHANGELOG.md": f"# Changelog\n\n{changelog}",
        f"changelog.d/{change}": "New.\n",
        "scripts/check_release.py": (ROOT / "scripts/check_release.py").read_text(),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    command = [sys.executable, tmp_path / "scripts/check_release.py", tag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, problem in done.stderr) == ("" if problem else "- New.\n", True)
    assert done.returncode == (1 if problem else 0)
