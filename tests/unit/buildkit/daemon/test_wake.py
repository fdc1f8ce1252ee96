"""The stopped container of a builder is started, and its daemon waited for; docker is a stub."""

import os
import sys
from pathlib import Path

import pytest

from kitcache.buildkit.client import Client
from kitcache.buildkit.daemon.address import find_daemon
from kitcache.errors import NoDaemon
from tests.hostile.fake_daemon import FakeDaemon
from tests.unit.buildkit.daemon.home import Home

NAME = "buildx_buildkit_b0"
# Keeps the container's state in a file; a daemon that was just started answers the third time.
DOCKER = """#!{python}
import os, pathlib, socket, subprocess, sys, threading
here = pathlib.Path(__file__).parent
state = here / "state"
with (here / "log").open("a") as log:
    print(*sys.argv[1:], file=log)
words = sys.argv[2:]
assert sys.argv[1] == "--context=far", sys.argv
if words == ["container", "inspect", "--format", "{{{{.State.Status}}}}", "{name}"]:
    if not state.exists():
        sys.exit("Error response from daemon: No such container: {name}")
    print(state.read_text())
elif words == ["start", "{name}"]:
    if (here / "broken").exists():
        sys.exit("Error response from daemon: failed to start")
    state.write_text("running")
elif words == ["exec", "-i", "{name}", "buildctl", "dial-stdio"]:
    if not state.exists():
        sys.exit("Error response from daemon: No such container: {name}")
    if state.read_text() != "running":
        sys.exit("Error response from daemon: container 12ab is not running")
    if (here / "log").read_text().count("exec") < 3:
        sys.exit("dial unix /run/buildkit/buildkitd.sock: connect: connection refused")
    line = socket.socket(socket.AF_UNIX)
    line.connect("{path}")
    def send():
        while data := os.read(0, 65536):
            line.sendall(data)
        line.shutdown(socket.SHUT_WR)
    threading.Thread(target=send, daemon=True).start()
    while data := line.recv(65536):
        os.write(1, data)
else:
    sys.exit(f"unexpected: {{words}}")
"""


class Docker:
    """The stub in PATH, and a home with a builder that is a container."""

    def __init__(self, top: Path, path: str) -> None:
        self.top = top
        home = Home(top / "home")
        home.add_builder("b", "docker-container", "far")
        self.environ = home.environ
        program = top / "docker"
        program.write_text(DOCKER.format(python=sys.executable, name=NAME, path=path))
        program.chmod(0o755)

    def set(self, state: str) -> None:
        (self.top / "state").write_text(state)

    @property
    def asked(self) -> list[str]:
        lines = (self.top / "log").read_text().splitlines()
        return [line.removeprefix("--context=far ").split()[0] for line in lines]

    def connect(self, *, timeout_s: float = 10) -> str:
        with Client(find_daemon(self.environ, builder="b"), timeout_s=timeout_s) as client:
            return client.info().version


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Docker(tmp_path, "nowhere")


@pytest.mark.parametrize("state", ["exited", "created"])
def test_a_stopped_container_is_started_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with FakeDaemon() as daemon:
        docker = Docker(tmp_path, daemon.path)
        docker.set(state)
        assert docker.connect() == "v0.99.0"
        assert docker.asked == ["exec", "container", "start", "exec", "exec"]
        assert docker.connect() == "v0.99.0"
        assert docker.asked[5:] == ["exec"]


@pytest.mark.parametrize("state", ["paused", "running"])
def test_any_other_state_is_left_as_it_is(docker: Docker, state: str) -> None:
    docker.set(state)
    with pytest.raises(NoDaemon) as caught:
        docker.connect()
    assert docker.asked == ["exec", "container"]
    assert caught.value.kind == "unreachable"
    words = {"paused": "container 12ab is not running", "running": "connection refused"}
    assert words[state] in str(caught.value)


def test_what_cannot_be_started_is_told_as_before(docker: Docker) -> None:
    with pytest.raises(NoDaemon, match=f"No such container: {NAME}") as caught:
        docker.connect()
    assert "docker buildx inspect --bootstrap" in str(caught.value)
    docker.set("exited")
    (docker.top / "broken").touch()
    with pytest.raises(NoDaemon, match="container 12ab is not running"):
        docker.connect()
    assert docker.asked == ["exec", "container", "exec", "container", "start"]


def test_a_daemon_that_does_not_come_up_is_given_up_in_time(docker: Docker) -> None:
    docker.set("exited")
    with pytest.raises(NoDaemon) as caught:
        docker.connect(timeout_s=2)
    assert "its container was stopped and has been started" in str(caught.value)
    assert docker.asked[:3] == ["exec", "container", "start"]


def test_a_container_that_was_named_by_its_address_is_not_started(docker: Docker) -> None:
    docker.set("exited")
    address = find_daemon(docker.environ, addr=f"docker-container://{NAME}?context=far")
    with pytest.raises(NoDaemon, match="is not running"):
        Client(address)
    assert docker.asked == ["exec"]
