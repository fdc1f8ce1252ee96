"""The demo as `make demo` runs it: with a daemon, with none, with one that is half broken."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .daemon import Daemon

pytestmark = pytest.mark.xdist_group("daemon")

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("du cache", "reset --dry-run cache", "reset cache", "du cache", "why cache ")
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
        assert len(commands) == len(SHOWN)
        for line, shown in zip(commands, SHOWN, strict=True):
            assert line.startswith(f"$ kitcache {shown}")
        return done.stdout

    return run


def test_with_a_daemon_a_cache_is_grown_and_imported(daemon: Daemon, demo: Demo) -> None:
    daemon.prune()
    config = Path(daemon.env["DOCKER_CONFIG"])
    before = sorted(config.rglob("*"))
    images = daemon.must("image", "ls", "--all", "--quiet", "--no-trunc")

    said = demo(daemon.env)

    assert said.count("CACHED ") == 10
    for tag in ("main", "release"):
        assert f"nothing but tag {tag} of this cache had every step CACHED" in said
    assert "sample" not in said
    assert daemon.cache_size() == "0B", "its records are gone from the daemon"
    assert sorted(config.rglob("*")) == before, "nothing is written beside the user's own settings"
    assert daemon.must("image", "ls", "--all", "--quiet", "--no-trunc") == images


def test_the_records_of_others_stay(daemon: Daemon, demo: Demo, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    (context / "file").write_text("somebody else's")
    daemon.build(context, "--output=type=cacheonly")
    before = {line for line in daemon.must("buildx", "du").splitlines()[1:] if "\ttrue" in line}
    demo(daemon.env)
    after = {line.split()[0] for line in daemon.must("buildx", "du").splitlines()[1:] if line}
    assert {line.split()[0] for line in before} <= after
    assert daemon.build(context, "--output=type=cacheonly").count("CACHED") == 1


def test_a_daemon_with_the_older_image_store_gives_the_sample(daemon: Daemon, demo: Demo) -> None:
    with Daemon(containerd_store=False) as older:
        said = demo(older.env)
    assert "Cache export" in said
    assert_sample(said)


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
    assert "docker does not run" in said
    assert_sample(said)


def test_a_daemon_that_does_not_answer_gives_the_sample(demo: Demo, tmp_path: Path) -> None:
    if shutil.which("docker") is None:
        pytest.skip("not installed: docker")
    env = {"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    assert_sample(demo(env))


def test_a_damaged_cache_makes_the_demo_fail(demo: Demo, tmp_path: Path) -> None:
    """The proof at the end proves something: a kitcache that removes a live blob is found out."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "python").symlink_to(sys.executable)
    bad = bin_dir / "kitcache"
    bad.write_text('#!/bin/sh\n[ "$1 $2" = "reset cache" ] && rm -f cache/blobs/sha256/*\nexit 0\n')
    bad.chmod(0o755)
    done = subprocess.run(
        [bin_dir / "python", ROOT / "demo" / "run.py"],
        check=False,
        env={"PATH": "/bin:/usr/bin", "DOCKER_HOST": f"unix://{tmp_path}/none.sock"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "the demo failed" in done.stdout
    assert "Traceback" not in done.stderr


def assert_sample(said: str) -> None:
    assert "a sample that BuildKit exported" in said
    assert "blobs hold what their names say, and 2 tags find all of theirs" in said


def fake_docker(tmp_path: Path, content: str) -> Path:
    directory = tmp_path / "fake"
    directory.mkdir()
    (directory / "docker").write_text(content)
    (directory / "docker").chmod(0o755)
    return directory
