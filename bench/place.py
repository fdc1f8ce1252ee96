"""The resources of the bench: its tools, two directories, the sizes of its trees."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from bench.clock import BenchError, Missing
from bench.dockerd import LazyDaemon
from bench.trees import Tree, holes, make_tree

_SWEEP_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sweep.c")


class Sizes(NamedTuple):
    """Numbers of blobs in trees, and of rounds."""

    sweep_blobs: int = 100_000
    memory_blobs: int = 1_000_000
    interrupt_blobs: int = 300_000
    umoci_blobs: int = 100_000
    sweep_rounds: int = 7
    disk_rounds: int = 7
    spare_rounds: int = 7
    read_rounds: int = 15
    start_rounds: int = 41
    lock_tags: int = 25
    interrupt_rounds: int = 9
    build_mib: int = 1024
    build_files: int = 20_000
    build_rounds: int = 5
    noop_rounds: int = 15
    verify_mib: int = 4096
    verify_rounds: int = 7
    object_blobs: int = 1_000_000
    object_deletions: int = 10_000
    object_rounds: int = 3
    copy_mib: int = 1024
    copy_rounds: int = 5


QUICK = Sizes(
    1_000,
    2_000,
    20_000,
    500,
    2,
    1,
    0,
    2,
    2,
    4,
    2,
    4,
    300,
    1,
    1,
    verify_mib=8,
    verify_rounds=1,
    object_blobs=5_000,
    object_deletions=200,
    object_rounds=1,
    copy_mib=20,
    copy_rounds=1,
)


class Place(NamedTuple):
    """The directories of the bench: empty ones on tmpfs and disk, and one for compiled tools."""

    tmpfs: str
    disk: str
    tools: str
    sizes: Sizes
    daemon: LazyDaemon

    def fresh(self, base: str, name: str = "tree") -> str:
        """Return a path below base that no run has used."""
        return os.path.join(base, f"{name}-{next(_numbers)}")

    def tree(self, base: str, blobs: int, live: int | None = None) -> Tree:
        """Make a tree of blobs, one in a hundred of them live. Raises Missing: no space."""
        self.expect_room(base, blobs)
        return make_tree(self.fresh(base), blobs, live or max(3, blobs // 100))

    def expect_room(self, base: str, blobs: int) -> None:
        """Raise Missing if the small files do not fit below base."""
        room = os.statvfs(base)
        needed = blobs * max(4096, room.f_frsize)
        has_inodes = room.f_files == 0 or room.f_favail >= blobs
        if room.f_bavail * room.f_frsize < needed or not has_inodes:
            raise Missing(f"{blobs:,} blobs need {needed / 2**30:.1f} GiB in {file_system(base)}")

    def keep_list(self, tree: Tree) -> str:
        """Write a file with the names of a tree's live blobs, one per line."""
        path = self.fresh(self.tools, "keep")
        with open(path, "w", encoding="ascii") as file:
            file.writelines(f"{name}\n" for name in sorted(tree.live))
        return path


_numbers = itertools.count()


@contextmanager
def open_place(tmpfs: str, disk: str, sizes: Sizes) -> Iterator[Place]:
    """Create directories below these two, and delete them at the end."""
    os.makedirs(disk, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="kitcache-bench-", dir=tmpfs) as fast,
        tempfile.TemporaryDirectory(prefix="kitcache-bench-", dir=disk) as slow,
        tempfile.TemporaryDirectory(prefix="kitcache-bench-") as tools,
        LazyDaemon() as daemon,
    ):
        yield Place(fast, slow, tools, sizes, daemon)


def kitcache(*words: str) -> list[str]:
    """Return the command as users start it: the console script next to this interpreter."""
    script = os.path.join(os.path.dirname(sys.executable), "kitcache")
    if os.path.exists(script):
        return [script, *words]
    return [sys.executable, "-m", "kitcache", *words]


def sweep_binary(place: Place) -> str:
    """Return the path of the C loop, compiled once."""
    binary = os.path.join(place.tools, "sweep")
    if not os.path.exists(binary):
        compiler = tool("cc")
        subprocess.run([compiler, "-O2", "-o", binary, _SWEEP_SOURCE], check=True)
    return binary


def tool(name: str) -> str:
    """Return the path of a program. Raises Missing."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def check_swept(tree: Tree) -> None:
    """Raise BenchError unless exactly the live blobs exist, and are intact."""
    left = len(os.listdir(tree.blob_dir))
    if left != len(tree.live) or holes(tree.path):
        raise BenchError(f"{left} blobs are left of {len(tree.live)} live ones")


def file_system(path: str) -> str:
    """Return the type of the file system of a path."""
    real = os.path.realpath(path)
    best = ("", "unknown")
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            _, mount, kind, *_ = line.split()
            inside = real == mount or real.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best[0]):
                best = (mount, kind)
    return best[1]


def discard(paths: Sequence[str]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
