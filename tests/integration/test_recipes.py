"""The examples of the pages that need a daemon or an installation, run unchanged."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import ROOT, Block, name_of, of, write_project
from tests.docs.running import BIN, check_python, check_transcript

from .build.registry import PASSWORD, USER, Registry
from .daemon import Daemon
from .dind import dind
from .listener import into_engine, listen_unix

DOCKERFILE = "FROM scratch\nCOPY one /one\n"


@pytest.fixture
def recipe(
    daemon: Daemon, wheels: Path, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a line in a project, in a fresh venv, with the private daemon."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text(DOCKERFILE)
    (project / "one").write_text("1")
    env = {
        "PATH": f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }

    def run(line: str, client: Mapping[str, str] = daemon.env) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=project,
            env={**client, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done

    return run


def export(dest: str) -> str:
    return f"docker buildx build --cache-to type=local,dest={dest},mode=max ."


def has_deleted(done: subprocess.CompletedProcess[str]) -> bool:
    return re.search(r"deleted [1-9]\d* blobs", done.stdout + done.stderr) is not None


def on_their_own(word: str) -> list[Block]:
    """Return the blocks without the action or template; test_ci_recipes.py runs the others."""
    others = ("kitcache/kitcache", ".kitcache")
    return [block for block in of("yaml", naming=word) if not any(o in block.text for o in others)]


@pytest.mark.parametrize("block", on_their_own("script:"), ids=name_of)
def test_gitlab_ci(
    block: Block, daemon: Daemon, recipe: Callable[..., Any], tmp_path: Path
) -> None:
    (job,) = yaml.safe_load(block.text).values()
    with dind(daemon, tmp_path) as engine:
        for line in job["before_script"]:
            if not line.startswith("apk add"):
                recipe(engine.localize(line), engine.env)
        for content in ("1", "2"):
            done = [recipe(f"echo {content} > one; {line}", engine.env) for line in job["script"]]
    assert has_deleted(done[-1])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project that the pages build."""
    write_project(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture(scope="module")
def registry(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]
) -> Iterator[Registry]:
    need("docker-registry", "setpriv")
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def env(daemon: Daemon) -> dict[str, str]:
    """The private daemon's environment, and a variable that a page uses."""
    return {**daemon.env, "REGISTRY_TOKEN": "none"}


@pytest.mark.parametrize("block", of("console", builds=True), ids=name_of)
def test_a_build_is_as_the_page_shows_it(block: Block, project: Path, env: dict[str, str]) -> None:
    check_transcript(block, project, env, is_build=True)


@pytest.mark.parametrize("block", of("python", builds=True), ids=name_of)
def test_python_that_builds(
    block: Block, project: Path, env: dict[str, str], registry: Registry
) -> None:
    job = {"CI_REGISTRY": registry.host, "CI_REGISTRY_USER": USER, "CI_REGISTRY_PASSWORD": PASSWORD}
    check_python(block, project, {**env, **job})


def test_the_first_program_of_the_library_on_a_buildkitd(
    project: Path, env: dict[str, str], daemon: Daemon, tmp_path: Path
) -> None:
    """Without an image store there is no image."""
    first = next(block for block in of("python", builds=True) if "library" in block.page)
    with listen_unix(tmp_path / "s", into_engine(daemon.socket)):
        check_python(first, project, {**env, "BUILDKIT_HOST": f"unix://{tmp_path / 's'}"})


# test_image.py runs the block that makes an image of kitcache.
@pytest.mark.parametrize(
    "block",
    [b for b in of("sh", naming="kitcache build") if "docker run" not in b.text],
    ids=name_of,
)
def test_commands_that_build(block: Block, project: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=project,
        env={**env, "PATH": f"{BIN}:{env['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", of("sh", naming="flock"), ids=name_of)
def test_a_build_under_the_lock(block: Block, recipe: Callable[[str], Any]) -> None:
    recipe(export("cache"))
    recipe(block.text)
    assert "kept" in recipe("pip install -q kitcache; kitcache reset cache").stdout


@pytest.mark.parametrize("block", of("sh", naming="make demo"), ids=name_of)
def test_the_newcomers_command(block: Block, tmp_path: Path) -> None:
    """Run `make demo` in a fresh copy of all files that are, or can be, under version control."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    subprocess.run(
        ["tar", "--create", "--null", "--files-from=-", "--file", tmp_path / "copy.tar"],
        cwd=ROOT,
        input=files,
        check=True,
    )
    subprocess.run(["tar", "-xf", tmp_path / "copy.tar", "-C", tmp_path], check=True)
    for line in block.text.splitlines():
        command = line.partition("#")[0].strip()
        if command != "make test":
            done = subprocess.run(
                command,
                shell=True,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "deleted" in done.stdout
