"""Rows: commands that only read a large cache, against `find -printf %s` on the same tree."""

from bench.clock import Side, alternate
from bench.place import Place, discard, kitcache, tool
from bench.table import Row, ratio_row

_GOAL = 1.5


def read_rows(place: Place) -> list[Row]:
    find = tool("find")
    tree = place.tree(place.tmpfs, place.sizes.sweep_blobs)
    sides = [
        Side("du", lambda: kitcache("du", tree.path)),
        Side("dry run", lambda: kitcache("reset", "--dry-run", tree.path)),
        Side("find", lambda: [find, tree.path, "-printf", "%s\\n"]),
    ]
    sizes = place.sizes
    du, dry, theirs = alternate(sides, rounds=sizes.read_rounds, spare=sizes.spare_rounds)
    discard([tree.path])
    of = f"of {place.sizes.sweep_blobs:,} blobs, tmpfs"
    return [
        ratio_row(f"du {of}", du, "find", theirs, _GOAL),
        ratio_row(f"reset --dry-run {of}", dry, "find", theirs, _GOAL),
    ]
