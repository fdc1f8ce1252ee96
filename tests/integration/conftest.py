"""Fixtures of the tests with real makers; a maker that is missing is said out loud."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from kitcache.buildkit.client import Client
from tests.docs.blocks import ROOT

from .clientkit import Step
from .daemon import Daemon, DaemonError, NoDaemonError


@pytest.fixture(scope="session")
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A private dockerd, one for all tests of this process, with a base image."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(Daemon())
            running.try_step()
        except (NoDaemonError, DaemonError) as reason:
            _absent(request.config, f"no private dockerd: {reason}")
        yield running


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    """Ours, of the private daemon, which has the base image."""
    daemon.base_image()
    with Client(f"unix://{daemon.socket}") as opened:
        yield opened


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """A step that runs until it is killed, in a context of its own."""
    return Step(tmp_path / "step")


@pytest.fixture(scope="session")
def need(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Call it with the programs that a test runs: it skips the test when one is missing."""

    def check(*programs: str, root: bool = False) -> None:
        if root and os.geteuid():
            _absent(request.config, f"{programs[0]} needs root, and this is uid {os.geteuid()}")
        missing = [name for name in programs if shutil.which(name) is None]
        if missing:
            names = " ".join(missing)
            _absent(request.config, f"not installed: {names} (Debian: apt-get install {names})")

    return check


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory from which `pip install kitcache` gets this kitcache and its dependencies."""
    directory = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", directory]
    subprocess.run([*pip, ROOT], check=True, timeout=300)
    return directory


def _absent(config: pytest.Config, reason: str) -> NoReturn:
    """Skips, and says so past the capture; where CI is set, fails: there all is expected."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        sys.stderr.write(f"\n*** NOT TESTED: {reason}\n")
    pytest.skip(reason)
