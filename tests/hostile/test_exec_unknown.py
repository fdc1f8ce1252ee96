"""`kitcache exec` before what it does not understand: never worse than without."""

import fcntl
import json
import os
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from tests.hostile.exec_kit import LIMIT_S, PREFIX, bare, install, run, wait_until

PROGRAMS = ("docker", "make", "podman", "nerdctl", "buildah", "buildctl")
EXPORT = "type=local,dest=c,reset=true"

# A client that refuses the question in its own words, and does as FAILS says when it is run.
REFUSING = """#!/bin/sh
case " $* " in *" --print "*) cat >asked; echo 'ERROR: no print here' >&2; exit 15;; esac
cat >read
echo "argv: $*"
test -z "$FAILS" || { echo "ERROR: it fails" >&2; exit 9; }
"""
# A client that keeps what it reads, as it is asked and as it builds.
READING = """#!/bin/sh
case " $* " in *" --print "*) cat >asked; echo '{"target": {}}';; *) cat >read;; esac
"""

# A client that does not answer, until a signal ends it.
SLOW = """#!/bin/sh
case " $* " in *" --print "*) echo $$ >asked; exec sleep 600;; esac
"""
# A compose that warns of a project as it was written, but not of one that is resolved.
WARNING = """#!/bin/sh
case "$*" in
*--services*) echo web; exit;;
*kitcache-exec-*) exit;;
*config*) cat project;;
esac
echo 'WARN: $X is not set' >&2
"""


def client(tmp_path: Path) -> dict[str, str]:
    env = install(tmp_path / "bin", *PROGRAMS)
    return {**env, "EXEC_RECORD": str(tmp_path / "record")}


def script(tmp_path: Path, text: str, **more: str) -> dict[str, str]:
    """The environment of a client that is this script."""
    env = install(tmp_path / "bin")
    (tmp_path / "bin" / "docker").write_text(text)
    return {**env, **more}


UNKNOWN = pytest.mark.parametrize(
    ("words", "says"),
    [
        (["make", "build"], "'make' is not a known build client"),
        (["docker", "ps"], "this docker command does not build"),
        (["docker", "buildx", "du"], "this buildx command does not build"),
        (["docker", "--new-option", "build", "."], "unknown option --new-option: it may take"),
        (["buildctl", "du"], "this buildctl command does not build"),
        (["podman", "buildx", "build"], "flock --shared DIR/kitcache.lock podman …"),
        (["nerdctl", "build", "."], "nerdctl is not understood (nerdctl build .)"),
        (["bin/buildah", "bud"], "buildah is not understood (bin/buildah bud)"),
        (
            ["docker", "build", "--new", "--cache-to", "x", "."],
            "may take the next word, '--cache-to'",
        ),
    ],
)


@UNKNOWN
def test_what_is_not_understood_runs_as_it_is_and_one_line_says_so(
    words: list[str], says: str, tmp_path: Path
) -> None:
    env = client(tmp_path)
    alone = bare(words, tmp_path, env)
    seen = json.loads((tmp_path / "record").read_text())
    done = run(words, tmp_path, env)
    assert json.loads((tmp_path / "record").read_text()) == seen
    assert (done.returncode, done.stdout) == (alone.returncode, alone.stdout)
    line, rest = done.stderr.split(b"\n", 1)
    assert says in line.decode()
    assert line.startswith(b"kitcache: warning: no cache of this command is guarded: ")
    assert rest == alone.stderr
    assert sorted(os.listdir(tmp_path)) == ["bin", "record"]


@UNKNOWN
def test_only_where_it_asks_for_a_reset_it_is_refused(
    words: list[str], says: str, tmp_path: Path
) -> None:
    env = client(tmp_path)
    for option, line in (("--reset", words), ("--quiet", [*words, f"--cache-to={EXPORT}"])):
        done = run(line, tmp_path, env, option)
        assert done.returncode == 2
        assert says.partition(" (")[0] in done.stderr.decode(errors="replace")
    assert not (tmp_path / "record").exists()


def test_no_command_at_all(tmp_path: Path) -> None:
    done = run([], tmp_path, client(tmp_path))
    assert done.returncode == 2
    assert b"no command was given" in done.stderr


def test_where_the_question_fails_the_command_speaks_alone(tmp_path: Path) -> None:
    env = script(tmp_path, REFUSING, FAILS="1")
    words = ["docker", "buildx", "bake", "no-such-target"]
    alone, done = bare(words, tmp_path, env), run(words, tmp_path, env)
    assert (done.returncode, done.stdout, done.stderr) == (9, alone.stdout, alone.stderr)


def test_where_only_the_question_fails_it_is_said_afterwards(tmp_path: Path) -> None:
    env = script(tmp_path, REFUSING)
    words = ["docker", "buildx", "bake", "-f", "-", "--set", "*.cache-to=type=local,dest=c"]
    data = bytes(range(256)) * 1000
    done = run(words, tmp_path, env, input=data)
    assert (done.returncode, done.stdout.decode()) == (0, f"argv: {' '.join(words[1:])}\n")
    assert (tmp_path / "asked").read_bytes() == (tmp_path / "read").read_bytes() == data
    assert done.stderr == (
        b"kitcache: warning: no cache of this command was guarded: the client did not report its"
        b" exports (ERROR: no print here)\n"
    )
    assert not (tmp_path / "c").exists()


def test_where_the_question_fails_no_reset_is_done_without_it(tmp_path: Path) -> None:
    env = script(tmp_path, REFUSING)
    words = ["docker", "buildx", "bake"]
    for option, line in (("--reset", words), ("--quiet", [*words, f"--set=a.cache-to={EXPORT}"])):
        done = run(line, tmp_path, env, option)
        assert (done.returncode, done.stdout) == (15, b"")
        first, second, _ = done.stderr.split(b"\n")
        assert first == b"ERROR: no print here"
        assert second.startswith(b"kitcache: nothing was run: a reset was requested, ")
    assert not (tmp_path / "read").exists()


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["-f", "-"], {}),
        (["--file=a.hcl", "-f-", "-f", "b.hcl"], {}),
        ([], {"BUILDX_BAKE_FILE": "a.hcl:-"}),
        ([], {"BUILDX_BAKE_FILE": "a.hcl@-", "BUILDX_BAKE_PATH_SEPARATOR": "@"}),
        (["https://host/repo.git", "-f", "cwd://-"], {}),
    ],
)
def test_a_definition_that_comes_in_pieces_is_handed_on_whole(
    words: list[str], more: dict[str, str], tmp_path: Path
) -> None:
    env = script(tmp_path, READING, **more)
    command = [*PREFIX, "--", "docker", "buildx", "bake", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdin=pipe, bufsize=0) as process:
        assert process.stdin is not None
        fd = process.stdin.fileno()
        for piece in (b"{", b'"target": {', b"}}"):
            process.stdin.write(piece)
            wait_until(lambda: fcntl.ioctl(fd, termios.FIONREAD, bytes(4)) == bytes(4))
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0
    whole = b'{"target": {}}'
    assert (tmp_path / "asked").read_bytes() == (tmp_path / "read").read_bytes() == whole


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_client_that_is_asked_ends_with_us(name: str, tmp_path: Path) -> None:
    env = script(tmp_path, SLOW)
    words = [*PREFIX, "--", "docker", "buildx", "bake", "https://host/repo.git", "-f", "cwd://-"]
    asked, definition = tmp_path / "asked", tmp_path / "definition"
    definition.write_bytes(bytes(500_000))  # more than a pipe takes: it is still being written
    with (
        definition.open() as stdin,
        subprocess.Popen(
            words, cwd=tmp_path, env=env, stdin=stdin, stderr=subprocess.PIPE
        ) as process,
    ):
        wait_until(lambda: asked.exists() and asked.read_text())
        process.send_signal(getattr(signal, name))
        code, client_pid = process.wait(LIMIT_S), int(asked.read_text())
        is_left = Path(f"/proc/{client_pid}").exists()
        if is_left:
            os.kill(client_pid, signal.SIGKILL)
        _, said = process.communicate(timeout=LIMIT_S)
    assert (code, is_left) == (130, False)
    assert b"the command was not started" in said


@pytest.mark.parametrize("options", [(), ("--in-place",)])
def test_what_compose_warns_of_is_said_once(options: tuple[str, ...], tmp_path: Path) -> None:
    env = script(tmp_path, WARNING)
    build = {"context": "https://x/y.git", "cache_to": ["type=local,dest=c"]}
    (tmp_path / "project").write_text(json.dumps({"services": {"web": {"build": build}}}))
    words = ["docker", "compose", "build"]
    assert bare(words, tmp_path, env).stderr == b"WARN: $X is not set\n"
    done = run(words, tmp_path, env, *options)
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == b"WARN: $X is not set"
    assert done.stderr.count(b"WARN") == 1


@pytest.mark.parametrize("stdin", ["<&-", "0>/dev/null"])
def test_a_definition_from_a_stdin_that_is_none_is_the_clients_to_miss(
    stdin: str, tmp_path: Path
) -> None:
    env = script(tmp_path, REFUSING, FAILS="1")
    words = ["docker", "buildx", "bake", "-f", "-"]
    ends = []
    for prefix in ([], [*PREFIX, "--"]):
        line = ["sh", "-c", f'exec "$@" {stdin}', "sh", *prefix, *words]
        done = bare(line, tmp_path, env)
        ends.append((done.returncode, done.stdout, done.stderr.splitlines()[-1]))
    assert ends[1] == ends[0]


def test_where_another_file_is_named_the_environment_does_not_count(tmp_path: Path) -> None:
    """Then what is on stdin is the command's alone, and not waited for."""
    env = script(tmp_path, READING, BUILDX_BAKE_FILE="-")
    run(["docker", "buildx", "bake", "-f", "a.hcl"], tmp_path, env, input=b"x")
    assert (tmp_path / "asked").read_bytes() == b""
    assert (tmp_path / "read").read_bytes() == b"x"
