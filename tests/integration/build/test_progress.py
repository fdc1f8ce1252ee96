"""The ways to show a build's progress: the lines people know, in the order they know."""

import json
import os
import pty
import re
import select
import subprocess
import threading
from pathlib import Path

import pytest

from tests.integration import kit as command_line
from tests.integration.build.kit import Kit, context
from tests.integration.daemon import BASE, BUILD_TIMEOUT_S

TWO_STEPS = f"""\
FROM {BASE}
COPY data /data
RUN echo hello; echo there
"""
FAILS = f"""\
FROM {BASE}
RUN echo before && \\
    echo last words && \\
    exit 3
RUN true
"""
PICTURE = f"""\
------
 > [2/3] RUN echo before &&     echo last words &&     exit 3:
before
last words
------
Dockerfile:2
--------------------
   1 |     FROM {BASE}
   2 | >>> RUN echo before && \\
   3 | >>>     echo last words && \\
   4 | >>>     exit 3
   5 |     RUN true
--------------------
kitcache: failed to solve: process "/bin/sh -c echo before &&     echo last words &&     exit 3"\
 did not complete successfully: exit code: 3
"""
OPTIONS = ("--network=none", "--no-cache", "-o", "type=cacheonly")


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return context(tmp_path / "c", TWO_STEPS, data="x" * 5000)


def masked(text: str) -> list[str]:
    """The lines of plain progress without step numbers, times and sizes under way, sorted."""
    lines = [re.sub(r"^#\d+ ", "", line) for line in text.splitlines() if line]
    lines = [re.sub(r"^\d+\.\d+ |(?<= )\d+\.\d+s(?= done$|$)", "", line) for line in lines]
    lines = [re.sub(r" +done$", " done", line) for line in lines]
    under_way = re.compile(r"(transferring|resolve) (?!.*done$)|\.\.\.$|building (on|with) ")
    return sorted(line.strip() for line in lines if not under_way.match(line))


def test_plain_lines_are_those_of_buildx(kit: Kit, where: Path) -> None:
    kit.must("--progress=plain", *OPTIONS, where)  # both find the context transferred
    kit.buildx("--progress=plain", *OPTIONS, where)
    ours = kit.must("--progress=plain", *OPTIONS, where)
    theirs = kit.buildx("--progress=plain", *OPTIONS, where)
    assert (ours.out, theirs.out) == ("", "")
    assert "there" in masked(ours.err)
    assert set(masked(ours.err)) - {"CACHED"} == set(masked(theirs.err)) - {"CACHED"}


def test_plain_is_what_a_pipe_gets(kit: Kit, where: Path) -> None:
    built = kit.must(*OPTIONS, where)
    assert re.search(r"^#\d+ \[3/3\] RUN echo hello; echo there$", built.err, re.MULTILINE)
    assert re.search(r"^#\d+ \d+\.\d+ there$", built.err, re.MULTILINE)


def test_rawjson_is_a_document_a_line_as_buildx_has_them(kit: Kit, where: Path) -> None:
    built = kit.must("--progress=rawjson", *OPTIONS, where)
    ours = [json.loads(line) for line in built.err.splitlines()]
    decoder, theirs, text = json.JSONDecoder(), [], kit.buildx(
        "--progress=rawjson", *OPTIONS, where
    ).err  # fmt: skip
    while text.lstrip():
        value, end = decoder.raw_decode(text.lstrip())
        theirs.append(value)
        text = text.lstrip()[end:]

    def keys(documents: list[dict[str, list[dict[str, object]]]]) -> set[tuple[str, str]]:
        return {
            (kind, key)
            for document in documents
            for kind, values in document.items()
            for value in values or ()
            for key in value
        }

    def names(documents: list[dict[str, list[dict[str, object]]]]) -> set[object]:
        return {vertex["name"] for document in documents for vertex in document.get("vertexes", ())}

    assert keys(ours) == keys(theirs)
    assert names(ours) == {name for name in names(theirs) if "building with" not in str(name)}


def test_the_environment_chooses_where_the_command_line_does_not(kit: Kit, where: Path) -> None:
    mode = {"BUILDKIT_PROGRESS": "rawjson"}
    assert kit.must(*OPTIONS, where, env=mode).err.startswith("{")
    assert kit.must("--progress=plain", *OPTIONS, where, env=mode).err.startswith("building on")
    built = kit.run(*OPTIONS, where, env={"BUILDKIT_PROGRESS": "loud"})
    assert built.code == 2
    assert "BUILDKIT_PROGRESS: invalid progress mode loud" in built.err
    built = kit.run("--progress=rawjson", "-q", where)
    assert built.code == 2


def test_a_pipe_is_no_terminal(kit: Kit, where: Path) -> None:
    built = kit.run("--progress=tty", *OPTIONS, where)
    assert built.code == 2
    assert "terminal" in built.err


def on_terminal(kit: Kit, *args: str | Path) -> tuple[int, str]:
    """Exit code, and all that a terminal of 100 x 30 was sent."""
    master, slave = pty.openpty()
    os.set_inheritable(slave, True)
    subprocess.run(["stty", "rows", "30", "cols", "100"], stdin=slave, check=True)
    env = {**kit.env, "TERM": "xterm-256color"}
    child = subprocess.Popen(
        command_line.command("build", *args), env=env, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    ended = threading.Event()
    threading.Thread(target=lambda: (child.wait(BUILD_TIMEOUT_S), ended.set())).start()
    sent = b""
    while True:
        ready, _, _ = select.select([master], [], [], 0.05)
        if not ready and ended.is_set():
            break
        if ready:
            try:
                data = os.read(master, 65536)
            except OSError:  # the last one has closed the terminal
                break
            sent += data
    os.close(master)
    ended.wait(BUILD_TIMEOUT_S)
    return child.returncode, sent.decode()


@pytest.mark.parametrize("options", [("--progress=tty",), ()])
def test_a_terminal_gets_a_picture_of_steps(
    kit: Kit, where: Path, options: tuple[str, ...]
) -> None:
    code, sent = on_terminal(kit, *options, *OPTIONS, where)
    assert code == 0, sent
    last = sent.rpartition("[+] Building")[2]
    assert "FINISHED" in last
    assert "[3/3] RUN echo hello; echo there" in last
    assert "\x1b[" in sent


def test_a_failed_step_is_shown_with_its_log_and_its_lines(kit: Kit, tmp_path: Path) -> None:
    built = kit.run(*OPTIONS, context(tmp_path / "c", FAILS))
    assert built.code == 21
    tail = built.err[built.err.index("------\n >") :]
    assert tail == PICTURE
