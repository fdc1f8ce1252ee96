"""Row: reset of a small cache, whole process, against an interpreter that does nothing."""

import sys

from bench.clock import Side, alternate
from bench.place import Place, discard, kitcache
from bench.table import Row, ratio_row
from bench.trees import Tree, make_tree

_BLOBS = 10
_LIVE = 6
_GOAL = 4.0


def start_row(place: Place) -> Row:
    trees: list[Tree] = []

    def prepare() -> list[str]:
        trees.append(make_tree(place.fresh(place.tmpfs), _BLOBS, _LIVE))
        return kitcache("reset", trees[-1].path)

    sides = [
        Side("kitcache", prepare, lambda: discard([trees[-1].path])),
        # The same interpreter with the same site directory: sys.executable, not a shim.
        Side("python", lambda: [sys.executable, "-c", "pass"]),
    ]
    sizes = place.sizes
    ours, theirs = alternate(sides, rounds=sizes.start_rounds, spare=sizes.spare_rounds)
    return ratio_row(f"reset of {_BLOBS} blobs, whole process", ours, "-c pass", theirs, _GOAL)
