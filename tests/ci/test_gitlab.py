"""ci/gitlab/kitcache.yml: its lines run as on GitLab's runner."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.ci.runner import LIMIT_S, TEMPLATE, check_schema
from tests.docs.blocks import ROOT
from tests.hostile.build import Sample, make_sample


class Job:
    """A job that extends .kitcache: its script in one shell, after_script in another."""

    def __init__(self, project: Path, job_id: str, **variables: str) -> None:
        self.template = yaml.safe_load(TEMPLATE.read_text())[".kitcache"]
        self.project = project
        self.env = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "CI_JOB_ID": job_id,
            **self.template["variables"],
            **variables,
        }

    def run(self, *script: str) -> tuple[bool, str]:
        """Return True if the job succeeds, and its log."""
        code, log = self._shell([*self.template["before_script"], *script])
        self.env["CI_JOB_STATUS"] = "failed" if code else "success"
        _, more = self._shell(self.template["after_script"])
        return code == 0, log + more

    def _shell(self, lines: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            ["sh", "-e", "-c", "\n".join(lines)],
            cwd=self.project,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build this kitcache as a wheel; pip installs its dependencies."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", directory, ROOT], check=True, timeout=LIMIT_S)
    (wheel,) = directory.iterdir()
    return str(wheel)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return make_sample(tmp_path)


def blobs(sample: Sample) -> set[str]:
    return {path.name for path in (sample.dir / "blobs" / "sha256").iterdir()}


def test_it_matches_the_schema_of_gitlab() -> None:
    check_schema("gitlab-ci", TEMPLATE)


def test_a_job_has_the_command_and_its_cache_is_cleaned(
    sample: Sample, package: str, tmp_path: Path
) -> None:
    job_id = f"test-{os.getpid()}"
    job = Job(tmp_path, job_id, KITCACHE_DIR="cache", KITCACHE_PACKAGE=package)
    good, log = job.run("command -v kitcache", "kitcache --version", "kitcache ls cache")
    assert good, log
    assert f"/tmp/kitcache-{job_id}/path/kitcache\nkitcache " in log
    assert "cache: deleted " in log
    assert blobs(sample) == sample.live
    assert not Path(f"/tmp/kitcache-{job_id}").exists()


def test_a_failed_job_does_not_change_its_cache(sample: Sample, tmp_path: Path) -> None:
    before = blobs(sample)
    job = Job(tmp_path, f"fails-{os.getpid()}", KITCACHE_DIR="cache", KITCACHE_PACKAGE="")
    job.template["before_script"] = []
    good, log = job.run("false")
    assert not good
    assert log == ""
    assert blobs(sample) == before


def test_gitlab_uploads_the_directory_that_is_cleaned() -> None:
    template = yaml.safe_load(TEMPLATE.read_text())[".kitcache"]
    assert template["cache"]["paths"] == ["$KITCACHE_DIR"]
