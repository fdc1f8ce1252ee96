"""A build that is stopped: the real client behaves with the prefix as it does without."""

import fcntl
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from tests.hostile.exec_kit import wait_until
from tests.integration.daemon import BASE, Daemon
from tests.integration.exec.kit import PREFIX, context, wrapped
from tests.integration.witness import garbage, look

WORDS = ("docker", "build", "--progress=plain", "--output=type=cacheonly",
         "--cache-to=type=local,dest=cache,mode=max,reset=true")  # fmt: skip


def stopped(daemon: Daemon, cwd: Path, number: int, *prefix: str) -> int:
    """The exit code of a build that got a signal in the middle of a step without an end."""
    words = [*prefix, *WORDS, "--no-cache", "endless"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=cwd, env=daemon.env, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        seen = next(
            (line for line in process.stderr if "running" in line and "echo" not in line), ""
        )
        assert seen, "the step did not begin"
        process.send_signal(number)
        process.stderr.read()
    return process.returncode


@pytest.mark.parametrize("options", [("--in-place",), ()], ids=["in place", "staged"])
def test_a_signal_to_the_wrapper_is_one_to_the_client(
    options: tuple[str, ...], daemon: Daemon, tmp_path: Path
) -> None:
    wrapped(daemon, tmp_path, *WORDS, context(tmp_path, "1"))
    blobs = sorted((tmp_path / "cache" / "blobs" / "sha256").iterdir())
    index = (tmp_path / "cache" / "index.json").read_bytes()
    (tmp_path / "endless").mkdir()
    (tmp_path / "endless" / "Dockerfile").write_text(
        f"FROM {BASE}\nRUN --network=none echo run''ning; while true; do true; done\n"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        alone = stopped(daemon, tmp_path, number)
        assert stopped(daemon, tmp_path, number, *PREFIX, *options, "--") == alone != 0
    assert sorted((tmp_path / "cache" / "blobs" / "sha256").iterdir()) == blobs
    assert (tmp_path / "cache" / "index.json").read_bytes() == index
    assert (garbage(tmp_path / "cache"), look(tmp_path / "cache").missing) == ({}, frozenset())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app", "cache", "endless"]


@pytest.mark.parametrize("words", ["buildx bake", "compose"])
def test_ctrl_c_while_its_file_is_waited_for(words: str, tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    command = [*PREFIX, "--", "docker", *words.split(), "-f", "-"]
    command += ["build"] if words == "compose" else []
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("{")
        process.stdin.flush()
        fd = process.stdin.fileno()
        wait_until(lambda: fcntl.ioctl(fd, termios.FIONREAD, bytes(4)) == bytes(4))
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 130
        finally:
            process.kill()
        assert "nothing was built" in process.stderr.read()
