"""--load on a buildkitd: the image goes through docker's own client into an engine."""

import subprocess
from pathlib import Path

from .contexts import write_context
from .daemon import Daemon
from .kit import command
from .listener import into_engine, listen_unix


def test_a_buildkitds_image_is_loaded(daemon: Daemon, tmp_path: Path) -> None:
    daemon.base_image()
    context = write_context(tmp_path / "context", app="loaded", lock="loaded")
    name, address = "kitcache-loaded:1", tmp_path / "s"
    assert daemon.docker("image", "inspect", name).code, "it is not there before"
    with listen_unix(address, into_engine(daemon.socket)):
        words = ("--addr", f"unix://{address}", "--network=none", "--load", "-t", name)
        done = subprocess.run(
            command("build", *words, context), env=daemon.env, capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr
    daemon.must("image", "rm", name)
