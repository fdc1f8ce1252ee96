"""Runs commands with and without `kitcache exec --`, on the client of exec_client.py."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).with_name("exec_client.py")
PREFIX = [sys.executable, "-m", "kitcache", "exec"]
LIMIT_S = 30.0


def install(directory: Path, *names: str) -> dict[str, str]:
    """The client under these names; the environment whose PATH finds it first."""
    directory.mkdir(exist_ok=True)
    for name in names or ("docker",):
        path = directory / name
        if not path.exists():
            path.write_text(f'#!/bin/sh\nexec {sys.executable} -I {CLIENT} "$@"\n')
            path.chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


def run(
    words: list[str], cwd: Path, env: dict[str, str], *options: str, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    """`kitcache exec OPTIONS -- WORDS`."""
    return bare([*PREFIX, *options, "--", *words], cwd, env, **more)


def bare(
    words: list[str], cwd: Path, env: dict[str, str], **more: Any
) -> subprocess.CompletedProcess[bytes]:
    """A command to its end."""
    if "input" not in more:
        more.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        words, cwd=cwd, env=env, check=False, capture_output=True, timeout=LIMIT_S, **more
    )


def wait_until(happens: Callable[[], object]) -> None:
    """Returns once it does; fails after a while."""
    ends = time.monotonic() + LIMIT_S
    while not happens():
        assert time.monotonic() < ends, "it does not happen"
        time.sleep(0.005)
