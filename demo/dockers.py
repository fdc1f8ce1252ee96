"""The docker daemons that the demo can use: the existing one, or a private one.

Each is a context manager with the environment in which `docker` and `kitcache build` find it.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from realcache import NoBuilderError

# Each of these selects another builder than docker's own.
_ELSEWHERE = ("BUILDX_BUILDER", "BUILDKIT_HOST")
_TESTS = Path(__file__).resolve().parent.parent / "tests"


@contextmanager
def existing_docker(work: Path) -> Iterator[Mapping[str, str]]:
    """Yield the environment of the docker that the user's client uses."""
    yield _client(os.environ, work)


@contextmanager
def private_docker(work: Path) -> Iterator[Mapping[str, str]]:
    """Start a daemon, and stop it at the end. Raises NoBuilderError if none can run."""
    sys.path.append(str(_TESTS))
    try:
        from integration.daemon import Daemon, DaemonError, NoDaemonError  # noqa: PLC0415
    except ImportError as error:
        raise NoBuilderError("this copy of kitcache has no tests") from error
    try:
        daemon = Daemon()
        daemon.__enter__()
    except (NoDaemonError, DaemonError) as reason:
        raise NoBuilderError(str(reason)) from reason
    with daemon:
        yield _client(daemon.env, work)


def _client(environ: Mapping[str, str], work: Path) -> dict[str, str]:
    env = {name: value for name, value in environ.items() if name not in _ELSEWHERE}
    # buildx would record each build in the user's directory.
    return {**env, "BUILDX_CONFIG": str(work / "buildx"), "NO_COLOR": "1"}
