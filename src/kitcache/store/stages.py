"""Staging directories, DIR/.kitcache/stage-…: the destinations of exports of `kitcache exec`.

Each has its own kitcache.lock. If no process holds it, the creator of the directory was killed.
"""

import os
import time
from contextlib import suppress
from typing import TypeVar

from kitcache.errors import KitcacheError
from kitcache.store.files import STATE_DIR
from kitcache.store.layout import Layout, open_directory
from kitcache.store.locks import lock_store
from kitcache.store.values import WaitPolicy

L = TypeVar("L", bound=Layout)

STAGE_PREFIX = "stage-"
"""The prefix of the name of a staging directory."""


def open_stage_directory(layout: L, name: str, state_fd: int) -> L | None:
    """Open a staging directory. Return None if it is missing; raise Unsafe for a symlink."""
    fd = open_directory(layout, name, state_fd, f"{STATE_DIR}/")
    path = os.path.join(layout.path, STATE_DIR, name)
    return None if fd is None else type(layout)(path, fd)


def clear_stages(layout: Layout, state_fd: int) -> None:
    """Delete each staging directory whose lock no process holds.

    A directory whose creator does not hold the lock yet can be among them. The creator notices
    that when it holds the lock, and creates another one. Never raises KitcacheError or OSError.
    """
    no_wait = WaitPolicy(0.0, time.sleep, lambda _: None)
    names: list[str] = []
    with suppress(OSError):
        names = [name for name in os.listdir(state_fd) if name.startswith(STAGE_PREFIX)]
    for name in names:
        import shutil  # noqa: PLC0415 - rarely needed

        with suppress(KitcacheError):
            stage = open_stage_directory(layout, name, state_fd)
            if stage is not None:
                with stage, lock_store(stage, "exclusive", no_wait):
                    shutil.rmtree(name, ignore_errors=True, dir_fd=state_fd)
