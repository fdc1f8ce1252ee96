"""What only root can set up: other owners, small disks. Without it a test is skipped, aloud;
where CI is set it fails instead, so that nobody loses these tests without a word.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.hostile.command import Answer, run_command

NOBODY = 65534
# Pytest's capture manager, set by conftest.py.
capture: Any = None
PROGRAM = Path(__file__).with_name("other_uid.py")


def cannot(what: str, *, must_in_ci: bool = True) -> NoReturn:
    """This machine cannot run the test: said past the capture and skipped; failed where CI is set.

    must_in_ci: False for what depends on the file system that a CI happens to have.
    """
    if os.environ.get("CI") and must_in_ci:
        pytest.fail(f"CI has to run this test, and cannot: {what}")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        sys.stderr.write(f"\n*** NOT TESTED: {what}\n")
    pytest.skip(what)


def needs_root() -> None:
    if os.geteuid() != 0:
        cannot("needs root, to become somebody else or to mount a small disk")


@contextmanager
def reachable_box() -> Iterator[Path]:
    """A directory that every user can walk to; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="kitcache-hostile-") as name:
        box = Path(name)
        box.chmod(0o755)
        yield box


def run_as(uid: int, cwd: Path, *args: str) -> Answer:
    """`kitcache ARGS` as that user, who is in no other group."""
    return run_command([sys.executable, PROGRAM, str(uid), *args], cwd)


def give(top: Path, uid: int) -> None:
    """top and all below it belong to that user."""
    for path in [top, *top.rglob("*")]:
        os.chown(path, uid, uid, follow_symlinks=False)


@contextmanager
def small_disk(at: Path, **options: str) -> Iterator[Path]:
    """A tmpfs at that path, with size=..., nr_inodes=...; gone afterwards."""
    needs_root()
    at.mkdir(exist_ok=True)
    words = ",".join(f"{name}={value}" for name, value in options.items())
    command = ["mount", "-t", "tmpfs", "-o", words, "kitcache-test", str(at)]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode != 0:
        cannot(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
