"""docs/ci.md: its workflow files, run step by step beside a real docker client and daemon."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ci.runner import Runner, check_schema
from tests.ci.test_gitlab import Job
from tests.docs.blocks import Block, name_of, of
from tests.docs.running import BIN

from .build.registry import PASSWORD, USER, Registry
from .daemon import Daemon
from .dind import dind

# With the whole context, as most have it: a cache inside it would change with each export.
DOCKERFILE = "FROM scratch\nCOPY . /all\nCOPY two /two\n"
SHA = "0123456789abcdef"
OURS = "kitcache/kitcache@v0.1.0"

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


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """In place of ghcr.io."""
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def is_whole(daemon: Daemon, project: Path, cache: Path) -> None:
    """All that the cache is for: with it alone, every step is cached."""
    daemon.prune()
    words = ["--output=type=cacheonly", f"--cache-from=type=local,src={cache}"]
    assert daemon.build(project, *words).count("CACHED") == 2


def build_push(step: dict[str, Any]) -> str:
    """The command that docker/build-push-action makes of its inputs."""
    words = [f"--{name} {value}" for name, value in step["with"].items() if name != "context"]
    return f"docker buildx build {' '.join(words)} {step['with']['context']}"


def run_steps(
    runner: Runner, steps: list[dict[str, Any]], registry: Registry | None = None
) -> dict[str, str]:
    """All steps of a job but those that only GitHub has; the outputs of ours."""
    outputs: dict[str, str] = {}
    env = {"RUNNER_TEMP": str(runner.temp), "GITHUB_SHA": SHA}
    for step in steps:
        uses = step.get("uses", "")
        script = step.get("run", "")
        if uses == OURS:
            ran = runner.use("reset", **step.get("with", {}))
            assert ran.code == 0, ran.log
            outputs = ran.outputs or outputs
        elif uses.startswith("docker/build-push-action"):
            script = build_push(step)
        elif uses.startswith("docker/login-action") and registry is not None:
            script = f"docker login --username {USER} --password {PASSWORD} {registry.host}"
        if script:
            if registry is not None:
                script = script.replace("ghcr.io/owner/", f"{registry.host}/")
            code, log = runner.run(script, env)
            assert code == 0, log
    return outputs


def steps_of(block: Block, runner: Runner) -> list[dict[str, Any]]:
    """The steps, with the one expression filled in that a script or an action gets here."""
    text = block.text.replace("${{ runner.temp }}", str(runner.temp))
    steps: list[dict[str, Any]] = yaml.safe_load(text)["jobs"]["image"]["steps"]
    return steps


def blobs(cache: Path) -> set[str]:
    return set(os.listdir(cache / "blobs" / "sha256"))


@pytest.mark.parametrize("block", GITHUB, ids=name_of)
def test_a_workflow_keeps_what_the_last_build_needs(
    block: Block, daemon: Daemon, runner: Runner, project: Path, registry: Registry,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))  # the login is this job's
    steps, cache = steps_of(block, runner), runner.temp / "buildkit-cache"
    (project / "two").write_text("first")
    run_steps(runner, steps, registry)
    first = blobs(cache)
    (project / "two").write_text("second")
    outputs = run_steps(runner, steps, registry)
    assert first - blobs(cache), "nothing went"
    assert outputs.get("deleted-blobs") in (None, "", str(len(first - blobs(cache))))
    is_whole(daemon, project, cache)
    if "--push" in block.text:
        assert registry.ask("app/tags/list")["tags"] == [SHA]


@pytest.mark.parametrize("block", GITHUB, ids=name_of)
def test_a_new_branch_begins_with_the_cache_of_the_default_branch(block: Block) -> None:
    steps = yaml.safe_load(block.text)["jobs"]["image"]["steps"]
    (cache,) = [s["with"] for s in steps if s.get("uses", "").startswith("actions/cache")]
    own, default = cache["restore-keys"].split("\n")[:2]
    assert cache["key"] == own + "${{ github.sha }}"
    assert "default_branch" in default


@pytest.mark.parametrize("block", GITLAB, ids=name_of)
def test_a_gitlab_job_keeps_what_the_last_build_needs(
    block: Block, daemon: Daemon, project: Path, tmp_path: Path
) -> None:
    """Without the installation, which is tested beside the template."""
    given = yaml.safe_load(block.text)["app"]
    cache, seen = project / ".buildkit-cache", []
    with dind(daemon, tmp_path) as engine:
        for content in ("first", "second"):
            (project / "two").write_text(content)
            job = Job(project, "recipe")
            job.env = {**engine.env, **job.env, "HOME": engine.env["HOME"]}
            ignore = job.template["before_script"][-1]
            assert ".dockerignore" in ignore
            job.template["before_script"] = [ignore]
            (reset, _) = job.template["after_script"]
            job.template["after_script"] = [
                reset.replace("/tmp/kitcache-$CI_JOB_ID/path", str(BIN))
            ]
            # A job has a fresh client, and its files as git has them.
            (project / ".dockerignore").unlink(missing_ok=True)
            shutil.rmtree(engine.env["DOCKER_CONFIG"], ignore_errors=True)
            good, log = job.run(*map(engine.localize, given["script"]))
            assert good, log
            seen.append(blobs(cache))
    assert seen[0] - seen[1], "nothing went"
    is_whole(daemon, project, cache)


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
