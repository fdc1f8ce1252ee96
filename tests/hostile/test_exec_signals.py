"""Signals to `kitcache exec`, to its command, and to both; and who holds the lock meanwhile."""

import fcntl
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hostile.exec_kit import PREFIX, install, run, wait_until

WORDS = ["docker", "build", "--cache-to=type=local,dest=cache,reset=true", "."]


@contextmanager
def waiting(
    tmp_path: Path, *options: str, do: str = "wait", **more: object
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A wrapped command that waits for a signal: the wrapper, and the command's pid."""
    ready = tmp_path / "ready"
    env = {**install(tmp_path / "bin"), "EXEC_DO": do, "EXEC_READY": str(ready)}
    words = [*PREFIX, *options, "--", *WORDS]
    with subprocess.Popen(words, cwd=tmp_path, env=env, **more) as wrapper:  # type: ignore[call-overload]
        try:
            wait_until(lambda: ready.exists() and ready.read_text())
            yield wrapper, int(ready.read_text())
        finally:
            wrapper.kill()


def is_locked(path: Path) -> bool:
    fd = os.open(path / "kitcache.lock", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGWINCH"])
def test_what_is_sent_to_the_wrapper_alone_is_passed_on(name: str, tmp_path: Path) -> None:
    with waiting(tmp_path) as (wrapper, _):
        wrapper.send_signal(getattr(signal, name))
        assert wrapper.wait(20) == 40 + getattr(signal, name)
    assert not is_locked(tmp_path / "cache")


def test_ctrl_c_reaches_the_command_once(tmp_path: Path) -> None:
    main, side = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(side, 0x540E, 0)  # TIOCSCTTY

    with waiting(
        tmp_path, do="wait once", stdin=side, stdout=side, stderr=side, preexec_fn=own_terminal
    ) as (wrapper, _):  # fmt: skip
        os.write(main, b"\x03")
        assert wrapper.wait(20) == 40 + signal.SIGINT
    os.close(main)
    os.close(side)


def test_a_command_that_is_killed(tmp_path: Path) -> None:
    with waiting(tmp_path) as (wrapper, child):
        os.kill(child, signal.SIGKILL)
        assert wrapper.wait(20) == 128 + signal.SIGKILL


def test_a_killed_wrapper_leaves_the_command_and_its_lock(tmp_path: Path) -> None:
    with waiting(tmp_path) as (wrapper, child):
        wrapper.kill()
        wrapper.wait()
        assert is_alive(child)
        assert is_locked(tmp_path / "cache")
        os.kill(child, signal.SIGTERM)
        wait_until(lambda: not is_locked(tmp_path / "cache"))


def test_what_a_killed_wrapper_staged_is_removed_by_the_next_but_not_before(
    tmp_path: Path,
) -> None:
    def staged() -> list[Path]:
        return list(tmp_path.glob("cache/.kitcache/stage-*"))

    with waiting(tmp_path) as (wrapper, child):
        wrapper.kill()
        wrapper.wait()
        (left,) = staged()
        env = {**install(tmp_path / "bin"), "EXEC_DO": "export"}
        assert run(WORDS, tmp_path, env).returncode == 0
        assert staged() == [left]  # the command still writes there
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: not is_locked(left))
    assert run(WORDS, tmp_path, env).returncode == 0
    assert staged() == []


def test_the_lock_does_not_outlive_the_command_in_what_it_started(tmp_path: Path) -> None:
    env = install(tmp_path / "bin")
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\nsleep 30 >/dev/null 2>&1 &\necho $!\n")
    done = run(["docker", "build", "--cache-to=type=local,dest=cache", "."], tmp_path, env)
    sleeper = int(done.stdout)
    try:
        assert is_alive(sleeper)
        assert not is_locked(tmp_path / "cache")
    finally:
        os.kill(sleeper, signal.SIGKILL)
