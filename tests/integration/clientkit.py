"""What the tests of kitcache.Client share: contexts, and a step that does not end."""

import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Event

from kitcache.buildkit.status import BuildUpdate
from tests.integration.daemon import BASE

WAIT_S = 30.0
NOWHERE = ["type=cacheonly"]


def write(directory: Path, dockerfile: str, **files: str) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        (directory / name).write_text(text)
    return str(directory)


class Step:
    """A step that runs until it is killed. is_running: once its first line has come."""

    def __init__(self, directory: Path) -> None:
        self._word = f"step-{os.urandom(8).hex()}"
        self.is_running = Event()
        self.updates: list[BuildUpdate] = []
        self.context = write(
            directory,
            f"FROM {BASE}\n"
            f"RUN echo ready && busybox sh -c 'busybox sleep 600; busybox true {self._word}'\n",
        )

    def hear(self, update: BuildUpdate) -> None:
        self.updates.append(update)
        if any(log.data.startswith(b"ready") for log in update.logs):
            self.is_running.set()

    def processes(self) -> list[int]:
        """Of this step, wherever they run."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (directory / "cmdline").read_bytes().split(b"\0")
                if b"busybox" in words[0] and any(self._word.encode() in w for w in words):
                    found.append(int(directory.name))
        return found

    def expect_gone(self) -> None:
        """The daemon has ended it, or does so in a moment."""
        ends = time.monotonic() + WAIT_S
        while self.processes():
            assert time.monotonic() < ends, "the step goes on"
            time.sleep(0.02)

    def expect_drained(self) -> None:
        """The last news told that the step was cancelled."""
        errors = [
            v.error for u in self.updates for v in u.vertexes if v.name.startswith("[2/2] RUN")
        ]
        assert any("canceled" in error for error in errors), errors
