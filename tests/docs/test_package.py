"""The release files: a wheel and an sdist that can be built and are complete."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.docs.blocks import ROOT


def test_a_wheel_and_an_sdist_are_built_and_complete(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src").rglob("*.py")}
    assert package | {"kitcache/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "bench", "demo"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    # pip installs it where man looks for the pages of programs in PATH.
    assert any(name.endswith(".data/data/share/man/man1/kitcache.1") for name in names)
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "Makefile", "pyproject.toml", "docs/marking.md"} <= members
