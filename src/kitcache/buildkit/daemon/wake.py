"""A builder's container that is stopped is started, as buildx does it before a build.

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

Made = TypeVar("Made")


def connect_started(
    address: Address, deadline: Deadline, attempt: Callable[[], Made], failure: NoDaemon
) -> Made:
    """What an attempt makes once the container runs and its daemon answers.

    failure: of the attempt before, raised again where the container is not stopped, and cannot be
    started. Raises the last failure where the daemon does not answer until the deadline.
    """
    if not _start(address, deadline):
        raise failure
    while True:
        try:
            return attempt()
        except NoDaemon as error:
            if deadline.is_over(_PAUSE_S):
                error.details += ("its container was stopped, and has been started",)
                raise
        time.sleep(_PAUSE_S)


def _start(address: Address, deadline: Deadline) -> bool:
    """Start the container if it is stopped; whether that was so and was done."""
    at = address.command.index("exec")
    docker, name = address.command[:at], address.command[at + 2]
    state = ("container", "inspect", "--format", "{{.State.Status}}", name)
    try:
        is_stopped = _ask(*docker, *state, deadline=deadline).strip() in _STOPPED
        if is_stopped:
            _ask(*docker, "start", name, deadline=deadline)
    except (OSError, subprocess.SubprocessError):
        return False
    return is_stopped


def _ask(*command: str, deadline: Deadline) -> str:
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
