"""store/locks.py: whom a waiter names, and what of that process it shows."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kitcache.cli.parser import COMMANDS
from kitcache.errors import Busy
from kitcache.store import locks
from kitcache.store.layout import Layout
from kitcache.store.locks import KITCACHE_LOCK, describe_holder, find_holder, lock_store
from kitcache.store.values import LockHolder, WaitPolicy
from tests.hostile.build import Sample

CHILD = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""

LEAVES_A_CHILD = """
import fcntl, os, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
if os.fork():
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""


def at_once() -> WaitPolicy:
    return WaitPolicy(0.0, print, print)


def test_the_holder_is_found_in_another_process(sample: Sample, layout: Layout) -> None:
    with held_by(sample, [sys.executable, "-c", CHILD, str(sample.dir / KITCACHE_LOCK)]) as pid:
        with pytest.raises(Busy) as caught, lock_store(layout, "shared", at_once()):
            pass
        program = Path(f"/proc/{pid}/comm").read_text().strip()
    assert caught.value.holder_pid == pid
    assert caught.value.holder_command == program
    assert caught.value.facts["holder_pid"] == pid
    assert f"is held by process {pid} ({program})" in str(caught.value)


@contextmanager
def held_by(sample: Sample, command: list[str], **environ: str) -> Iterator[int]:
    (sample.dir / KITCACHE_LOCK).touch()
    pipe = subprocess.PIPE
    env = {**os.environ, **environ}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield child.pid
        child.communicate()


@pytest.mark.parametrize(
    ("program", "words", "shown"),
    [
        ("docker", ("buildx", "build", "--build-arg", "TOKEN=s3cret", "s3cret"), "buildx build"),
        ("docker", ("build", "s3cret"), "build"),
        ("docker", ("s3cret", "build"), ""),
        ("docker", ("--config", "s3cret", "build"), ""),
        ("docker", (), ""),
        ("kitcache", ("exec", "--", "s3cret", "build"), "exec"),
        ("rsync", ("build", "s3cret"), ""),
    ],
)
@pytest.mark.parametrize("is_named_by_python", [False, True])
def test_of_a_holder_no_argument_is_shown(
    sample: Sample,
    layout: Layout,
    program: str,
    words: tuple[str, ...],
    shown: str,
    is_named_by_python: bool,
) -> None:
    """Secrets are arguments, and these messages end up in the logs of other people."""
    script = sample.box.top / program
    lock = sample.dir / KITCACHE_LOCK
    body = CHILD.replace("sys.argv[1]", repr(str(lock)))
    script.write_text(f"#!{sys.executable}\n{body}")
    script.chmod(0o755)
    before = [sys.executable] if is_named_by_python else []
    with held_by(sample, [*before, str(script), *words]):
        with pytest.raises(Busy) as caught, lock_store(layout, "shared", at_once()):
            pass
        holder = find_holder_of(lock)
    told = f"{caught.value} {caught.value.facts}"
    assert "s3cret" not in told
    assert describe_holder(holder) in told
    if is_named_by_python and program == "rsync":
        assert caught.value.holder_command.startswith("python")  # type: ignore[union-attr]
    else:
        assert caught.value.holder_command == f"{program} {shown}".strip()


def test_kitcache_as_a_module_is_known(sample: Sample) -> None:
    lock = sample.dir / KITCACHE_LOCK
    (sample.box.top / "kitcache.py").write_text(CHILD.replace("sys.argv[1]", repr(str(lock))))
    command = [sys.executable, "-m", "kitcache", "reset", "s3cret"]
    with held_by(sample, command, PYTHONPATH=str(sample.box.top)) as pid:
        assert find_holder_of(lock) == LockHolder(pid, "kitcache reset")


def find_holder_of(path: Path) -> LockHolder:
    with path.open() as file:
        return find_holder(file.fileno())


def test_the_commands_that_may_be_shown_are_those_that_there_are() -> None:
    assert locks._SUBCOMMANDS["kitcache"] == COMMANDS.keys()


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_who_took_a_lock_and_is_gone_is_not_named(
    sample: Sample, layout: Layout, is_waited_for: bool
) -> None:
    """A child of his has the lock still, and /proc/locks names the dead one."""
    path = sample.dir / KITCACHE_LOCK
    path.touch()
    command = [sys.executable, "-c", LEAVES_A_CHILD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as taker:
        assert taker.stdout is not None
        assert taker.stdout.readline() == b"held\n"
        os.waitid(os.P_PID, taker.pid, os.WEXITED | (0 if is_waited_for else os.WNOWAIT))
        assert f" {taker.pid} " in Path("/proc/locks").read_text()
        with pytest.raises(Busy) as caught, lock_store(layout, "shared", at_once()):
            pass
        taker.stdin.close()  # type: ignore[union-attr]
    assert caught.value.problem == "kitcache.lock is held by another process"
    assert caught.value.facts["holder_pid"] is None


def test_a_lock_that_nobody_has_has_no_holder(sample: Sample) -> None:
    with (sample.dir / "index.json").open() as file:
        assert find_holder(file.fileno()) == LockHolder(None, None)


def test_holders_in_words() -> None:
    assert describe_holder(LockHolder(None, None)) == "another process"
    assert describe_holder(LockHolder(7, None)) == "process 7"
    assert describe_holder(LockHolder(7, "rsync -a")) == "process 7 (rsync -a)"
