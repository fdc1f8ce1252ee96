"""`docker kitcache`, called by the real docker client, with a configuration of its own."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kitcache.cli import PLUGIN_CALL
from kitcache.wrap.plugin import LAUNCHER, SYSTEM_DIRECTORIES, install_plugin
from tests.hostile.build import make_sample
from tests.hostile.command import Answer, run_command
from tests.integration.daemon import Daemon

SCRIPT = Path(sys.executable).with_name("kitcache")
LIMIT_S = 60.0


class Docker:
    """The client, in a directory, with docker-kitcache in its configuration."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.config = top / "docker"
        self.env = {"DOCKER_CONFIG": str(self.config)}
        install_plugin(str(self.config / "cli-plugins"), (str(SCRIPT), PLUGIN_CALL))

    def kitcache(self, *words: str) -> Answer:
        return run_command([SCRIPT, *words], self.top, env=self.env, limit_s=LIMIT_S)

    def __call__(self, *words: str | Path, **env: str) -> Answer:
        command = ["docker", *words]
        return run_command(command, self.top, env=self.env | env, limit_s=LIMIT_S)


@pytest.fixture
def docker(need: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    need("docker")
    for name in [
        name for name in os.environ if name.startswith(("DOCKER_", "BUILDX_", "BUILDKIT_"))
    ]:
        monkeypatch.delenv(name)
    return Docker(tmp_path)


def test_docker_takes_it_for_a_plugin(docker: Docker) -> None:
    assert "  kitcache*   Build with BuildKit" in docker("--help").out
    # Without a daemon the command fails, after it has printed what it knows.
    said = docker("info", "--format", "{{json .ClientInfo.Plugins}}").out
    (found,) = [plugin for plugin in json.loads(said) if plugin["Name"] == "kitcache"]
    assert found["Path"] == str(docker.config / "cli-plugins" / LAUNCHER)
    assert found.get("Err") is None
    assert f"kitcache {found['Version']}\n" == docker("kitcache", "--version").out
    assert not (docker.config / "config.json").exists()


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ("kitcache --help", "docker kitcache [-h]"),
        ("help kitcache", "docker kitcache [-h]"),
        ("--help kitcache reset", "docker kitcache [-h]"),
        ("help kitcache reset", "docker kitcache reset "),
    ],
)
def test_help(docker: Docker, line: str, usage: str) -> None:
    answer = docker(*line.split())
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"usage: {usage}")


def test_commands_say_and_do_the_same(docker: Docker) -> None:
    sample = make_sample(docker.top)
    for words in (["ls", "cache"], ["du", "--json", "cache"], ["ls", "nowhere"], ["reset"]):
        ours, theirs = docker.kitcache(*words), docker("kitcache", *words)
        assert theirs == ours._replace(
            err=ours.err.replace("kitcache reset", "docker kitcache reset")
        )
    assert docker("kitcache", "reset", "cache").code == 0
    assert {path.name for path in (sample.dir / "blobs/sha256").iterdir()} == sample.live


def test_completion(docker: Docker) -> None:
    command = ["docker", "__complete", "kitcache", "un"]
    said = subprocess.check_output(command, env=os.environ | docker.env, text=True)
    assert said == "untag\tremove entries from index.json\n:4\n"


def test_docker_s_options_choose_the_daemon(docker: Docker) -> None:
    """No daemon is there: the address that was tried is in the error."""
    flags = ("-H", "unix:///nowhere/host.sock")
    answer = docker(
        *flags, "kitcache", "build", ".", DOCKER_CONTEXT="other", BUILDKIT_HOST="tcp://o:1"
    )
    assert answer.code == 20
    assert "unix:///nowhere/host.sock" in answer.err
    endpoint = "host=unix:///nowhere/context.sock"
    assert docker("context", "create", "mine", "--docker", endpoint).code == 0
    for words, env in (
        (("--context", "mine", "kitcache"), {"DOCKER_HOST": "unix:///nowhere/env.sock"}),
        (("kitcache",), {"DOCKER_CONTEXT": "mine"}),
    ):
        answer = docker(*words, "build", ".", **env)
        assert answer.code == 20
        assert "unix:///nowhere/context.sock" in answer.err


def test_another_configuration_is_followed(docker: Docker) -> None:
    docker.config.rename(docker.top / "moved")
    endpoint = "host=unix:///nowhere/context.sock"
    flags = ("--config", "moved", "--context", "mine")
    docker(*flags[:2], "context", "create", "mine", "--docker", endpoint)
    answer = docker(*flags, "kitcache", "build", ".")
    assert "unix:///nowhere/context.sock" in answer.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_docker_cancels_us(docker: Docker, number: signal.Signals) -> None:
    sample = make_sample(docker.top)
    with open(sample.dir / "kitcache.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        child = subprocess.Popen(
            ["docker", "kitcache", "reset", "--lock-timeout", "1h", "cache"],
            cwd=docker.top,
            env=os.environ | docker.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stderr
        assert "waiting" in child.stderr.readline()
        child.send_signal(number)
        out, err = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, out) == (130, "")
    assert "stopped on request" in err
    assert sample.garbage <= {path.name for path in (sample.dir / "blobs/sha256").iterdir()}


def test_hooks_are_answered_with_nothing(docker: Docker) -> None:
    """docker asks after a command, on a terminal, those plugins that config.json names."""
    config = {"features": {"hooks": "true"}, "plugins": {"kitcache": {"hooks": "context"}}}
    (docker.config / "config.json").write_text(json.dumps(config))
    launcher = docker.config / "cli-plugins" / LAUNCHER
    asked = docker.top / "asked"
    launcher.write_text(launcher.read_text().replace("exec", f"echo $1 $2 >> '{asked}'\nexec"))
    master, slave = os.openpty()
    child = subprocess.Popen(
        ["docker", "context", "ls", "--quiet"],
        env=os.environ | docker.env,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    try:
        while data := os.read(master, 4096):
            seen += data
    except OSError:  # the last writer has gone
        pass
    finally:
        os.close(master)
    assert child.wait(timeout=LIMIT_S) == 0
    assert seen.split() == [b"default"]
    assert asked.read_text().splitlines() == [
        "docker-cli-plugin-metadata",
        "kitcache docker-cli-plugin-hooks",
    ]


IN_A_SYSTEM_OF_ITS_OWN = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay -o lowerdir=/usr,upperdir=/mnt/upper,workdir=/mnt/work overlay /usr
exec "$@"
"""

CLIMB = """
import os, subprocess, sys
from kitcache.wrap.plugin import SYSTEM_DIRECTORIES, find_plugins, install_plugin, search_path
places = search_path(os.environ["DOCKER_CONFIG"], [sys.argv[1]])
for place in reversed(places):
    install_plugin(place, (sys.argv[2], place))
    said = subprocess.check_output(["docker", "kitcache"], text=True)
    print(place, said, os.path.dirname(find_plugins(places)[0].path), flush=True)
"""
NAMES_ITS_PLACE = """#!/bin/sh
if [ "$2" = docker-cli-plugin-metadata ]
then echo '{"SchemaVersion": "0.1.0", "Vendor": "kitcache"}'
else printf %s "$1"
fi
"""


def in_a_system_of_its_own(docker: Docker, *command: str | Path) -> Answer:
    """Runs a command as root where /usr can be written to and is thrown away afterwards."""
    shell = ["unshare", "--mount", "sh", "-c", IN_A_SYSTEM_OF_ITS_OWN, "sh", *command]
    return run_command(shell, docker.top, env=docker.env, limit_s=LIMIT_S)


def test_of_several_docker_takes_the_one_that_we_say(
    docker: Docker, need: Callable[..., None]
) -> None:
    need("unshare", root=True)
    extra = docker.top / "extra"
    (docker.config / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(extra)]}))
    docker.kitcache("plugin", "remove")
    program = docker.top / "program"
    program.write_text(NAMES_ITS_PLACE)
    program.chmod(0o755)
    answer = in_a_system_of_its_own(docker, sys.executable, "-c", CLIMB, str(extra), program)
    places = [str(extra), str(docker.config / "cli-plugins"), *SYSTEM_DIRECTORIES]
    expected = "".join(f"{place} {place} {place}\n" for place in reversed(places))
    assert answer.out == expected, answer.err


def test_for_every_user(docker: Docker, need: Callable[..., None]) -> None:
    need("unshare", root=True)
    docker.kitcache("plugin", "remove")
    lines = f"""
        {SCRIPT} plugin install --system && docker kitcache --version
        {SCRIPT} plugin remove --system && ! docker kitcache --version 2>&1
    """
    answer = in_a_system_of_its_own(docker, "sh", "-c", lines)
    path = f"{SYSTEM_DIRECTORIES[0]}/{LAUNCHER}"
    first, version, removed, *_ = answer.out.splitlines()
    assert first.startswith(f"{path}: installed;"), answer.err
    assert version == docker.kitcache("--version").out.strip()
    assert removed == f"{path}: removed"


def test_a_build_on_the_daemon_that_docker_was_told(docker: Docker, daemon: Daemon) -> None:
    (docker.top / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    words = ["build", "--cache-to", "type=local,dest=cache,reset=true", "."]
    answer = docker("-H", f"unix://{daemon.socket}", "kitcache", *words)
    assert answer.code == 0, answer.err
    assert "exported tag 'latest'" in answer.err
    docker("context", "create", "mine", "--docker", f"host=unix://{daemon.socket}")
    answer = docker("--context", "mine", "kitcache", *words)
    assert (answer.code, "docker context 'mine'" in answer.err) == (0, True), answer.err
