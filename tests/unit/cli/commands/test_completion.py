"""kitcache completion: the script, loaded by the shell itself and asked as Tab asks."""

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitcache.cli.main import COMMANDS
from tests.hostile.command import run

MARK = b"\x1e"


class Bash:
    """An interactive bash on a terminal, with the completion script loaded, in a directory."""

    def __init__(self, cwd: Path, script: Path) -> None:
        self._master, slave = os.openpty()
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "", "INPUTRC": os.devnull},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._send(f"stty -echo; source {script}; printf '\\036'\n".encode())
        self._read_to(MARK)

    def press_tab(self, line: str) -> str:
        """The line after Tab was pressed at its end, as bash would run it."""
        # An echo in its place shows what readline made of the words.
        self._send(b"\x01\x0b" + line.encode() + b"\t\x01printf '<%s>' '\x05'; printf '\\036'\n")
        seen = self._read_to(MARK).decode()
        return seen.rpartition("<")[2].rpartition(">")[0]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _send(self, data: bytes) -> None:
        os.write(self._master, data)

    def _read_to(self, mark: bytes) -> bytes:
        seen = b""
        while not seen.endswith(mark):
            ready, _, _ = select.select([self._master], [], [], 20)
            assert ready, f"bash does not answer: {seen!r}"
            seen += os.read(self._master, 1000)
        return seen


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash]:
    if shutil.which("bash") is None:
        pytest.skip("no bash on this machine")
    top = tmp_path_factory.mktemp("completion")
    script = top / "kitcache.bash"
    script.write_text(run(top, "completion", "bash").out)
    (top / "my-cache" / "blobs").mkdir(parents=True)
    (top / "my-file").touch()
    shell = Bash(top, script)
    yield shell
    shell.end()


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("kitcache re", "kitcache reset "),
        ("kitcache comp", "kitcache completion "),
        ("kitcache completion b", "kitcache completion bash "),
        ("kitcache reset --dry", "kitcache reset --dry-run "),
        ("kitcache reset --min", "kitcache reset --min-age "),
        ("kitcache du --j", "kitcache du --json "),
        ("kitcache untag --lock", "kitcache untag --lock-timeout "),
        ("kitcache --ver", "kitcache --version "),
        ("kitcache reset my-c", "kitcache reset my-cache/"),
        ("kitcache du --json my-c", "kitcache du --json my-cache/"),
        ("kitcache du my-cache my-c", "kitcache du my-cache my-cache/"),
        ("kitcache ls ./my-c", "kitcache ls ./my-cache/"),
        ("kitcache untag my-c", "kitcache untag my-cache/"),
        ("kitcache why my-cache my-cache/b", "kitcache why my-cache my-cache/blobs/"),
    ],
)
def test_tab(bash: Bash, line: str, completed: str) -> None:
    assert bash.press_tab(line) == completed


@pytest.mark.parametrize("line", ["kitcache xyz", "kitcache reset --xyz", "kitcache reset my-f"])
def test_what_is_no_word_of_kitcache_is_left_as_it_is(bash: Bash, line: str) -> None:
    assert bash.press_tab(line) == line


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_each_shell_has_a_script_with_every_command(tmp_path: Path, shell: str) -> None:
    answer = run(tmp_path, "completion", shell)
    assert (answer.code, answer.err) == (0, "")
    assert all(name in answer.out for name in COMMANDS)
    # tcsh completes commands only: its language has no options of a subcommand.
    assert ("--min-age" in answer.out) is (shell != "tcsh")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_the_shell_can_read_it(tmp_path: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} on this machine")
    script = tmp_path / "script"
    script.write_text(run(tmp_path, "completion", shell).out)
    command = [program, "-f", str(script)] if shell == "tcsh" else [program, "-n", str(script)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=20)


def test_another_shell_is_a_usage_error(tmp_path: Path) -> None:
    answer = run(tmp_path, "completion", "cmd.exe")
    assert (answer.code, answer.out) == (2, "")
    assert sys.executable not in answer.err
