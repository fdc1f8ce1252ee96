"""Rows: reset of a mostly unreachable cache, against the C loop, on tmpfs and on a disk."""

import os
from collections import deque
from collections.abc import Callable
from functools import partial

from bench.clock import Side, alternate
from bench.place import Place, check_swept, discard, file_system, kitcache, sweep_binary, tool
from bench.table import Row, ratio_row
from bench.trees import Tree

_TMPFS_GOAL = 1.2
_DISK_GOAL = 0.9

Command = Callable[[Tree], list[str]]


def tmpfs_row(place: Place) -> Row:
    return _against_loop(place, place.tmpfs, _TMPFS_GOAL, ahead=0)


def disk_row(place: Place) -> Row:
    # ext4 does not hand out an inode again for minutes after its file has gone, and looks for
    # another one by one: trees that are made after a removal take many times as long to make.
    return _against_loop(place, place.disk, _DISK_GOAL, ahead=2 * place.sizes.disk_rounds)


def umoci_row(place: Place) -> Row:
    """Compare with umoci, which collects the same layouts and assumes no other process."""
    umoci, blobs = tool("umoci"), place.sizes.umoci_blobs
    source = _Source(place, place.tmpfs, blobs, ahead=0)
    sides = [
        source.side("kitcache", lambda tree: kitcache("reset", "--quiet", tree.path)),
        source.side("umoci gc", lambda tree: [umoci, "gc", "--layout", tree.path]),
    ]
    sizes = place.sizes
    ours, theirs = alternate(sides, rounds=sizes.sweep_rounds, spare=sizes.spare_rounds // 2)
    return ratio_row(f"reset of {blobs:,} blobs, tmpfs", ours, "umoci gc", theirs, None)


def _against_loop(place: Place, base: str, goal: float, *, ahead: int) -> Row:
    binary, blobs = sweep_binary(place), place.sizes.sweep_blobs
    source = _Source(place, base, blobs, ahead=ahead)
    sides = [
        source.side("kitcache", lambda tree: kitcache("reset", "--quiet", tree.path)),
        source.side("C loop", lambda tree: [binary, tree.blob_dir, place.keep_list(tree)]),
    ]
    on_disk = ahead > 0
    ours, theirs = alternate(
        sides,
        rounds=place.sizes.disk_rounds if on_disk else place.sizes.sweep_rounds,
        spare=0 if on_disk else place.sizes.spare_rounds,
        between=os.sync if on_disk else lambda: None,
    )
    what = f"reset of {blobs:,} blobs, {file_system(base)}"
    return ratio_row(what, ours, "C loop", theirs, goal)


class _Source:
    """Make a new tree for every run, and `ahead` of them before the first."""

    def __init__(self, place: Place, base: str, blobs: int, *, ahead: int) -> None:
        place.expect_room(base, max(1, ahead) * blobs)
        self._make = partial(place.tree, base, blobs)
        self._ready = deque(self._make() for _ in range(ahead))
        self._tree: Tree | None = None

    def side(self, name: str, command: Command) -> Side:
        def prepare() -> list[str]:
            self._tree = self._ready.popleft() if self._ready else self._make()
            return command(self._tree)

        return Side(name, prepare, self._check)

    def _check(self) -> None:
        assert self._tree is not None
        check_swept(self._tree)
        discard([self._tree.path])
