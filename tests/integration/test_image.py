"""ci/container/Dockerfile: kitcache builds its own image, which resets a cache as another user."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pip
import pytest

from tests.docs.blocks import ROOT, of, unpack_sample
from tests.docs.running import BIN

from .daemon import Daemon

OWNER = 4242
PYTHON = f"python{sysconfig.get_python_version()}"
UNWANTED = ("site-packages", "test", "tests", "__pycache__", "idlelib", "tkinter")


@pytest.fixture
def base(daemon: Daemon, tmp_path: Path) -> str:
    """An image with this Python, pip and busybox, in place of one from a registry."""
    library = Path(sysconfig.get_path("stdlib"))
    program = Path(sys.base_prefix) / "bin" / PYTHON
    ldd = ["ldd", program, *library.glob("lib-dynload/*.so")]
    linked = subprocess.run(ldd, capture_output=True, text=True, check=True).stdout
    paths = {word for word in linked.split() if word.startswith("/") and not word.endswith(":")}
    files = {path.lstrip("/"): Path(path) for path in paths}
    files |= {f"usr/lib/{path.name}": path for path in map(Path, paths)}
    files |= {f"usr/bin/{PYTHON}": program, "usr/bin/python3": program}
    busybox = shutil.which("busybox")
    assert busybox
    files |= {f"bin/{name}": Path(busybox) for name in ("sh", "echo")}
    files[f"usr/lib/{PYTHON}/site-packages/pip"] = Path(pip.__file__).parent

    def is_needed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if {*Path(member.name).parts} & {*UNWANTED} else member

    rootfs = tmp_path / "rootfs.tar"
    with tarfile.open(rootfs, "w", dereference=True) as archive:
        archive.add(library, f"usr/lib/{PYTHON}", filter=is_needed)
        for name, path in files.items():
            archive.add(path, name)
    daemon.must("import", str(rootfs), "kitcache-python:1")
    return "kitcache-python:1"


def test_the_image_of_the_page_resets_a_cache(
    base: str, daemon: Daemon, wheels: Path, tmp_path: Path
) -> None:
    (block,) = [block for block in of("sh", naming="docker run") if "Dockerfile" in block.text]
    project = tmp_path / "project"
    shutil.copytree(ROOT / "ci" / "container", project / "ci" / "container")
    shutil.copytree(wheels, project / "dist")
    unpack_sample(project)
    for path in [project / "cache", *(project / "cache").rglob("*")]:
        os.chown(path, OWNER, OWNER)
    offline = f"--network none --build-arg PYTHON={base} --build-arg PIP_NO_INDEX=1"
    script = (
        block.text.replace("kitcache build", f"kitcache build {offline} --build-arg EXTRAS=")
        .replace("docker run", "docker run --network none")
        .replace('"$(id -u):$(id -g)"', f"{OWNER}:{OWNER}")
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=project,
        env={**daemon.env, "PATH": f"{BIN}:{daemon.env['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/cache: deleted 22 blobs" in done.stdout
    assert (project / "cache" / "kitcache.lock").stat().st_uid == OWNER
    # Without an option the container is not root, and prints the help.
    run = ["run", "--rm", "--network", "none", "kitcache"]
    assert "kitcache COMMAND" in daemon.must(*run)
    assert (
        daemon.must("image", "inspect", "--format", "{{.Config.User}}", "kitcache")
        == "65532:65532\n"
    )
