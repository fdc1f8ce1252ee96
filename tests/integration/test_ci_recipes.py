"""docs/ci.md: its workflow files, run step by step beside a real docker client and daemon."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ci.runner import Runner, check_schema
from tests.ci.test_gitlab import Job
from tests.docs.blocks import Block, name_of, of
from tests.docs.running import BIN

from .daemon import Daemon

DOCKERFILE = "FROM scratch\nCOPY one /one\nCOPY two /two\n"
CACHE = ".buildkit-cache"
OURS = "OWNER/kitcache@main"

GITHUB = of("yaml", naming="jobs:")
GITLAB = of("yaml", naming="extends: .kitcache")


@pytest.fixture
def project(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is built, in the environment of the private daemon's clients."""
    for name in [name for name in os.environ if name not in daemon.env]:
        monkeypatch.delenv(name)
    for name, value in daemon.env.items():
        monkeypatch.setenv(name, value)
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text(DOCKERFILE)
    (project / "one").write_text("1")
    return project


@pytest.fixture
def runner(tmp_path: Path, project: Path) -> Runner:
    """A runner that has this kitcache; to install it is tested beside the action."""
    runner = Runner(tmp_path, project)
    (runner.temp / "kitcache").symlink_to(BIN.parent)
    runner.path.append(str(BIN))
    return runner


def is_whole(daemon: Daemon, project: Path) -> None:
    """All that the cache is for: with it alone, every step is cached."""
    daemon.prune()
    words = ["--output=type=cacheonly", f"--cache-from=type=local,src={project / CACHE}"]
    assert daemon.build(project, *words).count("CACHED") == 2


def build_push(step: dict[str, Any]) -> str:
    """The command that docker/build-push-action makes of its inputs."""
    words = [f"--{name} {value}" for name, value in step["with"].items() if name != "context"]
    return f"docker buildx build {' '.join(words)} {step['with']['context']}"


def run_steps(runner: Runner, steps: list[dict[str, Any]]) -> dict[str, str]:
    """All steps of a job but those that only GitHub has; the outputs of ours."""
    outputs: dict[str, str] = {}
    for step in steps:
        uses = step.get("uses", "")
        if uses == OURS:
            ran = runner.use("reset", **step.get("with", {}))
            assert ran.code == 0, ran.log
            outputs = ran.outputs
        elif "run" in step or uses.startswith("docker/build-push-action"):
            code, log = runner.run(step.get("run") or build_push(step))
            assert code == 0, log
    return outputs


def blobs(project: Path) -> set[str]:
    return set(os.listdir(project / CACHE / "blobs" / "sha256"))


@pytest.mark.parametrize("block", [b for b in GITHUB if OURS in b.text], ids=name_of)
def test_a_workflow_keeps_what_the_last_build_needs(
    block: Block, daemon: Daemon, runner: Runner, project: Path
) -> None:
    steps = yaml.safe_load(block.text)["jobs"]["image"]["steps"]
    (project / "two").write_text("first")
    run_steps(runner, steps)
    first = blobs(project)
    (project / "two").write_text("second")
    outputs = run_steps(runner, steps)
    assert first - blobs(project), "nothing went"
    assert outputs.get("removed-blobs") in (None, "", str(len(first - blobs(project))))
    is_whole(daemon, project)


@pytest.mark.parametrize("block", GITLAB, ids=name_of)
def test_a_gitlab_job_keeps_what_the_last_build_needs(
    block: Block, daemon: Daemon, project: Path
) -> None:
    """Without the installation, which is tested beside the template."""
    given = yaml.safe_load(block.text)["app"]
    script = [line for line in given["script"] if not line.startswith("docker buildx create")]
    assert len(script) == 1
    seen = []
    for content in ("first", "second"):
        (project / "two").write_text(content)
        job = Job(project, "recipe")
        job.env |= daemon.env
        job.template["before_script"] = []
        (reset, _) = job.template["after_script"]
        job.template["after_script"] = [reset.replace("/tmp/kitcache-$CI_JOB_ID/bin", str(BIN))]
        good, log = job.run(*script)
        assert good, log
        seen.append(blobs(project))
    assert seen[0] - seen[1], "nothing went"
    is_whole(daemon, project)


def test_workflows_are_as_the_services_publish_them(tmp_path: Path) -> None:
    for schema, found in (("github-workflows", GITHUB), ("gitlab-ci", [*GITLAB, *on_gitlab()])):
        files = []
        for block in found:
            files.append(tmp_path / f"{block.page.replace('/', '-')}-{block.line}.yml")
            files[-1].write_text(block.text)
        assert files
        check_schema(schema, *files)


def on_gitlab() -> list[Block]:
    """The jobs that do without the template."""
    return [block for block in of("yaml", naming="before_script:") if block not in GITLAB]
