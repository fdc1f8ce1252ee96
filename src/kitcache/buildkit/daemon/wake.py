"""Starts the stopped container of a builder, as buildx does before a build.

Source: docker/buildx, driver/docker-container/driver.go (Info, Bootstrap).
"""

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.daemon.transport import Deadline
from kitcache.errors import NoDaemon

_STOPPED = ("created", "exited")
_PAUSE_S = 0.1

Result = TypeVar("Result")


def connect_started(
    address: Address, deadline: Deadline, attempt: Callable[[], Result], failure: NoDaemon
) -> Result:
    """Start the container, repeat the attempt until its daemon answers, and return the result.

    Raises the last failure if the daemon does not answer before the deadline, and `failure`, of the
    attempt before, if the container was not stopped or cannot be started.
    """
    if not _start(address, deadline):
        raise failure
    while True:
        try:
            return attempt()
        except NoDaemon as error:
            if deadline.is_over(_PAUSE_S):
                error.details += ("its container was stopped and has been started",)
                raise
        time.sleep(_PAUSE_S)


def _start(address: Address, deadline: Deadline) -> bool:
    """Return True if the container was stopped and has been started."""
    position = address.command.index("exec")
    docker, name = address.command[:position], address.command[position + 2]
    inspect = ("container", "inspect", "--format", "{{.State.Status}}", name)
    try:
        is_stopped = _run(*docker, *inspect, deadline=deadline).strip() in _STOPPED
        if is_stopped:
            _run(*docker, "start", name, deadline=deadline)
    except (OSError, subprocess.SubprocessError):
        return False
    return is_stopped


def _run(*command: str, deadline: Deadline) -> str:
    done = subprocess.run(  # noqa: S603 - the docker that the user has
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
        timeout=deadline.remaining_s(),
    )
    return done.stdout
