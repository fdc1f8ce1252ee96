"""An import budget of builds: what one loads on its way costs every one of them its time."""

from pathlib import Path

from tests.unit.loading import CHILD, NEVER_IN_BUILD, loaded

from .contexts import write_context
from .daemon import Daemon


def test_a_whole_build_with_caches_loads_nothing_dear(daemon: Daemon, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", app="one", lock="one")
    words = [
        f"--addr=unix://{daemon.socket}",
        "--network=none",
        f"--output=type=local,dest={tmp_path / 'out'}",
        f"--metadata-file={tmp_path / 'metadata.json'}",
        f"--cache-from=type=local,src={tmp_path / 'cache'}",
        f"--cache-to=type=local,dest={tmp_path / 'cache'},mode=max,reset=true",
    ]
    daemon.base_image()
    modules = loaded(CHILD, "build", *words, str(context), cwd=tmp_path)
    assert (tmp_path / "out" / "result").read_text() == "oneone"
    assert (tmp_path / "cache" / "index.json").exists()
    assert modules & NEVER_IN_BUILD == set()
