"""A docker-container builder whose container is stopped, in a real docker engine."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitcache.buildkit.client import Client
from kitcache.buildkit.daemon.address import find_daemon
from tests.integration.daemon import BASE, Daemon
from tests.unit.buildkit.daemon.home import Home

NAME = "buildx_buildkit_kit0"
# The buildctl of the container reaches the engine's own BuildKit, with this machine's Python.
BUILDCTL = "#!/bin/busybox sh\nexec /bin/busybox chroot /host {python} {relay}\n"
RELAY = """
import sys
sys.path[:0] = {path!r}
from tests.integration.listener import relay
relay({socket!r})
"""


@pytest.fixture
def container(daemon: Daemon, tmp_path: Path) -> Iterator[str]:
    relay, buildctl = tmp_path / "relay.py", tmp_path / "buildctl"
    relay.write_text(RELAY.format(path=sys.path, socket=str(daemon.socket)))
    buildctl.write_text(BUILDCTL.format(python=shlex.quote(sys.executable), relay=relay))
    buildctl.chmod(0o755)
    daemon.base_image()
    mounts = ("--volume=/:/host", f"--volume={buildctl}:/bin/buildctl:ro")
    command = ("/bin/busybox", "sleep", "1000")
    daemon.must("create", "--name", NAME, "--network=none", *mounts, BASE, *command)
    yield NAME
    daemon.must("rm", "--force", NAME)


def test_it_is_started_and_builds(daemon: Daemon, container: str, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.add_builder("kit", "docker-container", f"unix://{daemon.socket}")
    address = find_daemon(home.environ, builder="kit")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    with Client(address, timeout_s=20) as client:
        assert not client.is_engine
        assert client.build(str(tmp_path / "c"), outputs="type=cacheonly").ref
        state = daemon.must("container", "inspect", "--format", "{{.State.Status}}", container)
        assert state.strip() == "running"
        daemon.must("stop", "--time=0", container)
        assert client.workers()
