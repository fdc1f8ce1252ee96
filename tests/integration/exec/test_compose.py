"""`docker compose` under `kitcache exec`: build, up and run, profiles, several files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.daemon import Daemon
from tests.integration.witness import entries, garbage, look, ref_name

from .kit import PREFIX, assert_swept_and_cached, context, run, said_by_kitcache, wrapped

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
    assert "kitcache: cache: deleted " in said
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
        f"docker compose --project-directory {project} --project-name kitcache-exec"
        " --file resolved-project.json build web"
    )
    assert rest == [
        "# to cache, tag 'web': staged, under the shared lock, then a reset",
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


def test_a_project_from_stdin_also_where_nothing_is_rewritten(
    daemon: Daemon, project: Path
) -> None:
    context(project, "1")
    words = ("docker", "compose", "-f", "-", "build")
    for text in (PROJECT, PROJECT.replace("reset=true,", "")):
        wrapped(daemon, project, *words, stdin=text.encode())
        assert [ref_name(entry) for entry in entries(project / "cache")] == ["web"]
        shutil.rmtree(project / "cache")


def planned(daemon: Daemon, cwd: Path, *words: str) -> list[str]:
    """The tags that a command of compose would export, by a dry run."""
    done = run(daemon, cwd, *PREFIX, "--dry-run", "--", "docker", "compose", *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("# to ")]


@pytest.mark.parametrize(
    ("file", "text", "words", "cwd"),
    [
        (".env", "COMPOSE_PROFILES=jobs # all", ["build"], "."),
        (".env", 'P="jobs"\nCOMPOSE_PROFILES=x,${P}', ["build"], "."),
        (".env", "\ufeffCOMPOSE_PROFILES: jobs", ["build"], "."),
        ("sub/.env", "COMPOSE_PROFILES=jobs", ["-f", "sub/compose.yaml", "build"], "."),
        (".env", "COMPOSE_PROFILES=jobs", ["build"], "sub/deep"),
        (".env", "COMPOSE_FILE=sub/c.yaml\nCOMPOSE_PROFILES=jobs", ["build"], "."),
        (".env", "COMPOSE_PROFILES=other", ["build"], "."),
    ],
)  # fmt: skip
def test_the_active_services_are_those_that_compose_says(
    file: str, text: str, words: list[str], cwd: str, daemon: Daemon, project: Path
) -> None:
    (project / "sub" / "deep").mkdir(parents=True)
    (project / "sub" / "c.yaml").write_text(PROJECT)
    if words[0] == "-f":
        (project / "compose.yaml").rename(project / "sub" / "compose.yaml")
    (project / file).write_text(text)
    asked = run(daemon, project / cwd, "docker", "compose", *words[:-1], "config", "--services")
    tags = sorted(asked.stdout.decode().split())
    assert sorted(planned(daemon, project / cwd, *words)) == tags
    assert tags == (["web"] if "other" in text else ["job", "web"])


def test_services_that_are_active_by_a_file_are_built(daemon: Daemon, project: Path) -> None:
    context(project, "1")
    (project / ".env").write_text("COMPOSE_PROFILES=jobs # all")
    wrapped(daemon, project, "docker", "compose", "build")
    assert sorted(map(ref_name, entries(project / "cache"))) == ["job", "web"]
    assert look(project / "cache").missing == frozenset()


def test_what_a_build_does_not_need_may_be_missing(daemon: Daemon, project: Path) -> None:
    context(project, "1")
    whole = PROJECT.replace("    profiles: [jobs]\n", "    profiles: [jobs]\n    %s\n")
    for missing in ("env_file: no.env", "depends_on: [nobody]"):
        (project / "compose.yaml").write_text(whole % missing)
        wrapped(daemon, project, "docker", "compose", "build")
        assert [ref_name(entry) for entry in entries(project / "cache")] == ["web"]
        shutil.rmtree(project / "cache")
    active = PROJECT.replace("    build: &build\n", "    env_file: no.env\n    build:\n")
    (project / "compose.yaml").write_text(active.replace("$$", ""))
    wrapped(daemon, project, "docker", "compose", "build")
    assert [ref_name(entry) for entry in entries(project / "cache")] == ["web"]
    (project / "compose.yaml").write_text(active)
    done = run(daemon, project, *PREFIX, "--", "docker", "compose", "build")
    assert done.returncode == 0
    (line,) = said_by_kitcache(done.stderr.decode())
    assert "no cache of this command was guarded: the client did not report its exports" in line
    assert "no.env not found" in line
    done = run(daemon, project, *PREFIX, "--reset", "--", "docker", "compose", "build")
    assert done.returncode
    assert b"no.env not found" in done.stderr
    assert b"nothing was run: a reset was requested" in done.stderr


def test_dollars_in_paths(daemon: Daemon, project: Path) -> None:
    where = project / "a$b"
    context(where, "1")
    (where / "compose.yaml").write_text(PROJECT.replace("dest=cache,", "dest=c$${z},"))
    for options in (("--in-place",), ()):
        wrapped(daemon, where, "docker", "compose", "build", options=options)
        assert sorted(path.name for path in where.iterdir()) == ["app", "c${z}", "compose.yaml"]
        assert [ref_name(entry) for entry in entries(where / "c${z}")] == ["web"]
        shutil.rmtree(where / "c${z}")
    assert [path.name for path in project.iterdir() if path != where] == ["compose.yaml"]


def test_only_what_compose_builds_is_looked_after(daemon: Daemon, project: Path) -> None:
    text = PROJECT.replace("    profiles: [jobs]\n", "").replace(
        "  job:", "    depends_on: [job]\n  job:"
    )
    (project / "compose.yaml").write_text(text)
    assert planned(daemon, project, "build", "web") == ["web"]
    assert planned(daemon, project, "build", "--with-dependencies", "web") == ["web", "job"]
    context(project, "1")
    said = run(daemon, project, "docker", "compose", "--progress=plain", "build", "web").stderr
    assert b"[job " not in said


def test_a_container_of_an_inactive_service_is_no_orphan(daemon: Daemon, project: Path) -> None:
    """Which `up` with this option removes."""
    context(project, "1")
    text = PROJECT.replace('command: ["cat", "/result"]', 'command: ["cat"]\n    stdin_open: true')
    # If no test has built the job yet, it is built now: a cache without the tag fails the client.
    text = text.replace('      cache_from: ["type=local,src=cache,tag=web"]\n', "")
    (project / "compose.yaml").write_text(text)
    try:
        run(daemon, project, "docker", "compose", "--profile=jobs", "up", "--detach", "job")
        words = ("docker", "compose", "up", "--detach", "--build", "--remove-orphans")
        wrapped(daemon, project, *words)
        names = daemon.must("ps", "--format", "{{.Names}}").split()
        assert sorted(names) == ["kitcache-exec-job-1", "kitcache-exec-web-1"]
    finally:
        run(daemon, project, "docker", "compose", "--profile", "*", "down", "--timeout=0")
