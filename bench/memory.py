"""Row: the peak memory of a reset of a huge cache."""

import os
import sys

from bench.clock import run
from bench.place import Place, check_swept, discard, kitcache
from bench.table import Row, value_row

_GOAL_MIB = 40
_PEAK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peak.py")
# Until exec, a child counts its parent's peak as its own, so a small parent starts it.
MEASURE_PEAK = (sys.executable, "-I", "-S", _PEAK)
"""Arguments before a command: its output ends with its CPU in ms and its peak in KiB."""


def memory_row(place: Place) -> Row:
    tree = place.tree(place.tmpfs, place.sizes.memory_blobs)
    command = kitcache("reset", "--quiet", tree.path)
    peak_kib = int(run([*MEASURE_PEAK, *command]).output.split()[-1])
    check_swept(tree)
    discard([tree.path])
    what = f"peak memory, reset of {place.sizes.memory_blobs:,} blobs"
    return value_row(what, [peak_kib / 1024], "MiB", _GOAL_MIB)
