"""With and without the prefix: the same arguments, input, output, environment and exit code."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.exec_client import EXIT, LINES
from tests.hostile.exec_kit import PREFIX, bare, install, run

COMMANDS = (
    ["docker", "build", "."],
    ["docker", "-c", "build", "-H=tcp://x", "image", "build", "-qt", "--cache-to", "--", "."],
    ["docker", "buildx", "b", "--build-arg", "--cache-to=type=local", "-o-", "-"],
    ["docker", "build", "--cache-to", 'type=gha,reset=true,"ref=a,b"', "--cache-from=a,b", "."],
    ["docker", "build", "--cache-to=Type=local,DEST=c,mode=max", "--label", "\udcff\n ü", "-"],
    ["docker-buildx", "build", "--unknown", "x", "."],
    ["buildctl", "build", "-export-cache", "type=local,dest=c", "--opt", "--import-cache"],
)  # fmt: skip


def seen_by(
    words: list[str], cwd: Path, env: dict[str, str], runs: Any, *options: str, **more: Any
) -> tuple[dict[str, Any], "subprocess.CompletedProcess[bytes]"]:
    record = cwd / "record"
    done = runs(words, cwd, {**env, "EXEC_RECORD": str(record)}, *options, **more)
    return json.loads(record.read_text()), done


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(map(ascii, words)))
def test_what_asks_for_no_reset_arrives_byte_for_byte(words: list[str], tmp_path: Path) -> None:
    env = install(tmp_path / "bin", "docker", "docker-buildx", "buildctl")
    env["EXEC_DO"] = "fail"
    data = bytes(range(256)) * 1000
    alone, first = seen_by(words, tmp_path, env, bare, input=data)
    wrapped, second = seen_by(words, tmp_path, env, run, "--in-place", input=data)
    assert alone["stdin"] == data.hex()
    assert wrapped == alone
    assert (first.returncode, first.stdout) == (EXIT, LINES[0])
    assert (second.returncode, second.stdout, second.stderr) == (EXIT, LINES[0], first.stderr)


def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """As nohup, `trap '' INT` and a shell's & have it."""
    env = {**install(tmp_path / "bin"), "EXEC_RECORD": str(tmp_path / "record")}
    words = ["docker", "build", "--cache-to=type=local,dest=c", "."]
    for names in ("INT", "QUIT", "HUP INT QUIT TERM USR1"):
        seen = []
        for line in (words, [*PREFIX, "--", *words]):
            script = f"trap '' {names}; exec \"$@\""
            assert bare(["sh", "-c", script, "sh", *line], tmp_path, env).returncode == 0
            seen.append(json.loads((tmp_path / "record").read_text())["ignored"])
        assert seen[1] == seen[0]
        assert {getattr(signal, f"SIG{name}") for name in names.split()} <= set(seen[1])


def test_only_reset_is_missing(tmp_path: Path) -> None:
    env = install(tmp_path / "bin")
    value = 'Type=local,RESET=true,"dest=a,b",Mode=max'
    words = ["docker", "build", "--cache-to", value, f"--cache-to={value}c,tag=x", "."]
    wrapped, _ = seen_by(words, tmp_path, env, run, input=b"")
    kept = [bytes.fromhex(word).decode() for word in wrapped["argv"][1:]]
    # Of two exports in one build each has its own directory: only `dest` differs.
    assert kept[0] == "build"
    assert kept[1] == "--cache-to"
    assert kept[2].startswith('Type=local,"dest=/')
    assert kept[2].endswith('",Mode=max')


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_a_closed_stream_is_closed_for_the_command_too(fd: int, tmp_path: Path) -> None:
    env = {**install(tmp_path / "bin"), "EXEC_RECORD": str(tmp_path / "record")}
    words = [*PREFIX, "--", "docker", "build", "--cache-to=type=local,dest=c", "."]
    script = f'exec "$@" {fd}>&-'
    done = subprocess.run(["sh", "-c", script, "sh", *words], cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0
    assert json.loads((tmp_path / "record").read_text())["closed"] == [fd]


def test_the_command_has_the_terminal(tmp_path: Path) -> None:
    env = install(tmp_path / "bin")
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\ntest -t 0 && test -t 1 && tty\n")
    words = [*PREFIX, "--", "docker", "build", "--cache-to=type=local,dest=c,reset=0", "."]
    code = (
        "import pty, sys, os\n"
        "status = pty.spawn(sys.argv[1:])\n"
        "sys.exit(os.waitstatus_to_exitcode(status))"
    )
    done = bare([sys.executable, "-c", code, *words], tmp_path, env)
    assert done.returncode == 0, done
    assert b"/dev/pts/" in done.stdout


def test_a_relative_program_and_directory_stay_relative(tmp_path: Path) -> None:
    env = install(tmp_path / "bin")
    done = run(["bin/docker", "build", "--cache-to=type=local,dest=c", "."], tmp_path, env)
    assert done.returncode == 0
    assert os.listdir(tmp_path / "c")


def test_the_right_words_for_a_program_that_is_not_there(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path)}
    for words in (["docker", "build", "--cache-to=type=local,dest=c", "."],
                  ["docker", "buildx", "bake"]):  # fmt: skip
        done = run(words, tmp_path, env)
        assert done.returncode == 127
        assert b"docker is not installed" in done.stderr
    assert not (tmp_path / "c").exists()
