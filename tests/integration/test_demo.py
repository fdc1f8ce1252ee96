"""The demo as `make demo` runs it: with a daemon, a private one, none, and a broken one."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .daemon import Daemon

ROOT = Path(__file__).resolve().parents[2]
SHOWN = (
    "du cache",
    "reset --dry-run cache",
    "reset cache",
    "du cache",
    "why cache ",
    "verify cache",
    "prune --dry-run ",
)
BUILDS = ("build ", "du built", "build ", "du built", "build ")
Demo = Callable[[dict[str, str]], str]


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    """Runs the demo in an environment; what it printed. It must succeed, and leave no file."""
    if not Path(sys.executable).with_name("kitcache").exists():
        pytest.skip(f"kitcache is not installed beside {sys.executable}")

    def run(env: dict[str, str]) -> str:
        temporary = tmp_path / "tmp"
        temporary.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, ROOT / "demo" / "run.py"],
            check=False,
            env={**env, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(temporary.iterdir()) == []
        commands = [line for line in done.stdout.splitlines() if line.startswith("$ kitcache ")]
        expected = SHOWN if "a sample that" in done.stdout else SHOWN + BUILDS
        for line, shown in zip(commands, expected, strict=True):
            assert line.startswith(f"$ kitcache {shown}")
        return done.stdout + done.stderr

    return run


def test_with_a_daemon_a_cache_is_grown_and_imported(
    daemon: Daemon, demo: Demo, tmp_path: Path
) -> None:
    """And all that was there before is there afterwards, and nothing else is."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    (context / "file").write_text("somebody else's")
    daemon.prune()
    daemon.build(context, "--output=type=cacheonly")
    config = Path(daemon.env["DOCKER_CONFIG"])
    before = sorted(config.rglob("*"))
    images = image_ids(daemon)
    records = build_records(daemon)

    said = demo(daemon.env)

    assert_grown(said)
    assert "Building a cache with the existing docker: " in said
    assert "No cache is built" not in said
    # A record of a context that was sent is nobody's: the demo takes those out.
    assert build_records(daemon) <= records, "its records are gone from the daemon"
    assert sorted(config.rglob("*")) == before, "nothing is written beside the user's own settings"
    assert image_ids(daemon) == images
    assert daemon.build(context, "--output=type=cacheonly").count("CACHED") == 1


def test_a_daemon_that_cannot_export_gives_way_to_a_private_one(demo: Demo) -> None:
    with Daemon(containerd_store=False) as older:
        said = demo(older.env)
        assert older.cache_size() == "0B"
    assert "No cache is built with the existing docker (" in said
    assert "Cache export" in said
    assert "Building a cache with a private docker: " in said
    assert_grown(said)


def test_without_docker_the_sample_is_verified(demo: Demo) -> None:
    said = demo({"PATH": "/nonexistent", "HOME": "/nonexistent"})
    assert "there is no docker command" in said
    assert_sample(said)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 7", "docker ended with 7"),
        ("echo one; echo 'ERROR: no such daemon'; echo more; exit 1", "(no such daemon)"),
        ("exit 0", "docker exported no cache"),
        ("printf '\\377\\376'; exit 0", "docker exported no cache"),
        ("kill -9 $$", "docker ended with -9"),
    ],
)
def test_a_half_broken_docker_gives_the_sample(
    demo: Demo, tmp_path: Path, script: str, reason: str
) -> None:
    said = demo({"PATH": str(fake_docker(tmp_path, f"#!/bin/sh\n{script}\n"))})
    assert reason in said
    assert_sample(said)


def test_a_docker_that_is_no_program_gives_the_sample(demo: Demo, tmp_path: Path) -> None:
    said = demo({"PATH": str(fake_docker(tmp_path, "\x7fELF but not really"))})
    assert "docker cannot be run" in said
    assert_sample(said)


def test_a_daemon_that_does_not_answer_gives_the_sample(demo: Demo, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("not installed: docker")
    # With docker alone: no private one can be started.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").symlink_to(docker)
    env = {"PATH": f"{tmp_path}/bin", "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    said = demo(env)
    assert "No cache is built with a private docker (" in said
    assert_sample(said)


def test_a_damaged_cache_makes_the_demo_fail(demo: Demo, tmp_path: Path) -> None:
    """The proof at the end proves something: a kitcache that removes a live blob is found out."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "python").symlink_to(sys.executable)
    bad = bin_dir / "kitcache"
    bad.write_text('#!/bin/sh\n[ "$1 $2" = "reset cache" ] && rm -f cache/blobs/sha256/*\nexit 0\n')
    bad.chmod(0o755)
    (bin_dir / "rm").symlink_to("/bin/rm")
    done = subprocess.run(
        [bin_dir / "python", ROOT / "demo" / "run.py"],
        check=False,
        env={"PATH": str(bin_dir), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "the demo failed" in done.stdout
    assert "Traceback" not in done.stderr


def build_records(daemon: Daemon) -> set[str]:
    """Ids of what is in the daemon's own build cache."""
    said = daemon.must("buildx", "du", "--verbose")
    return set(re.findall(r"^ID:\s+(\w+)", said, re.MULTILINE))


def image_ids(daemon: Daemon) -> set[str]:
    """Of all images in the daemon; those of one second come in any order."""
    return set(daemon.must("image", "ls", "--all", "--quiet", "--no-trunc").split())


def assert_grown(said: str) -> None:
    """Three builds had every step from a cache, and the cache of two exports did not grow."""
    assert said.count("  CACHED ") == 15
    for tag in ("main", "release"):
        assert f"with only tag {tag} of this cache had every step CACHED" in said
    assert re.search(r"^built: nothing to delete; kept 7, ", said, re.MULTILINE)
    assert re.search(r"^built: deleted 7 blobs, .*; kept 7, ", said, re.MULTILINE)
    assert "sample" not in said


def assert_sample(said: str) -> None:
    assert "a sample that BuildKit exported" in said
    assert "blobs match their digests, and 2 tags have all their blobs" in said


def fake_docker(tmp_path: Path, content: str) -> Path:
    directory = tmp_path / "fake"
    directory.mkdir()
    (directory / "docker").write_text(content)
    (directory / "docker").chmod(0o755)
    return directory
