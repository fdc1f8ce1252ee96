"""DIR/.kitcache/stage-…: directories that exports of `kitcache exec` go to first.

Each has a kitcache.lock of its own, held while the directory is in use. A directory whose lock no
process holds was left by one that was killed.
"""

import os
import time
from contextlib import suppress
from typing import TypeVar

from kitcache.errors import KitcacheError
from kitcache.store.layout import Layout, open_directory
from kitcache.store.locks import lock_store
from kitcache.store.protocol import WaitPolicy
from kitcache.store.scan import STATE_DIR

L = TypeVar("L", bound=Layout)

STAGE_PREFIX = "stage-"
"""How the name of a staging directory begins."""


def open_stage_directory(layout: L, name: str, room_fd: int) -> L | None:
    """Open a staging directory; None where it is not there. Raises Unsafe where it is a link."""
    fd = open_directory(layout, name, room_fd, f"{STATE_DIR}/")
    path = os.path.join(layout.path, STATE_DIR, name)
    return None if fd is None else type(layout)(path, fd)


def clear_stages(layout: Layout, room_fd: int) -> None:
    """Delete each staging directory whose lock no process holds.

    One that was just made and whose lock is not held yet may be among them. Its maker sees that
    after it has the lock, and makes another one. Never raises a KitcacheError or an OSError: what
    cannot be deleted stays.
    """
    no_wait = WaitPolicy(0.0, time.sleep, lambda _: None)
    names: list[str] = []
    with suppress(OSError):
        names = [name for name in os.listdir(room_fd) if name.startswith(STAGE_PREFIX)]
    for name in names:
        import shutil  # noqa: PLC0415 - mostly there is none

        with suppress(KitcacheError):
            stage = open_stage_directory(layout, name, room_fd)
            if stage is not None:
                with stage, lock_store(stage, "exclusive", no_wait):
                    shutil.rmtree(name, ignore_errors=True, dir_fd=room_fd)
