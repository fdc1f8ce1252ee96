"""--policy FILE, or --prune-policy FILE, where FILE is a pipe, a device, or no file at all."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.caches.snapshot import take_snapshot
from tests.hostile.build import Sample
from tests.hostile.command import Answer, run, run_command
from tests.hostile.exec_kit import LIMIT_S, wait_until

POLICY = b'unused-for = "10d"\n[[rule]]\ntags = "main"\nkeep = true\n'
COMMANDS = {
    "prune": ["prune", "--policy", "p", "cache"],
    "build": ["build", "--addr", "unix:///nowhere", "--prune-policy", "p", "."],
    "exec": ["exec", "--prune-policy", "p", "--", "touch", "started"],
}


@pytest.fixture
def pipe(sample: Sample) -> Path:
    """A named pipe beside the cache."""
    path = sample.box.top / "p"
    os.mkfifo(path)
    return path


@contextmanager
def waiting(pipe: Path, words: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """The command, once it waits for the pipe: in a thread of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "kitcache", *words],
        cwd=pipe.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            wait_until(lambda: len(os.listdir(f"/proc/{child.pid}/task")) > 1)
            yield child
        finally:
            child.kill()


def unread(fd: int) -> int:
    """How many bytes of a pipe nobody has taken yet."""
    count = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


@pytest.mark.parametrize("said", [None, b"", POLICY], ids=["no writer", "silent", "half"])
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_ends_the_wait_for_a_pipe(pipe: Path, command: str, said: bytes | None) -> None:
    before = take_snapshot(pipe.parent / "cache")
    with waiting(pipe, COMMANDS[command]) as child:
        # A pipe that is open for both has a writer, and waits for none.
        writer = None if said is None else os.open(pipe, os.O_RDWR)
        if writer is not None and said:
            os.write(writer, said)
            wait_until(lambda: not unread(writer))
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=LIMIT_S)
        if writer is not None:
            os.close(writer)
    assert (child.returncode, out) == (130, "")
    assert err.splitlines()[:2] == ["kitcache: p: stopped on request", "  nothing was done"]
    assert take_snapshot(pipe.parent / "cache") == before
    assert not (pipe.parent / "started").exists()


def test_a_build_hears_sigterm_too(pipe: Path) -> None:
    with waiting(pipe, COMMANDS["build"]) as child:
        child.send_signal(signal.SIGTERM)
        err = child.communicate(timeout=LIMIT_S)[1]
    assert (child.returncode, "nothing was done" in err) == (130, True)


def test_a_slow_pipe_is_read_to_its_end(pipe: Path) -> None:
    """Half of this policy would drop what all of it keeps."""
    with waiting(pipe, [*COMMANDS["prune"], "--dry-run"]) as child:
        writer = os.open(pipe, os.O_WRONLY)
        for piece in (POLICY[:19], POLICY[19:30], POLICY[30:]):
            os.write(writer, piece)
            wait_until(lambda: not unread(writer))
            assert child.poll() is None
        os.close(writer)
        out, err = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, err) == (0, "")
    assert "keep  rule[1].keep" in out


def sh(sample: Sample, line: str) -> Answer:
    script = line.replace("KITCACHE", f"{sys.executable} -m kitcache")
    return run_command(["bash", "-c", script], sample.box.top)


def test_the_shells_ways_to_name_what_a_command_says(sample: Sample) -> None:
    (sample.box.top / "p").write_bytes(POLICY)
    for line in (
        "KITCACHE prune --dry-run --policy <(cat p) cache",
        "cat p | KITCACHE prune --dry-run --policy /dev/stdin cache",
        "cat p | KITCACHE prune --dry-run --policy - cache",
        "KITCACHE prune --dry-run --policy - cache < p",
        "KITCACHE prune --dry-run --policy /dev/stdin cache < p",
        "KITCACHE prune --dry-run --policy /dev/fd/7 cache 7< p",
    ):
        answer = sh(sample, line)
        assert (answer.code, answer.err) == (0, ""), line
        assert "keep  rule[1].keep" in answer.out, line


def test_stdin_as_a_policy(sample: Sample) -> None:
    for line, code, says in (
        ("echo keep-lsat=1 | KITCACHE prune --policy - cache", 2, "stdin: keep-lsat: unknown key"),
        ("KITCACHE prune --policy - cache <&-", 2, "stdin: it is closed: no policy can be read"),
        ("KITCACHE build --prune-policy - - </dev/null", 2, "would both read stdin"),
        ("KITCACHE build --prune-policy - -f - . </dev/null", 2, "would both read stdin"),
    ):
        answer = sh(sample, line)
        assert (answer.code, says in answer.err) == (code, True), answer.err


def test_what_never_ends_is_read_up_to_the_limit(sample: Sample) -> None:
    for line in ("--policy /dev/zero cache", "--policy <(yes '# x') cache"):
        answer = sh(sample, f"KITCACHE prune {line}")
        assert (answer.code, answer.out) == (2, "")
        assert "a policy has at most 65,536 bytes" in answer.err


def test_what_says_nothing_changes_nothing(sample: Sample) -> None:
    for line in ("--policy /dev/null cache", "--policy <(exit 1) cache", "--policy <(:) cache"):
        answer = sh(sample, f"KITCACHE prune --json {line}")
        assert (answer.code, answer.value["outcome"]) == (0, "no-policy")


def test_what_cannot_be_opened_is_an_error(sample: Sample) -> None:
    before = take_snapshot(sample.dir)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sample.box.top / "s"))
        for name, why in (
            ("s", "No such device or address"),
            ("cache", "Is a directory"),
            ("cache/index.json/p", "Not a directory"),
            ("nowhere", "No such file or directory"),
            ("", "No such file or directory"),
        ):
            answer = run(sample.box.top, "prune", "--policy", name, "cache")
            assert (answer.code, answer.out) == (1, "")
            assert f"cannot read the policy: {why}\n  nothing was done\n" in answer.err
    assert take_snapshot(sample.dir) == before
