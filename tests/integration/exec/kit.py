"""Runs real docker clients on the private dockerd, with `kitcache exec --` before and without."""

import re
import subprocess
import sys
from pathlib import Path

from tests.integration.contexts import import_build, write_context
from tests.integration.daemon import Daemon
from tests.integration.witness import garbage, look

PREFIX = (sys.executable, "-m", "kitcache", "exec")
TIMEOUT_S = 90.0
BUILDX = "/usr/libexec/docker/cli-plugins/docker-buildx"

_VARIES = (
    (re.compile(r"#\d+ "), "#N "),
    (re.compile(r"\b[0-9.]+(s|kB|MB|B)\b"), "T"),
    (re.compile(r"sha256:[0-9a-f]+"), "sha256:X"),
    # Two stages FROM one base share a step, which either of them may give its name.
    (re.compile(r"\[\S+ 1/\d+\] FROM"), "[1] FROM"),
    (re.compile(r"time=\S+|spanID=\S+|traceID=\S+|local:\d+|\b[a-z0-9]{25}\b"), "ID"),
)


def run(
    daemon: Daemon, cwd: Path, *words: str | Path, stdin: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """A command in a directory, against the private daemon."""
    return subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env={**daemon.env, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
        check=False,
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
    )


def wrapped(
    daemon: Daemon, cwd: Path, *words: str | Path, options: tuple[str, ...] = (), stdin: bytes = b""
) -> str:
    """`kitcache exec OPTIONS -- WORDS`, which succeeds: what it says on stderr."""
    done = run(daemon, cwd, *PREFIX, *options, "--", *words, stdin=stdin)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert "Traceback" not in said
    return said


def said_by_kitcache(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("kitcache: ")]


def masked(text: bytes) -> list[str]:
    """The lines, sorted, without times, ids, sizes and steps' numbers, which differ by the run."""
    lines = text.decode().splitlines()
    for pattern, word in _VARIES:
        lines = [pattern.sub(word, line) for line in lines]
    kept = {re.sub(r"( (T|done|ID|\.\.\.))+$", "", line) for line in lines if line}
    return sorted(line for line in kept if not re.search(r"N (CACHED|DONE|\.\.\.)", line))


def context(top: Path, version: str) -> Path:
    """The context at that version: `app` changes, `lock` does not."""
    directory = write_context(top / "app", app=version, lock="1")
    text = (directory / "Dockerfile").read_text()
    # bake of buildx 0.13 does not pass its `network` on.
    (directory / "Dockerfile").write_text(text.replace("RUN ", "RUN --network=none "))
    return directory


def assert_swept_and_cached(daemon: Daemon, top: Path, cache: Path, tag: str) -> None:
    """No garbage, no holes, and a fresh daemon builds all from it."""
    assert (garbage(cache), look(cache).missing) == ({}, frozenset())
    states = import_build(daemon, top / "app", cache, tag, top / "out")
    assert set(states.values()) == {"CACHED"}, states
