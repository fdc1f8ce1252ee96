"""`docker compose` under `kitcache exec`: build, up and run, profiles, several files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.daemon import Daemon
from tests.integration.witness import entries, garbage, look, ref_name

from .kit import PREFIX, assert_swept_and_cached, context, run, wrapped

pytestmark = pytest.mark.xdist_group("daemon")

PROJECT = """\
name: kitcache-exec
services:
  web:
    image: kitcache-web:1
    command: ["cat", "/result"]
    network_mode: none
    environment:
      PRICE: "5$$"
    build: &build
      context: app
      network: none
      cache_from: ["type=local,src=cache,tag=web"]
      cache_to: ["type=local,dest=cache,mode=max,reset=true,tag=web"]
  job:
    image: kitcache-job:1
    profiles: [jobs]
    network_mode: none
    command: ["cat", "/result"]
    build:
      context: app
      network: none
      cache_to: ["type=local,dest=cache,reset=true,tag=job"]
"""
OVERRIDE = """\
services:
  web:
    build:
      cache_to: ["type=local,dest=second,mode=max,reset=1"]
"""


@pytest.fixture
def project(daemon: Daemon, tmp_path: Path, need: Callable[..., None]) -> Path:
    if daemon.docker("compose", "version").code:
        need("docker-compose")
    (tmp_path / "compose.yaml").write_text(PROJECT)
    return tmp_path


def test_build_with_a_change_then_imported(daemon: Daemon, project: Path) -> None:
    (project / "deep").mkdir()
    for version in "12":
        context(project, version)
        # Found from below; the caches are relative to the working directory, as in compose.
        said = wrapped(daemon, project / "deep", "docker", "compose", "build")
    assert "kitcache: cache: removed " in said
    assert [ref_name(entry) for entry in entries(project / "deep" / "cache")] == ["web"]
    assert_swept_and_cached(daemon, project, project / "deep" / "cache", "web")


def test_profiles_and_several_files(daemon: Daemon, project: Path) -> None:
    (project / "more.yaml").write_text(OVERRIDE)
    for version in "12":
        context(project, version)
        words = ("docker", "compose", "-f", "compose.yaml", "-f", "more.yaml", "--profile=jobs",
                 "build", "-q")  # fmt: skip
        wrapped(daemon, project, *words)
    assert sorted(map(ref_name, entries(project / "cache"))) == ["job", "web"]
    assert [ref_name(entry) for entry in entries(project / "second")] == ["latest"]
    for cache in ("cache", "second"):
        assert garbage(project / cache) == {}
        assert look(project / cache).missing == frozenset()


def test_up_and_run(daemon: Daemon, project: Path) -> None:
    context(project, "1")
    try:
        words = ("docker", "compose", "up", "--build", "--abort-on-container-exit")
        done = run(daemon, project, *PREFIX, "--", *words)
        assert done.returncode == 0, done.stderr
        assert b"11" in done.stdout
        config = daemon.must("inspect", "kitcache-exec-web-1")
        assert "PRICE=5$" in json.loads(config)[0]["Config"]["Env"]
        context(project, "2")
        done = run(daemon, project, *PREFIX, "--", "docker", "compose", "run", "--build", "--rm",
                   "-T", "job", "cat", "/result")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(b"\n21")
    finally:
        run(daemon, project, "docker", "compose", "--profile", "*", "down", "--timeout=1")
    assert sorted(map(ref_name, entries(project / "cache"))) == ["job", "web"]
    assert garbage(project / "cache") == {}


def test_what_is_run_is_the_project_that_compose_resolves(daemon: Daemon, project: Path) -> None:
    context(project, "1")
    hashes = run(daemon, project, "docker", "compose", "config", "--hash", "*").stdout
    plan = run(daemon, project, *PREFIX, "--dry-run", "--", "docker", "compose", "build", "web")
    first, *rest = plan.stdout.decode().splitlines()
    assert first == (
        f"docker compose --project-directory {project} --file resolved-project.json build web"
    )
    assert rest == [
        "# to cache, tag 'web': under the shared lock, then a reset",
        "# from cache, tag 'web': under the shared lock",
    ]
    text = run(daemon, project, "docker", "compose", "config", "--format", "json").stdout
    (project / "resolved.json").write_bytes(text)
    again = run(
        daemon, project, "docker", "compose", "-f", "resolved.json", "config", "--hash", "*"
    )
    assert again.stdout == hashes != b""


def test_what_compose_refuses_it_refuses_in_its_own_words(daemon: Daemon, project: Path) -> None:
    (project / "compose.yaml").write_text("services: []\n")
    words = ("docker", "compose", "build")
    alone, with_it = run(daemon, project, *words), run(daemon, project, *PREFIX, "--", *words)
    assert with_it.returncode == alone.returncode != 0
    assert alone.stderr in with_it.stderr
